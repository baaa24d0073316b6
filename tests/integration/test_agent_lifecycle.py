"""A claim on a real API server becomes a real domain, is verified, kept, restarted, stopped and released."""

import operator
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import libvirt
import pytest

from numavm_api.cpuset import CpuSet
from numavm_lab.controlplane.plane import ControlPlane
from support.agent_fixtures import running_node
from support.agents import Node, Vm, condition, place, small_spec
from support.cluster import Callers
from support.wait import wait_for

MakeVm = Callable[..., Vm]


@pytest.fixture(scope="module")
def node(
    control_plane: ControlPlane, callers: Callers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("node")
    with running_node("host-lifecycle", control_plane, callers, directory) as node:
        yield node


@pytest.fixture
def make_vm(node: Node, namespace: str) -> Iterator[MakeVm]:
    made: list[Vm] = []

    def make(name: str, **changes: object) -> Vm:
        vm = Vm(node, namespace, name)
        made.append(vm)
        vm.create(small_spec(node.libvirt, **changes))
        return vm

    yield make
    for vm in made:
        vm.remove()


def by_hand(node: Node, vm: Vm, act: Callable[[libvirt.virDomain], object]) -> None:
    """Do something to a domain past NumaVM, as an administrator might."""
    connection = libvirt.open(node.libvirt.uri)
    try:
        act(connection.lookupByUUIDString(vm.uid()))
    finally:
        connection.close()


def test_the_host_reports_cells_pools_and_capabilities(node: Node) -> None:
    status = node.wait_ready()
    assert [cell["id"] for cell in status["cells"]] == [0]
    assert (status["pools"]["housekeeping"], status["pools"]["dedicated"]) == ("0", "1")
    assert condition(status, "PoolsConfigured")["status"] == "True"
    assert status["capabilities"]["libvirtVersion"].count(".") == 2


def test_a_claim_runs_verified_and_is_released_when_halted(node: Node, make_vm: MakeVm) -> None:
    vm = make_vm("runs")
    vm.start()
    status = vm.status()
    cell = status["numa"]["cells"][0]
    assert (status["domain"]["state"], status["domain"]["type"]) == ("Running", "TCG")
    assert (cell["pcpus"], cell["pinned"], cell["aligned"]) == ("1", True, True)
    assert sum(one["bytes"] for one in cell["resident"]) == 128 * 2**20
    assert [vm.uid()] == [claim["uid"] for claim in node.host_status()["claims"]]
    vm.patch({"runStrategy": "Halted"})
    vm.wait_domain("released", state="Shutoff", released="claim-1", shutoffReason="Stopped")
    assert node.host_status()["claims"] == []
    assert vm.qemu() is None
    assert vm.condition("Running")["reason"] == "Halted"


def test_the_emulator_is_narrowed_after_the_start(node: Node, make_vm: MakeVm) -> None:
    vm = make_vm("narrow")
    vm.start()
    by_hand(node, vm, lambda domain: _assert_emulator_pin(domain, [True, False]))


def _assert_emulator_pin(domain: libvirt.virDomain, expected: list[bool]) -> None:
    assert expected == list(domain.emulatorPinInfo())[:2]


def test_a_calm_vm_is_not_written_while_the_lease_is_renewed(node: Node, make_vm: MakeVm) -> None:
    vm = make_vm("calm")
    vm.start()
    lease, version = _lease_renewed(node), vm.get()["metadata"]["resourceVersion"]
    for _ in range(3):
        lease = wait_for(
            lambda: _lease_renewed(node), until=partial(operator.ne, lease), describe="renewed"
        )
    assert version == vm.get()["metadata"]["resourceVersion"]


def _lease_renewed(node: Node) -> str:
    lease = node.custom().get_namespaced_custom_object(
        "coordination.k8s.io", "v1", "numavm-system", "leases", f"numavm-host-{node.name}"
    )
    found_true = int(lease["metadata"]["annotations"]["numavm.io/numahost-resource-version"])
    assert found_true <= int(node.host()["metadata"]["resourceVersion"])
    return str(lease["spec"]["renewTime"])


def test_a_changed_token_restarts_under_the_same_claim(make_vm: MakeVm) -> None:
    vm = make_vm("restarts", restartToken="1")
    vm.start()
    first = vm.qemu()
    vm.patch({"restartToken": "2"})
    vm.wait_domain("restarted", state="Running", restartToken="2", placementId="claim-1")
    assert first != vm.qemu()
    assert vm.domain()["starts"] == 2


def test_a_changed_token_with_a_changed_request_gives_the_claim_back(make_vm: MakeVm) -> None:
    vm = make_vm("replaced", restartToken="1")
    vm.start()
    domain = vm.get()["spec"]["domain"]
    vm.patch({"domain": {**domain, "memory": {"guest": "160Mi"}}})
    pending = vm.wait("RestartRequired", "True")
    assert (
        "spec.domain.memory.guest: 128Mi -> 160Mi"
        in condition(pending, "RestartRequired")["message"]
    )
    vm.patch({"restartToken": "2"})
    refused = vm.wait_domain("given back", state="Shutoff", released="claim-1")["refused"]
    assert refused["reason"] == "SpecChanged"
    vm.start(claim_id="claim-2")
    assert vm.status()["memory"]["guestCurrent"] == "160Mi"


def test_a_pending_change_taken_back_is_no_longer_pending(make_vm: MakeVm) -> None:
    vm = make_vm("pending")
    vm.start()
    vm.patch({"nodeSelector": {"zone": "a"}})
    vm.wait("RestartRequired", "True")
    vm.patch({"nodeSelector": None})
    vm.wait("RestartRequired", "False")


def test_a_deleted_vm_is_stopped_and_released(make_vm: MakeVm) -> None:
    vm = make_vm("deleted")
    vm.start()
    vm.delete()
    vm.wait_domain("released", state="Shutoff", released="claim-1")
    assert vm.qemu() is None


def test_a_guest_that_ignores_the_request_loses_power_in_time(node: Node, make_vm: MakeVm) -> None:
    vm = make_vm("stubborn", terminationGracePeriodSeconds=3)
    vm.start()
    by_hand(node, vm, lambda domain: domain.suspend())  # a paused guest hears nothing
    vm.patch({"runStrategy": "Halted"})
    vm.wait_domain("released", state="Shutoff", released="claim-1", shutoffReason="Stopped")
    wait_for(lambda: "StopForced" in vm.events(), describe="the event is posted")


def test_a_domain_destroyed_by_hand_runs_again(node: Node, make_vm: MakeVm) -> None:
    vm = make_vm("destroyed")
    vm.start()
    first = vm.qemu()
    by_hand(node, vm, lambda domain: domain.destroy())
    wait_for(
        lambda: (vm.qemu(), vm.domain().get("state"), vm.condition("NumaAligned").get("status")),
        until=lambda seen: seen[0] not in (None, first) and seen[1:] == ("Running", "True"),
        deadline_seconds=60,
        describe=f"it runs again; log:\n{node.agent.log()}",
    )
    wait_for(lambda: "DomainDestroyed" in vm.events(), describe="the event is posted")
    assert vm.domain()["failures"] == 1


def test_threads_moved_by_hand_are_moved_back(node: Node, make_vm: MakeVm) -> None:
    vm = make_vm("repinned")
    vm.start()
    by_hand(node, vm, lambda domain: domain.pinVcpu(0, (True, False)))
    wait_for(lambda: "PinsRestored" in vm.events(), describe="the event is posted")
    by_hand(node, vm, lambda domain: _assert_vcpu_pin(domain, (False, True)))
    vm.wait("NumaAligned", "True")


def test_a_guest_that_somebody_paused_does_not_count_as_running(
    node: Node, make_vm: MakeVm
) -> None:
    vm = make_vm("paused")
    vm.start()
    by_hand(node, vm, lambda domain: domain.suspend())
    vm.wait("Running", "False")
    assert vm.condition("Running")["reason"] == "Paused"
    assert "`virsh resume`" in vm.condition("Running")["message"]
    assert (vm.domain()["state"], vm.domain()["pausedReason"]) == ("Paused", "User")
    by_hand(node, vm, lambda domain: domain.resume())
    vm.wait("Running", "True")
    assert "pausedReason" not in vm.domain()


def _assert_vcpu_pin(domain: libvirt.virDomain, expected: tuple[bool, ...]) -> None:
    wait_for(
        lambda: tuple(domain.vcpuPinInfo()[0][: len(expected)]),
        until=lambda seen: seen == expected,
        describe="the vCPU is where it was promised",
    )


@pytest.mark.parametrize(
    ("strategy", "ends", "goes_on"),
    [
        ("Always", "shutdown", "runs again"),
        ("RerunOnFailure", "shutdown", "finished"),
        ("RerunOnFailure", "destroy", "runs again"),
        ("Once", "destroy", "finished"),
    ],
)
def test_what_follows_an_end_is_the_run_strategys(
    node: Node,
    make_vm: MakeVm,
    strategy: str,
    ends: str,
    goes_on: Literal["runs again", "finished"],
) -> None:
    vm = make_vm(f"{strategy.lower()}-{ends}", runStrategy=strategy)
    vm.start()
    _wait_booted(node, vm)
    first = vm.qemu()
    by_hand(node, vm, lambda domain: getattr(domain, ends)())
    if goes_on == "runs again":
        wait_for(
            lambda: (vm.qemu(), vm.domain().get("state")),
            until=lambda seen: seen[0] not in (None, first) and seen[1] == "Running",
            deadline_seconds=60,
            describe="it runs again",
        )
    else:
        vm.wait_domain("finished", state="Shutoff", released="claim-1")
        assert vm.condition("Running")["reason"] == "Finished"


def _wait_booted(node: Node, vm: Vm) -> None:
    """Wait until the witness speaks: before that, it does not hear ACPI."""
    log = node.libvirt.logs / f"{vm.domain()['name']}-serial.log"
    wait_for(
        lambda: "NUMAVM-WITNESS" in log.read_text(errors="replace") if log.exists() else False,
        deadline_seconds=90,
        describe=f"the guest reports on {log}",
    )


def test_shared_vcpus_float_over_what_dedicated_ones_leave(node: Node, make_vm: MakeVm) -> None:
    spec = small_spec(node.libvirt)["domain"]
    shared = make_vm("shared", domain={**spec, "cpu": {"dedicatedCpuPlacement": False}})
    shared.start(CpuSet())
    assert shared.status()["numa"]["cells"][0]["pcpus"] == "1"
    greedy = make_vm("greedy")
    greedy.claim(place(greedy.spec()))
    refused = greedy.wait_domain("refused", released="claim-1")["refused"]
    assert refused["reason"] == "CpuTaken"
    assert "last shared CPU" in refused["message"]


def test_a_vm_that_is_gone_leaves_an_orphan_that_is_kept(node: Node, make_vm: MakeVm) -> None:
    vm = make_vm("orphan")
    vm.start()
    uid, pid = vm.uid(), vm.qemu()
    vm.delete()
    _drop_all_finalizers(node, vm)
    again = make_vm("orphan")
    wait_for(
        lambda: [(claim["uid"], claim.get("orphan")) for claim in node.host_status()["claims"]],
        until=lambda claims: claims == [(uid, True)],
        describe=f"the claim is an orphan's; log:\n{node.agent.log()}",
    )
    assert condition(node.host_status(), "ClaimsConsistent")["reason"] == "OrphanedDomains"
    again.claim(place(again.spec()))
    refused = again.wait_domain("refused", released="claim-1")["refused"]
    assert refused["reason"] == "CpuTaken"
    assert pid == vm.qemu()
    connection = libvirt.open(node.libvirt.uri)
    connection.lookupByUUIDString(uid).destroy()
    connection.close()
    wait_for(
        lambda: node.host_status()["claims"],
        until=lambda claims: claims == [],
        describe="nothing is held",
    )


def _drop_all_finalizers(node: Node, vm: Vm) -> None:
    """Force the object away past the operator, as an administrator with that power may."""
    node.libvirt.processes.signal("agent", signal.SIGSTOP)
    try:
        node.custom().patch_namespaced_custom_object(
            "numavm.io",
            "v1alpha1",
            vm.namespace,
            "numavms",
            vm.name,
            [{"op": "remove", "path": "/metadata/finalizers"}],
            _content_type="application/json-patch+json",
        )
    finally:
        node.libvirt.processes.signal("agent", signal.SIGCONT)
