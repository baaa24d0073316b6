"""vCPUs and memory modules come and go on a running guest, by its own word: also in races, and after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from numavm_api.killpoints import KILL_POINT_VARIABLE, KillPoint
from numavm_lab.controlplane.plane import ControlPlane
from support.agent_fixtures import running_node
from support.agents import Node, Vm
from support.cluster import Callers
from support.hot_guest import HotGuest
from support.libvirtd_log import Change
from support.wait import wait_for

DIMM = {"name": "m0", "cell": 0, "size": "128Mi", "dimm": {}}


def virtio(requested: str) -> dict[str, Any]:
    return {"name": "v0", "cell": 0, "size": "256Mi", "virtioMem": {"requested": requested}}


@pytest.fixture(scope="module")
def node(
    control_plane: ControlPlane, callers: Callers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("hot")
    with running_node("host-hot", control_plane, callers, directory) as node:
        yield node


@pytest.fixture(scope="module")
def guest(node: Node, new_namespace: Callable[[], str]) -> Iterator[HotGuest]:
    made = HotGuest(Vm(node, new_namespace(), "hot"))
    made.boot()
    yield made
    made.vm.remove()


def test_raised_memory_comes_as_a_module_and_lowered_goes(guest: HotGuest) -> None:
    guest.change(sockets=1, modules=[], memory="384Mi")
    guest.wait(cpus="0", more=128)
    guest.settles()
    assert guest.module_names() == {"grown-0-1"}
    assert guest.vm.status()["memory"]["guestCurrent"] == "384Mi"
    assert guest.vm.condition("RestartRequired")["status"] == "False"
    guest.change(sockets=1, modules=[])
    guest.wait(cpus="0", more=0)
    guest.settles()


def test_cpus_and_memory_of_one_patch_come_both(guest: HotGuest) -> None:
    guest.change(sockets=2, modules=[DIMM, virtio("64Mi")])
    guest.wait(cpus="0-1", more=128 + 64)
    guest.settles()
    status = guest.vm.status()
    assert status["currentCPUTopology"]["onlineVcpus"] == "0-1"
    assert {one["name"]: one.get("current") for one in status["memory"]["devices"]} == {
        "m0": None,
        "v0": "64Mi",
    }
    assert status["memory"]["guestCurrent"] == "448Mi"


def test_of_changes_during_changes_the_last_one_holds_and_each_was_begun_alone(
    node: Node, guest: HotGuest
) -> None:
    """As libvirtd logged it: whatever was done to the guest belongs to the one operation that stood in its metadata."""

    def asked() -> list[Change]:
        return node.libvirt.changes(guest.vm.uid())

    other = {**DIMM, "name": "m1"}
    for modules, balloon in (
        ([DIMM, virtio("128Mi")], None),
        ([DIMM, virtio("32Mi")], "192Mi"),
        ([DIMM, other, virtio("32Mi")], "224Mi"),
        ([DIMM, virtio("192Mi")], "224Mi"),
        ([DIMM, virtio("96Mi")], None),
    ):
        before = len(asked())
        guest.change(sockets=2, modules=modules, balloon=balloon)
        wait_for(asked, until=lambda now, so_far=before: len(now) > so_far, describe="it begins")
    guest.wait(cpus="0-1", more=128 + 96)
    guest.settles()
    assert [one for one in asked() if one.recorded != one.kind] == []
    assert {one.kind for one in asked()} == {"Plug", "Balloon", "Unplug"}


def test_a_change_that_is_taken_back_at_once_leaves_the_guest_as_it_was(guest: HotGuest) -> None:
    other = {**DIMM, "name": "m1"}
    guest.change(sockets=2, modules=[DIMM, other, virtio("96Mi")])
    guest.change(sockets=2, modules=[DIMM, virtio("96Mi")])
    guest.settles()
    guest.wait(cpus="0-1", more=128 + 96)
    assert guest.module_names() == {"m0", "v0"}


def test_what_was_asked_while_the_agent_was_down_is_given_back_to_its_successor(
    node: Node, guest: HotGuest
) -> None:
    node.agent.stop()
    guest.change(sockets=2, modules=[virtio("32Mi")])
    node.agent.start()
    guest.wait(cpus="0-1", more=32)
    guest.settles()
    assert guest.module_names() == {"v0"}


@pytest.mark.parametrize(
    ("point", "modules", "more"),
    [
        (KillPoint.PLUG_RECORDED, [DIMM, virtio("32Mi")], 128 + 32),
        (KillPoint.UNPLUG_RECORDED, [virtio("32Mi")], 32),
    ],
)
def test_an_agent_killed_at_a_recorded_change_is_continued(
    node: Node, guest: HotGuest, point: KillPoint, modules: list[dict[str, Any]], more: int
) -> None:
    node.agent.stop()
    node.agent.start(**{KILL_POINT_VARIABLE: str(point)})
    guest.change(sockets=2, modules=modules)
    node.agent.wait_dead()
    node.agent.start()
    guest.wait(cpus="0-1", more=more)
    guest.settles()


@pytest.mark.long
def test_after_a_restart_what_was_added_is_part_of_the_boot_configuration(
    guest: HotGuest,
) -> None:
    guest.change(sockets=2, modules=[DIMM, virtio("64Mi")], memory="384Mi")
    guest.wait(cpus="0-1", more=128 + 128 + 64)
    guest.settles()
    assert guest.module_names() == {"grown-0-1", "m0", "v0"}
    qemu = guest.vm.qemu()
    guest.restart()
    # Of boot memory the kernel keeps its page tables for itself: less than one part in 32.
    low = guest.base + (128 - 4 + 128 + 64) * 1024
    cpus, memory = wait_for(
        guest.seen,
        until=lambda now: now[0] == "0-1" and now[1] >= low,
        deadline_seconds=180,
        describe="the guest booted with all of it",
    )
    guest.settles()
    assert (cpus, memory <= low + 4 * 1024) == ("0-1", True)
    assert guest.vm.qemu() != qemu
    assert guest.module_names() == {"m0", "v0"}
    assert guest.vm.status()["memory"]["guestCurrent"] == "576Mi"


@pytest.mark.long
def test_a_balloon_that_somebody_sets_is_put_back_or_only_reported(
    node: Node, namespace: str
) -> None:
    guest = HotGuest(Vm(node, namespace, "balloon"))
    guest.boot()
    vm = guest.vm
    try:
        guest.settles()
        guest.balloon_to(192)
        wait_for(vm.events, until=lambda seen: "BalloonRestored" in seen, describe="it is told")
        wait_for(
            guest.balloon,
            until=lambda size: size == 256,
            deadline_seconds=60,
            describe="the guest has its memory again, by libvirt's word",
        )
        vm.patch({"driftPolicy": "Report"})
        guest.settles()
        guest.balloon_to(192)
        wait_for(vm.events, until=lambda seen: "BalloonDrifted" in seen, describe="it is told")
        wait_for(guest.balloon, until=lambda size: size == 192, describe="it stays")
        assert vm.status()["memory"]["balloon"]["target"] == "256Mi"
    finally:
        vm.remove()
