"""The commands of `kubectl numavm` on a real API server, with a real operator and agents without hosts."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from numavm_lab.controlplane.manifests import kubectl, kubectl_program
from numavm_lab.controlplane.plane import ControlPlane
from support.cluster import Callers
from support.libvirt_schema import schema_errors
from support.operator_process import fake_hosts, operators
from support.vms import Vms, condition, vm_manifest
from support.wait import wait_for

BIN = Path(sys.prefix) / "bin"


class Plugin:
    """Runs commands as a person would."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane = plane
        self.namespace = namespace

    def __call__(self, *words: str, code: int = 0) -> str:
        """Return what a command prints: its result, or where it fails with `code` its error."""
        environment = {**os.environ, "KUBECONFIG": str(self._plane.admin_kubeconfig)}
        options = [] if "topology" in words or "doctor" in words else ["-n", self.namespace]
        done = subprocess.run(
            [BIN / "kubectl-numavm", *words, *options],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def placed(
    control_plane: ControlPlane,
    callers: Callers,
    new_namespace: object,
    tmp_path_factory: pytest.TempPathFactory,
    fleet_of_its_own: None,  # noqa: ARG001 - wanted for what it does
) -> Iterator[tuple[Plugin, Vms]]:
    """A VM with two cells that runs on plugin-a, and the commands in its namespace."""
    namespace = new_namespace()
    vms = Vms(callers.admin(), namespace)
    with (
        fake_hosts(callers, "plugin-a") as _,
        operators(control_plane, tmp_path_factory.mktemp("plugin")) as start,
    ):
        start("operator", "--lease-seconds", "5", "--lease-renew-seconds", "1")
        vms.create(vm_manifest("db", [(2, "256Mi"), (1, "128Mi")]))
        vms.wait("db", lambda vm: condition(vm, "Ready").get("status") == "True", 90, "Ready")
        yield Plugin(control_plane, namespace), vms


def test_topology_shows_who_owns_which_cpu(placed: tuple[Plugin, Vms]) -> None:
    plugin, vms = placed
    shown = json.loads(plugin("topology", "plugin-a", "-o", "json"))["hosts"][0]

    owners = {
        cpu["id"]: cpu["vcpu"]
        for cell in shown["cells"]
        for cpu in cell["cpus"]
        if cpu.get("vm") == f"{vms.namespace}/db"
    }
    claimed = {
        int(cpu): vcpu
        for cell, first in zip(vms.get("db")["status"]["placement"]["cells"], (0, 2), strict=True)
        for vcpu, cpu in enumerate(cell["pcpus"], start=first)
    }
    assert owners == claimed
    assert len(owners) == 3
    assert f"A {vms.namespace}/db" in plugin("topology")


def test_describe_tells_the_claim_and_conditions(placed: tuple[Plugin, Vms]) -> None:
    plugin, vms = placed
    shown = json.loads(plugin("describe", "db", "-o", "json"))

    placement = vms.get("db")["status"]["placement"]
    assert shown["placementId"] == placement["id"]
    assert [row["promised"] for row in shown["threads"]] == [
        cpu for cell in placement["cells"] for cpu in cell["pcpus"]
    ]
    text = plugin("describe", "db")
    assert "plugin-a" in text
    assert "Scheduled" in text


def test_describe_shows_events(placed: tuple[Plugin, Vms]) -> None:
    plugin, vms = placed
    vms.create(vm_manifest("too-large", [(64, "64Mi")]))
    told = wait_for(lambda: vms.events("too-large"), describe="an event about too-large")

    shown = json.loads(plugin("describe", "too-large", "-o", "json"))
    assert [(event["reason"], event["note"]) for event in shown["events"]] == told
    vms.delete_and_wait("too-large")


def test_the_xml_has_the_claims_pins(placed: tuple[Plugin, Vms]) -> None:
    plugin, vms = placed
    text = plugin("xml", "db")

    assert schema_errors(text) == []
    for cell in vms.get("db")["status"]["placement"]["cells"]:
        for cpu in cell["pcpus"]:
            assert f'cpuset="{cpu}"' in text


def test_what_freeze_prints_is_accepted_and_names_the_place(placed: tuple[Plugin, Vms]) -> None:
    plugin, vms = placed
    manifest = plugin("freeze", "db")

    kubectl(
        plugin._plane,
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename=-"),
        manifest=manifest,
    )
    spec = yaml.safe_load(manifest)["spec"]
    placed_cells = vms.get("db")["status"]["placement"]["cells"]
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": "plugin-a"}
    assert [
        cell["hostBinding"]["hostCells"] for cell in spec["domain"]["cpu"]["numa"]["cells"]
    ] == [cell["hostCells"] for cell in placed_cells]


def test_doctor_speaks_of_a_host_in_the_cluster(placed: tuple[Plugin, Vms]) -> None:
    plugin, _ = placed
    findings = json.loads(plugin("doctor", "plugin-a", "-o", "json"))["findings"]

    assert {"check": "KVM", "level": "OK", "message": "guest code ran", "remedy": ""} in findings


def test_stop_start_and_restart_are_waited_for(placed: tuple[Plugin, Vms]) -> None:
    plugin, vms = placed
    first = vms.get("db")["status"]["domain"]["startedAt"]
    plugin("restart", "db", "--wait")
    token = vms.get("db")["spec"]["restartToken"]
    assert vms.get("db")["status"]["domain"]["restartToken"] == token
    assert vms.get("db")["status"]["domain"]["startedAt"] >= first

    assert "stopped" in plugin("stop", "db", "--wait")
    assert "placement" not in vms.get("db")["status"]
    assert "stopped (unchanged)" in plugin("stop", "db")
    assert "runStrategy is Halted" in plugin("restart", "db", code=1)

    assert "started" in plugin("start", "db", "--wait")
    assert "placement" in vms.get("db")["status"]


def test_kubectl_finds_the_plugin_and_its_completion(placed: tuple[Plugin, Vms]) -> None:
    plugin, _ = placed
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "KUBECONFIG": str(plugin._plane.admin_kubeconfig),
    }
    command = [kubectl_program(), "numavm", "topology"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "plugin-a" in done.stdout

    # What kubectl runs for `kubectl numavm describe -n NAMESPACE d<TAB>`.
    command = [BIN / "kubectl_complete-numavm", "describe", "-n", plugin.namespace, "d"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["db", ":4"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("describe", "nobody"), 'NumaVM {namespace}/nobody: numavms.numavm.io "nobody" not found'),
        (("describe", "db", "--context", "no-such"), "no cluster: "),
        (("xml", "db", "--host", "nowhere"), "NumaHost nowhere: "),
    ],
)
def test_an_expected_error_is_one_line(
    placed: tuple[Plugin, Vms], words: tuple[str, ...], says: str
) -> None:
    plugin, _ = placed
    told = plugin(*words, code=1)

    assert told.startswith(f"Error: {says.format(namespace=plugin.namespace)}")
    assert len(told.splitlines()) == 1
