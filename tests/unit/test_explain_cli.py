"""`numavm explain` and `numavm simulate` without a cluster: files in, what the placement says out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest
import yaml
from typer.testing import CliRunner, Result

from numavm_api.errors import NumaVMError
from numavm_cli.main import app
from support.placement_examples import fleet as fleet_of
from support.placement_examples import host, placed, request, vm

KIND = {"apiVersion": "numavm.io/v1alpha1"}


def node(name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "Node", "metadata": {"name": name, "labels": {"zone": name[-1]}}, "spec": spec}


def numahost(name: str, **more: Any) -> dict[str, Any]:
    body = host(name, cores=17, memory="64Gi", **more)
    return {
        **KIND,
        "kind": "NumaHost",
        **{key: body[key] for key in ("metadata", "spec", "status")},
    }


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    items = [
        numahost("host-a"),
        numahost("host-b"),
        node("host-a"),
        node("host-b", unschedulable=True),
    ]
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump({"kind": "List", "items": items}))
    return path


def manifest(tmp_path: Path, spec: dict[str, Any], **more: Any) -> Path:
    path = tmp_path / "vm.yaml"
    path.write_text(
        yaml.safe_dump({**KIND, "kind": "NumaVM", "metadata": {"name": "db"}, "spec": spec, **more})
    )
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def explained(file: Path, fleet: Path, *more: str) -> dict[str, Any]:
    done = run("explain", "-f", file, "--fleet", fleet, "-o", "json", *more)
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_a_vm_that_fits_is_told_its_host_and_what_keeps_it_from_others(
    tmp_path: Path, fleet: Path
) -> None:
    told = explained(manifest(tmp_path, vm(cores=2, memory="1Gi")), fleet)

    assert told["chosen"] == "host-a"
    assert [(one["node"], one["fits"]) for one in told["hosts"]] == [
        ("host-a", True),
        ("host-b", False),
    ]
    assert told["hosts"][1]["cause"] == "Taint"


def test_a_vm_that_fits_nowhere_is_told_by_how_much_and_what_would_help(
    tmp_path: Path, fleet: Path
) -> None:
    spec = vm({"cpus": "0-19", "memory": "1Gi"}, cores=20)
    first = explained(manifest(tmp_path, spec), fleet)["hosts"][0]

    assert (first["wanted"], first["available"], first["missing"]) == (20, 16, 4)
    assert "free 4 CPUs" in first["remedy"]
    assert {cell["hostCell"] for cell in first["cells"]} == {0, 1}
    table = run("explain", "-f", manifest(tmp_path, spec), "--fleet", fleet)
    assert "0/2 hosts fit" in table.output


def test_a_power_that_the_host_does_not_permit_is_a_cause_with_its_edit(
    tmp_path: Path, fleet: Path
) -> None:
    first = explained(manifest(tmp_path, vm(cores=2, memory="1Gi", realtime={})), fleet)["hosts"][0]

    assert (first["fits"], first["cause"]) == (False, "PowerNotPermitted")
    assert "spec.permitted.realtime" in first["remedy"]


def test_what_a_vm_holds_itself_does_not_stand_in_its_way(tmp_path: Path) -> None:
    spec = vm({"cpus": "0-15", "memory": "1Gi"}, {"cpus": "16-31", "memory": "1Gi"}, cores=32)
    claim = placed(request(spec), fleet_of({**numahost("host-a"), "labels": {}, "reachable": True}))
    status = {"nodeName": "host-a", "placement": claim.placement.to_api()}
    placed_vm = {
        **KIND,
        "kind": "NumaVM",
        "metadata": {"name": "db", "uid": "u"},
        "spec": spec,
        "status": status,
    }
    other = {**placed_vm, "metadata": {"name": "other", "uid": "o"}, "status": {}}
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump_all([numahost("host-a"), placed_vm]))

    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(placed_vm))
    told = explained(own, path)
    assert (told["chosen"], told["held"]) == ("host-a", ["host-a"])
    own.write_text(yaml.safe_dump(other))
    assert explained(own, path)["chosen"] is None


def waiting(name: str, created: str, **status: Any) -> dict[str, Any]:
    return {
        **KIND,
        "kind": "NumaVM",
        "metadata": {"name": name, "uid": name, "creationTimestamp": created},
        "spec": vm(cores=1, memory="1Gi"),
        "status": status,
    }


def test_the_host_is_chosen_as_the_operator_was_told(tmp_path: Path) -> None:
    """Two hosts, one of them with two of its 32 CPUs taken: packing goes there, spreading goes elsewhere."""
    wanted = manifest(tmp_path, vm(cores=2, memory="1Gi"))
    full, empty = numahost("host-a"), numahost("host-b")
    first = placed(
        request(vm(cores=2, memory="1Gi"), name="first"),
        fleet_of(host("host-a", cores=17, memory="64Gi")),
    )
    full["status"]["claims"] = [
        {"uid": "u1", "namespace": "n", "name": "first", "placement": first.placement.to_api()}
    ]
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({"kind": "List", "items": [full, empty]}))

    assert explained(wanted, path)["chosen"] == "host-a"
    assert explained(wanted, path, "--host-choice", "Pack")["chosen"] == "host-a"
    assert explained(wanted, path, "--host-choice", "Spread")["chosen"] == "host-b"


def test_a_host_kept_for_another_vm_is_named_with_whose_it_is(tmp_path: Path) -> None:
    large = waiting("large", "2026-01-02T00:00:00Z", reservedNodeName="host-a")
    urgent = waiting("urgent", "2026-01-03T00:00:00Z")
    urgent["spec"]["priorityClassName"] = "high"
    vms = [
        waiting("older", "2026-01-01T00:00:00Z"),
        large,
        urgent,
        waiting("later", "2026-01-03T00:00:00Z"),
    ]
    high = {"kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump_all([numahost("host-a"), high, *vms]))

    def told(name: str) -> dict[str, Any]:
        done = run("explain", name, "--fleet", path, "-o", "json")
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    (host_a,) = told("later")["hosts"]
    assert (host_a["cause"], host_a["message"]) == ("Kept", "kept for default/large")
    assert [told(name)["chosen"] for name in ("older", "large", "urgent")] == ["host-a"] * 3
    not_yet_there = manifest(tmp_path, vm(cores=1, memory="1Gi"))
    assert explained(not_yet_there, path)["hosts"][0]["cause"] == "Kept"


def test_a_mistake_is_one_sentence(tmp_path: Path, fleet: Path) -> None:
    both = run(
        "explain", "db", "-f", manifest(tmp_path, vm(cores=1, memory="1Gi")), "--fleet", fleet
    )
    assert isinstance(both.exception, NumaVMError)
    assert "one of the two" in str(both.exception)
    missing = run("explain", "nobody", "--fleet", fleet)
    assert "no NumaVM default/nobody" in str(missing.exception)
    mix = run("simulate", "--fleet", fleet, "--mix", "huge")
    assert "small, mixed, large" in str(mix.exception)


def simulated(fleet: Path, *more: object) -> dict[str, Any]:
    done = run("simulate", "--fleet", fleet, "-o", "json", *more)
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_a_stream_of_a_mix_is_the_same_for_the_same_seed(fleet: Path) -> None:
    moving = {"decisionsPerSecond", "medianMilliseconds", "p99Milliseconds"}
    one, again, other = (
        {
            key: value
            for key, value in simulated(fleet, "--count", 60, "--seed", seed).items()
            if key not in moving
        }
        for seed in (1, 1, 2)
    )

    assert one == again != other
    assert one["acceptedVms"] + sum(one["refused"].values()) == 60


def test_a_stream_of_ones_own_is_counted_by_hand(tmp_path: Path, fleet: Path) -> None:
    sixteen = vm({"cpus": "0-15", "memory": "1Gi"}, cores=16)
    stream = [
        {"time": 0, "leaves": 10, "vm": sixteen},
        {"time": 1, "vm": sixteen},
        {"time": 2, "vm": sixteen},
        {"time": 11, "vm": sixteen},
    ]
    path, plot = tmp_path / "stream.yaml", tmp_path / "fleet.svg"
    path.write_text(yaml.safe_dump(stream))

    told = simulated(fleet, "--stream", path, "--plot", plot)

    assert (told["acceptedVms"], told["acceptedVcpus"], told["vcpus"]) == (3, 48, 64)
    assert sum(told["refused"].values()) == 1
    drawn = minidom.parse(str(plot))  # noqa: S318 - our own file
    rows = drawn.getElementsByTagName("text")
    assert [row.firstChild.data for row in rows[1:5]] == [
        "host-a/0",
        "host-a/1",
        "host-b/0",
        "host-b/1",
    ]
