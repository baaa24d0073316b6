"""`numavm render`: the agent's domain without a cluster."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lxml import etree
from typer.testing import CliRunner

from numavm_agent.domain.metadata import read_metadata
from numavm_api.errors import RejectedError
from numavm_cli.main import app
from numavm_cli.offline import domain_of, host_of, made_up_host
from support.domains import UID, spec_of, vm_of
from support.examples import EXAMPLES
from support.libvirt_schema import schema_errors

ALL_EXAMPLES = sorted(EXAMPLES.rglob("*.yaml"))
TWO_CELLS = yaml.safe_load((EXAMPLES / "two-cells.yaml").read_text())


def run(*words: object) -> str:
    result = CliRunner().invoke(app, ["render", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def host_manifest() -> dict[str, Any]:
    """Return a NumaHost with room for any example, as the API server would show it."""
    made_up = made_up_host(spec_of(cells=4), vm_of(spec_of(cells=4)).effective)
    status = made_up.status.to_api()
    status["permitted"] = {"directories": ["/var/lib/numavm"]}
    status["capabilities"]["machineTypes"] = ["pc-q35-2.12", "pc-q35-7.1", "pc-q35-10.0"]
    return {"kind": "NumaHost", "metadata": {"name": "node-1"}, "spec": {}, "status": status}


@pytest.mark.parametrize("path", ALL_EXAMPLES, ids=lambda path: path.name)
def test_every_example_renders(path: Path) -> None:
    assert schema_errors(run("-f", path)) == []


def test_the_same_manifest_gives_the_same_domain() -> None:
    path = EXAMPLES / "two-cells.yaml"

    assert run("-f", path) == run("-f", path)


def test_without_a_host_the_spec_binds_it() -> None:
    manifest = {"spec": spec_of(cells=2).to_api()}
    cells = manifest["spec"]["domain"]["cpu"]["numa"]["cells"]
    cells[0]["hostBinding"] = {"hostCells": "5"}

    domain = etree.fromstring(domain_of(manifest, None).xml)

    nodesets = [str(node.get("nodeset")) for node in domain.iterfind("numatune/memnode")]
    assert nodesets[0] == "5"


def test_host_devices_are_made_up_near_their_cells() -> None:
    spec = spec_of(
        {
            "devices": {
                "hostDevices": [
                    {"name": "a", "cell": 1, "source": {"address": "0000:65:00.0"}},
                    {"name": "b", "source": {"selector": {"vendor": "8086", "device": "10d3"}}},
                ]
            }
        },
        cells=2,
    )

    domain = etree.fromstring(domain_of({"spec": spec.to_api()}, None).xml)

    buses = [node.get("bus") for node in domain.iterfind("devices/hostdev/source/address")]
    assert buses == ["0x65", "0x01"]


def test_a_named_host_gives_its_newest_machine_type(tmp_path: Path) -> None:
    host = tmp_path / "host.yaml"
    host.write_text(yaml.safe_dump(host_manifest()))

    domain = etree.fromstring(run("-f", EXAMPLES / "two-cells.yaml", "--host", host))

    machine = domain.find("os/type")
    assert machine is not None
    assert machine.get("machine") == "pc-q35-10.0"


def test_a_claim_on_that_host_is_kept() -> None:
    host = host_of(host_manifest())
    first = domain_of(TWO_CELLS, host)
    record = read_metadata(first.xml)
    assert record is not None
    moved = record.placement.model_copy(update={"id": "kept"})
    claimed = {**TWO_CELLS, "status": {"nodeName": "node-1", "placement": moved.to_api()}}
    elsewhere = {**TWO_CELLS, "status": {"nodeName": "node-2", "placement": moved.to_api()}}

    def claim_id(manifest: dict[str, Any]) -> str:
        found = read_metadata(domain_of(manifest, host).xml)
        assert found is not None
        return found.placement.id

    assert (claim_id(claimed), claim_id(elsewhere)) == ("kept", "offline")


def test_what_others_hold_there_is_not_given_out() -> None:
    manifest = host_manifest()
    first = read_metadata(domain_of(TWO_CELLS, host_of(manifest)).xml)
    assert first is not None
    manifest["status"]["claims"] = [
        {"uid": UID, "namespace": "x", "name": "y", "placement": first.placement.to_api()}
    ]

    second = read_metadata(domain_of(TWO_CELLS, host_of(manifest)).xml)

    assert second is not None
    assert second.placement.dedicated_cpus.isdisjoint(first.placement.dedicated_cpus)


def test_a_bad_spec_is_refused_with_its_field() -> None:
    bad = {"spec": {"domain": {"cpu": {"sockets": 0}, "memory": {"guest": "1Gi"}}}}

    with pytest.raises(RejectedError, match=r"spec\.domain\.cpu\.sockets is 0"):
        domain_of(bad, None)


def test_no_room_is_explained() -> None:
    spec = spec_of({"cpu": {"dedicatedCpuPlacement": True, "sockets": 500, "cores": 1}}).to_api()
    host = host_of(host_manifest())

    with pytest.raises(RejectedError, match="no room on node-1: 0/1 hosts fit"):
        domain_of({"spec": spec}, host)


def test_a_host_without_status_is_refused() -> None:
    with pytest.raises(RejectedError, match="has no status"):
        host_of({"kind": "NumaHost", "metadata": {"name": "x"}, "spec": {}})


@pytest.mark.parametrize("text", ["kind: Pod", "a: [", ""])
def test_a_file_without_a_numavm_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)

    with pytest.raises(RejectedError, match=str(file)):
        run("-f", file)


def test_without_a_host_the_cpus_are_those_that_the_spec_names() -> None:
    cpu = {"cores": 2, "pinning": {"cpuset": "1-4,^3,6", "vcpus": [{"vcpu": 1, "cpuset": "0,9"}]}}
    manifest = {"spec": spec_of({"cpu": cpu}).to_api()}

    domain = etree.fromstring(domain_of(manifest, None).xml)

    pins = [pin.get("cpuset") for pin in domain.iterfind("cputune/vcpupin")]
    assert pins == ["1-2,4,6", "0,9"]
