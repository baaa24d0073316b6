"""The agent, libvirtd or the host die at any moment: it converges by itself, and a running guest never notices."""

import signal
from collections.abc import Callable, Iterator

import pytest

from numavm_api.killpoints import KillPoint
from numavm_lab.controlplane.plane import ControlPlane
from support.agent_fixtures import running_node
from support.agents import Node, Vm, condition, place, small_spec
from support.cluster import Callers
from support.wait import wait_for

MakeVm = Callable[[str], Vm]

IN_A_START = (
    KillPoint.BEFORE_ADMIT,
    KillPoint.BEFORE_DEFINE,
    KillPoint.AFTER_CREATE,
    KillPoint.BEFORE_VERIFY,
    KillPoint.BEFORE_REPORT,
)
IN_A_STOP = (KillPoint.BEFORE_DESTROY, KillPoint.AFTER_DESTROY, KillPoint.BEFORE_REPORT)


@pytest.fixture(scope="module")
def node(
    control_plane: ControlPlane, callers: Callers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("node")
    with running_node("host-faults", control_plane, callers, directory) as node:
        yield node


@pytest.fixture
def make_vm(node: Node, namespace: str) -> Iterator[MakeVm]:
    made: list[Vm] = []

    def make(name: str) -> Vm:
        vm = Vm(node, namespace, name)
        made.append(vm)
        vm.create(small_spec(node.libvirt))
        return vm

    yield make
    for vm in made:
        vm.remove()


def restart_armed(node: Node, point: KillPoint) -> None:
    """Start the agent anew, so that it kills itself where it first comes to a point."""
    node.agent.stop()
    node.agent.start(NUMAVM_KILL_POINT=str(point))


@pytest.mark.parametrize("point", IN_A_START)
def test_an_agent_killed_in_a_start_starts_once(
    node: Node, make_vm: MakeVm, point: KillPoint
) -> None:
    vm = make_vm(f"start-{point}")
    restart_armed(node, point)
    vm.claim(place(vm.spec()))
    node.agent.wait_dead()
    before = vm.qemu()
    node.agent.start()
    vm.wait("NumaAligned", "True")
    assert before in (None, vm.qemu())
    assert len(node.libvirt.qemu_pids()) == 1
    assert [vm.uid()] == [claim["uid"] for claim in node.host_status()["claims"]]


@pytest.mark.parametrize("point", IN_A_STOP)
def test_an_agent_killed_in_a_stop_releases_once_it_is_back(
    node: Node, make_vm: MakeVm, point: KillPoint
) -> None:
    vm = make_vm(f"stop-{point}")
    vm.start()
    restart_armed(node, point)
    vm.patch({"runStrategy": "Halted"})
    node.agent.wait_dead()
    node.agent.start()
    vm.wait_domain("released", state="Shutoff", released="claim-1")
    assert node.libvirt.qemu_pids() == {}
    assert node.host_status()["claims"] == []


def test_a_killed_agent_takes_up_a_running_guest_as_it_is(node: Node, make_vm: MakeVm) -> None:
    vm = make_vm("steady")
    vm.start()
    before, pid = vm.domain(), vm.qemu()
    node.libvirt.processes.signal("agent", signal.SIGKILL)
    node.agent.wait_dead()
    node.agent.start()
    _wait_lease_renewed(node)
    assert (before, pid) == (vm.domain(), vm.qemu())
    assert vm.condition("NumaAligned")["status"] == "True"


def _wait_lease_renewed(node: Node) -> None:
    def renewed() -> str:
        lease = node.custom().get_namespaced_custom_object(
            "coordination.k8s.io", "v1", "numavm-system", "leases", f"numavm-host-{node.name}"
        )
        return str(lease["spec"]["renewTime"])

    for _ in range(2):  # the second one ends a turn that this agent began
        before = renewed()
        wait_for(renewed, until=lambda now, old=before: now != old, describe="the lease is renewed")


def test_a_killed_libvirtd_costs_no_guest(node: Node, make_vm: MakeVm) -> None:
    vm = make_vm("orphaned-qemu")
    vm.start()
    pid = vm.qemu()
    node.libvirt.kill_libvirtd()
    wait_for(
        lambda: condition(node.host_status(), "Ready"),
        until=lambda ready: ready.get("reason") == "LibvirtUnavailable",
        describe=f"the host says so; log:\n{node.agent.log()}",
    )
    assert [vm.uid()] == [claim["uid"] for claim in node.host_status()["claims"]]
    node.libvirt.start_libvirtd()
    node.wait_ready()
    assert pid == vm.qemu()
    assert vm.domain()["state"] == "Running"
    vm.patch({"runStrategy": "Halted"})
    vm.wait_domain("released", state="Shutoff", released="claim-1")


def test_libvirtd_killed_in_a_start_leaves_one_domain(node: Node, make_vm: MakeVm) -> None:
    vm = make_vm("half-made")
    vm.claim(place(vm.spec()))
    wait_for(lambda: vm.qemu() is not None, describe="QEMU is there", poll_seconds=0.01)
    node.libvirt.kill_libvirtd()
    node.libvirt.start_libvirtd()
    vm.wait("NumaAligned", "True", deadline_seconds=120)
    assert len(node.libvirt.qemu_pids()) == 1


def test_a_power_cycled_host_starts_its_vms_again(node: Node, make_vm: MakeVm) -> None:
    vm = make_vm("power")
    vm.start()
    first, boot = vm.qemu(), vm.domain()["bootId"]
    node.agent.stop()
    node.libvirt.power_cycle()
    try:
        node.agent.start()
        wait_for(
            vm.domain,
            until=lambda seen: seen["state"] == "Running" and seen["bootId"] != boot,
            deadline_seconds=60,
            describe=f"it runs again; log:\n{node.agent.log()}",
        )
        assert first != vm.qemu()
        wait_for(lambda: "HostLost" in vm.events(), describe="the event is posted")
        assert vm.domain()["placementId"] == "claim-1"
    finally:
        vm.remove()
        node.agent.stop()
        node.libvirt.undo_power_cycle()
        node.agent.start()
        node.wait_ready()


def test_a_bearer_token_is_read_again_when_its_file_changes(node: Node, make_vm: MakeVm) -> None:
    _wait_lease_renewed(node)  # it has read the token that is there now
    token = node.libvirt.directory / "credentials" / "token"
    good = token.read_text(encoding="ascii")
    token.write_text("nonsense", encoding="ascii")
    wait_for(
        lambda: "401" in node.agent.log(5),
        describe="the agent is turned away",
    )
    token.write_text(good, encoding="ascii")
    make_vm("renewed").start()
