"""Operator and agents killed at each named point, in a start and in a stop: it converges by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from numavm_api.killpoints import HOT_POINTS, OPERATION_POINTS, KillPoint
from numavm_lab.controlplane.settings import Component
from support.vms import Manifest, Vms, is_ready, told, vm_manifest
from support.wait import wait_for
from support.whole import Whole, whole

SMALL = ((1, "32Mi"),)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole(tmp_path_factory.mktemp("kill"), "host-1") as made:
        yield made


@pytest.fixture(scope="module")
def vms(running: Whole) -> Vms:
    return running.vms("kill-points")


def until_with_revival(
    running: Whole, vms: Vms, name: str, wanted: str, died: list[str]
) -> Manifest:
    """Wait until a VM is ready or gone, starting again whatever dies on the way."""
    seen: Manifest = {}

    def observe() -> str:
        died.extend(running.revive())
        seen.clear()
        seen.update(vms.get(name))
        return told(seen)

    wait_for(
        observe,
        until=lambda _text: is_ready(seen) if wanted == "ready" else not seen,
        deadline_seconds=120,
        describe=f"{name} {wanted}; died so far: {died}",
    )
    return dict(seen)


@pytest.mark.parametrize(
    "point", sorted(set(KillPoint) - {*OPERATION_POINTS, *HOT_POINTS}), ids=str
)
def test_killed_in_a_start_or_a_stop_it_converges(
    running: Whole, vms: Vms, point: KillPoint
) -> None:
    died: list[str] = []
    running.arm(point)
    vms.create(vm_manifest(str(point), SMALL))

    ready = until_with_revival(running, vms, str(point), "ready", died)
    (domain,) = running.domains()["host-1"]
    assert ready["metadata"]["uid"][:8] in domain
    (claim,) = running.nodes["host-1"].host_status()["claims"]
    assert claim["placement"] == ready["status"]["placement"]

    vms.delete(str(point))
    until_with_revival(running, vms, str(point), "gone", died)
    assert running.domains() == {"host-1": {}}
    assert len(died) == 1, f"the point was reached once, but these died: {died}"


def test_a_running_guest_outlives_the_death_of_everything_else(running: Whole, vms: Vms) -> None:
    vms.create(vm_manifest("steady", SMALL))
    vms.wait_ready("steady")
    node = running.nodes["host-1"]
    before = node.libvirt.qemu_pids()

    node.libvirt.processes.signal("agent", 9)
    running.operator.kill()
    node.libvirt.kill_libvirtd()
    node.libvirt.start_libvirtd()
    running.revive()

    vms.patch("steady", terminationGracePeriodSeconds=1)
    vms.wait_ready("steady", 120)
    assert node.libvirt.qemu_pids() == before
    vms.delete_and_wait("steady")


def test_libvirtd_killed_in_the_middle_of_a_start(running: Whole, vms: Vms) -> None:
    node = running.nodes["host-1"]
    vms.create(vm_manifest("midway", SMALL))
    vms.wait("midway", lambda vm: "placement" in vm.get("status", {}), 30, "claimed")
    node.libvirt.kill_libvirtd()
    node.libvirt.start_libvirtd()

    vms.wait_ready("midway", 180)
    assert len(node.libvirt.qemu_pids()) == 1
    vms.delete_and_wait("midway")


@pytest.mark.parametrize("component", list(Component), ids=str)
def test_etcd_or_the_api_server_killed_in_the_middle_of_a_start(
    running: Whole, vms: Vms, component: Component
) -> None:
    name = f"without-{component}"
    vms.create(vm_manifest(name, SMALL))
    running.plane.kill(component)
    running.plane.start()

    vms.wait_ready(name, 120)
    assert len(running.domains()["host-1"]) == 1
    vms.delete_and_wait(name)
    assert running.domains() == {"host-1": {}}
