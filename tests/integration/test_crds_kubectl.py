"""What people see of the kinds through kubectl."""

import subprocess

import pytest
import yaml

from numavm_lab.controlplane.manifests import kubectl, kubectl_program
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.errors import LabError
from support.cluster import Callers
from support.custom_objects import NumaHosts, NumaVMs
from support.manifests import NO_CELLS, TWO_CELLS, Spec, changed, numavm
from support.wait import wait_for


def columns(text: str) -> list[str]:
    return text.splitlines()[0].split()


def explained(plane: ControlPlane, path: str) -> str:
    """Return what `kubectl explain` prints, in one line.

    Discovery follows the CRD's condition Established by up to a second or two.
    """

    def explain() -> str:
        try:
            return kubectl(plane, "explain", path)
        except LabError as error:
            if "doesn't have a resource type" in str(error):
                return ""
            raise

    return " ".join(wait_for(explain, describe=f"discovery of {path}").split())


def test_explain_teaches_the_numa_part(control_plane: ControlPlane) -> None:
    text = explained(control_plane, "nvm.spec.domain.cpu.numa")

    for taught in (
        "The guest's NUMA cells and their binding.",
        "The cells, at most 16.",
        "Binding of the whole guest; a cell's own goes before it.",
    ):
        assert taught in text


def test_explain_says_enums_and_defaults(control_plane: ControlPlane) -> None:
    text = explained(control_plane, "nvm.spec.runStrategy")

    assert "ENUM: Always RerunOnFailure Once Halted" in text
    assert "Halted: stopped, and holds nothing." in text


def test_every_field_is_described(control_plane: ControlPlane) -> None:
    """Descriptions come from the models: one without would be a field without a docstring."""
    for name in ("numavms.numavm.io", "numahosts.numavm.io"):
        text = kubectl(control_plane, "get", "crd", name, "--output=yaml")
        root = yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        bare = list(undescribed(root["properties"]["spec"], "spec"))
        bare += list(undescribed(root["properties"]["status"], "status"))

        assert bare == []


def undescribed(schema: dict[str, object], path: str) -> list[str]:
    found = []
    properties = schema.get("properties")
    assert properties is None or isinstance(properties, dict)
    for name, part in (properties or {}).items():
        if not part.get("description"):
            found.append(f"{path}.{name}")
        found += undescribed(part, f"{path}.{name}")
    items = schema.get("items")
    if isinstance(items, dict):
        found += undescribed(items, f"{path}[]")
    return found


def test_columns_of_a_vm(control_plane: ControlPlane, callers: Callers, namespace: str) -> None:
    NumaVMs(callers.admin(), namespace).create("db", NO_CELLS)
    narrow = kubectl(control_plane, "get", "nvm", f"--namespace={namespace}")
    wide = kubectl(control_plane, "get", "nvm", f"--namespace={namespace}", "--output=wide")

    expected = ["NAME", "STATUS", "READY", "NODE", "NUMA", "ALIGNED", "AGE"]
    assert expected == columns(narrow)
    assert [*expected, "VCPUS", "MEMORY", "REASON"] == columns(wide)


def test_columns_of_a_host(control_plane: ControlPlane, callers: Callers) -> None:
    NumaHosts(callers.agent("columns")).create("columns")
    summary = {"cells": "2", "cpus": "6/8", "memory": "3Gi/4Gi", "hugepages": "-", "vms": "1"}
    NumaHosts(callers.agent("columns")).apply_status("columns", {"summary": summary})
    text = kubectl(control_plane, "get", "nhost", "columns")

    expected = ["NAME", "READY", "CELLS", "CPUS", "MEMORY", "HUGEPAGES", "VMS", "AGE"]
    assert expected == columns(text)
    assert text.splitlines()[1].split()[:-1] == ["columns", "2", "6/8", "3Gi/4Gi", "-", "1"]


def test_get_all_shows_vms(control_plane: ControlPlane, callers: Callers, namespace: str) -> None:
    NumaVMs(callers.admin(), namespace).create("db", NO_CELLS)

    assert "numavm.numavm.io/db" in kubectl(
        control_plane, "get", "all", "--output=name", f"--namespace={namespace}"
    )


MERGED_HUGE_PAGES = {
    "guest": "512Mi",
    "hugepages": {"pageSize": "2Mi"},
    "backing": {"samePageMerging": "Enabled"},
}


