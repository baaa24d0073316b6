"""An agent refuses what it cannot run: the reason is visible, the host's report is true, nothing is left behind."""

from collections.abc import Callable, Iterator

import pytest

from numavm_api.cpuset import CpuSet
from numavm_api.placement import Placement
from numavm_lab.controlplane.plane import ControlPlane
from support.agent_fixtures import running_node
from support.agents import Document, Node, Vm, place, small_spec
from support.cluster import Callers

Tamper = Callable[[Placement], Placement]


@pytest.fixture(scope="module")
def node(
    control_plane: ControlPlane, callers: Callers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("node")
    with running_node("host-refusals", control_plane, callers, directory) as node:
        yield node


@pytest.fixture
def vm(node: Node, namespace: str) -> Iterator[Vm]:
    vm = Vm(node, namespace, "vm")
    vm.create(small_spec(node.libvirt))
    yield vm
    vm.remove()


def refusal(vm: Vm, claim: Placement) -> Document:
    """Write a claim, and return the agent's refusal of it."""
    vm.claim(claim)
    status = vm.wait_domain("refused", state="Shutoff", released=claim.id)
    assert status["refused"]["placementId"] == claim.id
    assert vm.qemu() is None
    return status["refused"]


def _pcpu(cpu: int) -> Tamper:
    cpus = CpuSet.of(cpu)

    def tamper(claim: Placement) -> Placement:
        cells = [cell.model_copy(update={"pcpus": [cpus]}) for cell in claim.cells]
        return claim.model_copy(update={"dedicated_cpus": cpus, "cells": cells})

    return tamper


def _cells(**update: object) -> Tamper:
    return lambda claim: claim.model_copy(
        update={"cells": [cell.model_copy(update=update) for cell in claim.cells]}
    )


def _claim(**update: object) -> Tamper:
    return lambda claim: claim.model_copy(update=update)


@pytest.mark.parametrize(
    ("tamper", "reason", "says"),
    [
        (_pcpu(0), "CpuNotInPool", "CPU 0 is not in this host's dedicated pool '1'"),
        (_pcpu(700), "CpuNotInPool", "CPU 700 is not in this host's dedicated pool"),
        (_cells(host_cells=CpuSet.of(7)), "UnknownCell", "this host has the cells 0"),
        (_claim(request_hash="0" * 32), "SpecChanged", "placement.requestHash is 000"),
        (_cells(memory=2**30), "SpecChanged", "is 1Gi, but the spec says 128Mi"),
        (_claim(overhead=2**46), "MemoryTaken", "of host cell 0, but of its"),
    ],
)
def test_a_claim_that_does_not_fit_is_refused_with_numbers(
    vm: Vm, tamper: Tamper, reason: str, says: str
) -> None:
    found = refusal(vm, tamper(place(vm.spec())))
    assert reason == found["reason"]
    assert says in found["message"]


def test_huge_pages_that_are_not_there_are_refused(node: Node, vm: Vm) -> None:
    domain = small_spec(node.libvirt)["domain"]
    domain["memory"]["hugepages"] = {"pageSize": "2Mi"}
    vm.patch({"domain": domain})
    found = refusal(vm, place(vm.spec()))
    assert found["reason"] == "HugePagesTaken"
    assert "64 pages of 2Mi on host cell 0" in found["message"]


def test_a_path_outside_the_permitted_directories_is_refused(node: Node, vm: Vm) -> None:
    domain = small_spec(node.libvirt)["domain"]
    domain["firmware"]["kernelBoot"]["initrd"] = "/etc/shadow"
    vm.patch({"domain": domain})
    found = refusal(vm, place(vm.spec()))
    assert found["reason"] == "NotPermitted"
    assert "spec.domain.firmware.kernelBoot.initrd" in found["message"]


def test_a_symbolic_link_below_a_permitted_directory_is_refused(node: Node, vm: Vm) -> None:
    domain = small_spec(node.libvirt)["domain"]
    link = node.libvirt.directory / "lib" / "images" / "link"
    link.unlink(missing_ok=True)
    link.symlink_to("/etc/shadow")
    domain["firmware"]["kernelBoot"]["initrd"] = "/var/lib/libvirt/images/link"
    vm.patch({"domain": domain})
    found = refusal(vm, place(vm.spec()))
    assert found["reason"] == "NotPermitted"
    assert "symbolic link" in found["message"]


def test_software_emulation_needs_the_administrators_word(node: Node, vm: Vm) -> None:
    node.patch_host_spec({"allowEmulation": False})
    try:
        found = refusal(vm, place(vm.spec()))
    finally:
        node.patch_host_spec({"allowEmulation": True})
    assert found["reason"] == "Unsupported"
    assert "spec.allowEmulation" in found["message"]


def test_a_claim_of_a_former_leader_is_refused(node: Node, vm: Vm) -> None:
    vm.start(claim_id="new-leader", epoch=5)
    vm.patch({"runStrategy": "Halted"})
    vm.wait_domain("released", released="new-leader")
    assert node.host_status()["highestEpoch"] == 5
    vm.claim(None)
    vm.patch({"runStrategy": "Always"})
    found = refusal(vm, place(vm.spec(), claim_id="old-leader", epoch=4))
    assert found["reason"] == "StaleEpoch"
    assert "epoch is 4, but this host has seen a claim of epoch 5" in found["message"]


def test_a_cpu_that_a_foreign_domain_keeps_is_refused_and_reported_first(
    node: Node, vm: Vm
) -> None:
    with node.libvirt.foreign_domain(pinned_to=1):
        found = refusal(vm, place(vm.spec(), epoch=9))
        assert found["reason"] == "CpuTaken"
        assert node.host_status()["pools"]["foreign"] == "1"
    vm.start(claim_id="afterwards", epoch=9)


def test_a_fenced_host_starts_nothing(node: Node, vm: Vm) -> None:
    node.patch_host_spec({"fenced": True})
    vm.claim(place(vm.spec(), epoch=9))
    vm.wait("Running", "False", "NotRunning")
    assert "fenced" in vm.condition("Running")["message"]
    assert vm.qemu() is None
    node.patch_host_spec({"fenced": False})
    vm.wait("Running", "True")
