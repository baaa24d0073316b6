"""An amended claim on a real API server is applied to the running domain, also by the successor of a killed agent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from numavm_api.cpuset import CpuSet
from numavm_api.killpoints import KILL_POINT_VARIABLE, KillPoint
from numavm_api.placement import Placement
from numavm_api.quantity import MEBIBYTE, Bytes
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.guest import Report, parse_reports
from support.agent_fixtures import running_node
from support.agents import Node, Vm, place, small_spec
from support.cluster import Callers
from support.wait import wait_for

STEPS = (
    KillPoint.BEFORE_OPERATION,
    KillPoint.OPERATION_RECORDED,
    KillPoint.PAGES_MOVED,
    KillPoint.THREADS_MOVED,
    KillPoint.BEFORE_COMMIT,
    KillPoint.AFTER_COMMIT,
)
"""Those that a change of CPUs alone reaches; the others need a second host cell."""


@pytest.fixture(scope="module")
def node(
    control_plane: ControlPlane, callers: Callers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("node")
    with running_node("host-live", control_plane, callers, directory) as node:
        node.patch_host_spec({"dedicatedCpus": "0-1"})
        yield node


@pytest.fixture(scope="module")
def vm(node: Node, new_namespace: object) -> Iterator[Vm]:
    """A running guest whose only vCPU is on CPU 1."""
    assert callable(new_namespace)
    made = Vm(node, new_namespace(), "live")
    spec = small_spec(node.libvirt)
    spec["domain"]["memory"]["balloon"] = {"model": "virtio", "statsPeriodSeconds": 1}
    made.create(spec)
    made.start()
    yield made
    made.remove()


def amended(vm: Vm, cpu: int, **changes: object) -> Placement:
    """Write a claim on another CPU beside the one that the domain holds, as the operator would."""
    before = Placement.model_validate(vm.status()["placement"]).alone
    number = int(before.id.partition("-")[2]) + 1
    after = place(vm.spec(), claim_id=f"claim-{number}", pcpus=CpuSet.of(cpu))
    after = after.model_copy(update=changes).replacing(before)
    vm.claim(after)
    return after


def vcpu_cpus(vm: Vm) -> str:
    """Return the CPUs that the kernel lets the vCPU's thread run on."""
    pid = vm.qemu()
    assert pid is not None
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text(encoding="ascii").startswith("CPU 0/"):
            status = (task / "status").read_text(encoding="ascii")
            return re.findall(r"^Cpus_allowed_list:\s*(\S+)$", status, re.MULTILINE)[0]
    raise AssertionError("the vCPU has no thread")


def other_cpu(vm: Vm) -> int:
    return 1 - int(vcpu_cpus(vm))


def wait_held(node: Node, vm: Vm, claim: Placement) -> None:
    """Wait until the domain runs under a claim, and the host holds nothing beside it."""
    vm.wait_domain("moved", placementId=claim.id, deadline_seconds=120)
    wait_for(
        lambda: [one["placement"] for one in node.host_status()["claims"]],
        until=lambda held: held == [claim.alone.to_api()],
        describe=f"the host holds {claim.id} alone",
    )


def test_an_amended_claim_moves_the_vcpu_of_the_running_guest(node: Node, vm: Vm) -> None:
    qemu, cpu = vm.qemu(), other_cpu(vm)
    claim = amended(vm, cpu)
    wait_held(node, vm, claim)

    assert (vcpu_cpus(vm), vm.qemu()) == (str(cpu), qemu)
    assert vm.condition("NumaAligned")["status"] == "True"
    assert "operation" not in vm.status()
    assert {"AmendBegun", "Amended"} <= set(vm.events())


@pytest.mark.parametrize("point", STEPS, ids=str)
def test_killed_at_a_step_the_next_agent_ends_the_change(
    node: Node, vm: Vm, point: KillPoint
) -> None:
    qemu, cpu = vm.qemu(), other_cpu(vm)
    node.agent.stop()
    node.agent.start(**{KILL_POINT_VARIABLE: str(point)})
    claim = amended(vm, cpu)
    node.agent.wait_dead()
    node.agent.start()
    wait_held(node, vm, claim)
    assert (vcpu_cpus(vm), vm.qemu()) == (str(cpu), qemu)


def test_a_claim_that_is_not_of_this_domain_is_refused_and_nothing_changes(vm: Vm) -> None:
    qemu, cpu = vm.qemu(), vcpu_cpus(vm)
    before = Placement.model_validate(vm.status()["placement"])
    cells = [cell.model_copy(update={"memory": Bytes(256 * MEBIBYTE)}) for cell in before.cells]
    claim = amended(vm, 1 - int(cpu), cells=cells)
    wait_for(
        vm.domain,
        until=lambda domain: domain.get("refused", {}).get("placementId") == claim.id,
        describe="the amended claim is refused",
    )

    domain = vm.domain()
    assert (domain["refused"]["reason"], domain["state"]) == ("SpecChanged", "Running")
    assert "but the running domain has 134217728" in domain["refused"]["message"]
    assert domain["placementId"] == before.id
    assert (vcpu_cpus(vm), vm.qemu()) == (cpu, qemu)
    vm.claim(before)
    wait_for(vm.domain, until=lambda one: "refused" not in one, describe="the refusal is gone")


@pytest.mark.parametrize(("target", "killed"), [("96Mi", False), ("128Mi", True)])
def test_a_changed_balloon_target_is_followed_by_the_running_guest(
    node: Node, vm: Vm, target: str, *, killed: bool
) -> None:
    qemu = vm.qemu()
    if killed:
        node.agent.stop()
        node.agent.start(**{KILL_POINT_VARIABLE: KillPoint.BALLOON_RECORDED})
    vm.patch({"domain": {"memory": {"balloon": {"target": target}}}})
    if killed:
        node.agent.wait_dead()
        node.agent.start()
    memory = wait_for(
        lambda: vm.status()["memory"],
        until=lambda seen: (
            seen["balloon"]["target"] == seen["balloon"]["actual"] == target
            and seen["balloon"].get("stale") is False
        ),
        deadline_seconds=120,
        describe=f"the guest has {target}",
    )
    assert memory["guestCurrent"] == target
    assert vm.condition("RestartRequired")["status"] == "False"
    assert vm.qemu() == qemu


@pytest.fixture
def growing(node: Node, namespace: str) -> Iterator[Vm]:
    """A guest that can have two vCPUs, over shared CPUs, and has one."""
    made = Vm(node, namespace, "growing")
    spec = small_spec(node.libvirt)
    spec["domain"]["cpu"] = {"sockets": 1, "maxSockets": 2}
    made.create(spec)
    yield made
    made.remove()


def claim_for(vm: Vm, number: int, held: CpuSet | None) -> Placement:
    """Return a claim without dedicated CPUs that has room for some vCPUs; None: for all."""
    made = place(vm.spec(), claim_id=f"claim-{number}", pcpus=CpuSet())
    cells = [cell.model_copy(update={"held_vcpus": held}) for cell in made.cells]
    return made.model_copy(update={"cells": cells})


def reports_of(vm: Vm) -> list[Report]:
    """Return what this very VM's guest has said; the logs of others of its name stay."""
    uid = vm.get()["metadata"]["uid"]
    reports = [
        report
        for file in vm.node.libvirt.logs.glob("*growing*serial*")
        for report in parse_reports(file.read_text(errors="replace"))
    ]
    return [report for report in reports if report.uuid == uid]


def online_in_guest(vm: Vm) -> str:
    """Return the guest kernel's own word."""
    reports = reports_of(vm)
    return str(reports[-1].online_cpus) if reports else ""


def test_vcpus_are_added_under_an_amended_claim_and_the_guest_uses_them(growing: Vm) -> None:
    vm = growing
    first = claim_for(vm, 1, CpuSet.of(0))
    vm.claim(first)
    vm.wait("NumaAligned", "True")
    wait_for(
        lambda: online_in_guest(vm),
        until=lambda on: on == "0",
        describe="the guest booted",
        deadline_seconds=180,
    )
    qemu = vm.qemu()
    vm.patch({"domain": {"cpu": {"sockets": 2}}})
    vm.wait_domain("seen", observedGeneration=vm.get()["metadata"]["generation"])
    assert vm.status()["currentCPUTopology"]["onlineVcpus"] == "0"
    assert vm.condition("RestartRequired")["status"] == "False"

    vm.claim(claim_for(vm, 2, None).replacing(first))
    vm.wait_domain("added", placementId="claim-2", deadline_seconds=120)
    wait_for(
        lambda: online_in_guest(vm),
        until=lambda on: on == "0-1",
        describe="the guest's CPUs",
        deadline_seconds=180,
    )
    vm.wait("NumaAligned", "True")
    topology = vm.status()["currentCPUTopology"]
    assert (topology["onlineVcpus"], topology["vcpus"]) == ("0-1", 2)
    assert vm.qemu() == qemu


def test_vcpus_that_the_claim_holds_already_are_added_without_another(growing: Vm) -> None:
    vm = growing
    vm.claim(claim_for(vm, 1, None))
    vm.wait("NumaAligned", "True")
    vm.patch({"domain": {"cpu": {"sockets": 2}}})
    wait_for(
        lambda: online_in_guest(vm),
        until=lambda on: on == "0-1",
        describe="the guest's CPUs",
        deadline_seconds=180,
    )
    wait_for(
        lambda: vm.status()["currentCPUTopology"]["onlineVcpus"],
        until=lambda on: on == "0-1",
        describe="the status follows",
    )
    vm.wait("NumaAligned", "True")
    # This guest is emulated, and emulated ones keep their vCPUs: see test_hot_vcpus.py for one with KVM.
    vm.patch({"domain": {"cpu": {"sockets": 1}}})
    vm.wait("RestartRequired", "True")
    assert "spec.domain.cpu.sockets: 2 -> 1" in vm.condition("RestartRequired")["message"]
    assert "removableVcpus" not in vm.status()["currentCPUTopology"]
    assert online_in_guest(vm) == "0-1"


def test_a_dimm_is_plugged_into_the_running_guest_under_an_amended_claim(
    node: Node, namespace: str
) -> None:
    vm = Vm(node, namespace, "growing")
    spec = small_spec(node.libvirt)
    spec["domain"]["cpu"] = {"sockets": 1}
    # Room above 4 GiB costs the guest 64 MiB of bounce buffers.
    spec["domain"]["memory"] = {"guest": "256Mi", "maxGuest": "1Gi"}
    vm.create(spec)
    try:
        first = claim_for(vm, 1, None)
        vm.claim(first)
        vm.wait("NumaAligned", "True")
        before = wait_for(
            lambda: memory_in_guest(vm), describe="the guest booted", deadline_seconds=180
        )
        qemu = vm.qemu()
        module = {"name": "m0", "cell": 0, "size": "128Mi", "dimm": {}}
        vm.patch({"domain": {"devices": {"memory": [module]}}})
        vm.wait_domain("seen", observedGeneration=vm.get()["metadata"]["generation"])
        assert memory_in_guest(vm) == before

        cells = [cell.model_copy(update={"plugged": Bytes(128 * MEBIBYTE)}) for cell in first.cells]
        second = first.model_copy(update={"id": "claim-2", "cells": cells})
        vm.claim(second.replacing(first))
        vm.wait_domain("plugged", placementId="claim-2", deadline_seconds=120)
        wait_for(
            lambda: (memory_in_guest(vm), *words_of_memory(vm)),
            until=lambda seen: seen[0] == before + 128 * 1024,
            deadline_seconds=180,
            describe=f"the guest's {before} KiB, and the module's; guest, libvirt, condition",
        )
        vm.wait("NumaAligned", "True")
        assert vm.condition("RestartRequired")["status"] == "False"
        assert vm.qemu() == qemu
    finally:
        vm.remove()


def memory_in_guest(vm: Vm) -> int:
    """Return what the guest's kernel manages on its only node, in KiB; 0: it has not said."""
    reports = reports_of(vm)
    return reports[-1].nodes[0].memory_kib if reports else 0


def words_of_memory(vm: Vm) -> tuple[object, object]:
    """Return what a failed wait shows beside the guest's word: libvirt's modules, and what the condition says."""
    status = vm.status()
    return status.get("memory", {}).get("devices"), vm.condition("HotMemoryChange").get("message")


def test_a_host_whose_kernel_cannot_move_memory_says_so(node: Node) -> None:
    able = node.host_status()["capabilities"]
    is_unified = "cpuset" in _controllers()
    assert able["memoryMoves"] is is_unified
    if not is_unified:
        assert "cgroup v2" in able["memoryMovesMessage"]


def _controllers() -> list[str]:
    try:
        return Path("/sys/fs/cgroup/cgroup.controllers").read_text(encoding="ascii").split()
    except OSError:
        return []


def test_pins_that_drift_are_only_reported_where_the_policy_says_so(node: Node, vm: Vm) -> None:
    cpu = vcpu_cpus(vm)
    vm.patch({"driftPolicy": "Report"})
    vm.wait_domain("seen", observedGeneration=vm.get()["metadata"]["generation"])
    other = tuple(one != int(cpu) for one in (0, 1))
    connection = libvirt.open(node.libvirt.uri)
    try:
        connection.lookupByUUIDString(vm.uid()).pinVcpu(0, other)
        vm.wait("NumaAligned", "False", "ThreadsMisplaced")
        assert vcpu_cpus(vm) != cpu
        wait_for(vm.events, until=lambda seen: "PinsDrifted" in seen, describe="an event")
        vm.patch({"driftPolicy": "Restore"})
        vm.wait("NumaAligned", "True", deadline_seconds=120)
        assert vcpu_cpus(vm) == cpu
    finally:
        connection.close()