@pytest.mark.parametrize(
    ("path", "value", "warning"),
    [
        (
            "placement",
            {"cellSharing": "Allow"},
            "spec.placement.cellSharing Allow is vain: the VM has one guest cell",
        ),
        ("restartToken", "1", "spec.domain.cpu.maxSockets is left out: the VM has no room"),
        (
            "domain.memory",
            MERGED_HUGE_PAGES,
            "spec.domain.memory.backing.samePageMerging Enabled is vain for cells in huge pages",
        ),
        (
            "domain.memory.backing",
            {"allocation": "OnDemand", "allocationThreads": 2},
            "spec.domain.memory.backing.allocationThreads is vain",
        ),
        (
            "domain.cpu",
            {
                "dedicatedCpuPlacement": True,
                "realtime": {},
                "tuning": {"quotaMicroseconds": 5000},
            },
            "spec.domain.cpu.tuning.quotaMicroseconds is vain for realtime vCPUs",
        ),
        (
            "domain.cpu.numa",
            {
                "cells": [{"id": 0, "cpus": "0-1", "memory": "512Mi"}],
                "interconnects": {
                    "latencies": [
                        {"initiator": 0, "target": 0, "type": kind, "latencyNanoseconds": 80}
                        for kind in ("Access", "Read")
                    ]
                },
            },
            "spec.domain.cpu.numa.interconnects.latencies of type Access are vain",
        ),
        (
            "domain.cpu.tuning",
            {"periodMicroseconds": 5000},
            "spec.domain.cpu.tuning.periodMicroseconds is vain",
        ),
        (
            "domain",
            {
                "memory": {"guest": "1Gi", "balloon": {}},
                "devices": {
                    "hostDevices": [{"name": "nic", "source": {"address": "0000:65:00.0"}}]
                },
            },
            "spec.domain.memory.balloon is vain: a host device pins all memory",
        ),
        (
            "domain",
            {"machine": {"type": "pc"}, "memory": {"guest": "1Gi", "balloon": {"cell": 0}}},
            "spec.domain.memory.balloon.cell says what the guest sees",
        ),
        (
            "domain",
            {
                "memory": {"guest": "1Gi", "maxGuest": "2Gi"},
                "devices": {"memory": [{"name": "m", "cell": 0, "size": "64Mi", "dimm": {}}]},
            },
            "of a dimm that is no multiple of 128Mi is vain in part",
        ),
    ],
)
def test_a_vain_wish_is_warned_of_and_taken(
    control_plane: ControlPlane, path: str, value: object, warning: str
) -> None:
    spec = changed(NO_CELLS, path, value)
    manifest = yaml.safe_dump(numavm("vain", spec, "default"))

    assert warning in kubectl_warnings(control_plane, manifest)


def test_a_plain_manifest_gives_no_warning(control_plane: ControlPlane) -> None:
    plain = changed(TWO_CELLS, "domain.cpu.maxSockets", 2)
    manifest = yaml.safe_dump(numavm("plain", plain, "default"))

    assert kubectl_warnings(control_plane, manifest) == ""


@pytest.mark.parametrize(
    ("base", "path"),
    [(TWO_CELLS, "domain.cpu.numa.cells.1.memory"), (NO_CELLS, "domain.memory.guest")],
    ids=["cells", "guest"],
)
def test_memory_raised_by_part_of_a_block_is_warned_of_while_the_vm_runs(
    control_plane: ControlPlane, callers: Callers, namespace: str, base: Spec, path: str
) -> None:
    room = changed(changed(base, "domain.cpu.maxSockets", 2), "domain.memory.maxGuest", "8Gi")
    vms = NumaVMs(callers.admin(), namespace)
    vms.create("db", changed(room, path, "1Gi"))

    def warnings(amount: str, method: str = "DIMM") -> str:
        raised = changed(changed(room, path, amount), "domain.memory.hotplug.method", method)
        return kubectl_warnings(
            control_plane, yaml.safe_dump(numavm("db", raised, namespace)), "apply"
        )

    assert "vain in part" not in warnings("1088Mi")
    NumaVMs(callers.operator(), namespace).patch_status("db", {"nodeName": "host-a"})
    runs = {"domain": {"nodeName": "host-a", "state": "Running"}}
    NumaVMs(callers.agent("host-a"), namespace).patch_status("db", runs)
    assert "raised on a running VM by no multiple of 128Mi is vain in part" in warnings("1088Mi")
    assert "vain in part" not in warnings("1152Mi")
    assert "vain in part" not in warnings("960Mi")
    assert "vain in part" not in warnings("1088Mi", "VirtioMem")


def kubectl_warnings(plane: ControlPlane, manifest: str, verb: str = "create") -> str:
    """Return what kubectl says on its standard error."""
    done = subprocess.run(
        [
            kubectl_program(),
            f"--kubeconfig={plane.admin_kubeconfig}",
            verb,
            "--dry-run=server",
            "--filename=-",
        ],
        input=manifest,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr
