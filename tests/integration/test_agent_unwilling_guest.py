"""A guest that will not give a DIMM back, or has no driver for it: it runs on, and its conditions say the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from numavm_lab.controlplane.plane import ControlPlane
from support.agent_fixtures import running_node
from support.agents import Node, Vm
from support.cluster import Callers
from support.hot_guest import HotGuest
from support.wait import wait_for

pytestmark = pytest.mark.long

MORE = 384
DIMM = {"name": "m0", "cell": 0, "size": f"{MORE}Mi", "dimm": {}}


@pytest.fixture(scope="module")
def node(
    control_plane: ControlPlane, callers: Callers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    with running_node("host-no", control_plane, callers, tmp_path_factory.mktemp("no")) as node:
        yield node


@pytest.fixture
def guest(node: Node, namespace: str, request: pytest.FixtureRequest) -> Iterator[HotGuest]:
    """A guest whose kernel was started with what the test says, and which tells of its memory."""
    made = HotGuest(Vm(node, namespace, "unwilling"))
    made.boot(kernel_arguments=request.param, balloon={"statsPeriodSeconds": 1})
    yield made
    made.vm.remove()


def hot_memory(guest: HotGuest, status: str, reason: str) -> dict[str, Any]:
    """Wait until HotMemoryChange says so of this very spec."""
    generation = guest.vm.get()["metadata"]["generation"]
    return wait_for(
        lambda: guest.vm.condition("HotMemoryChange"),
        until=lambda now: (
            (now["status"], now["reason"], now.get("observedGeneration"))
            == (status, reason, generation)
        ),
        deadline_seconds=120,
        describe=f"HotMemoryChange is {status}, {reason}; agent:\n{guest.vm.node.agent.log(15)}\n",
    )


# Memory that comes online for the kernel's own use cannot be moved out of the way once the kernel uses it.
@pytest.mark.parametrize("guest", ["numavm.hotplug=online_kernel"], indirect=True)
def test_a_dimm_that_the_guest_uses_stays_and_is_asked_for_once_per_spec(guest: HotGuest) -> None:
    guest.change(sockets=1, modules=[DIMM])
    guest.wait(cpus="0", more=MORE)
    guest.settles()
    qemu = guest.vm.qemu()

    guest.change(sockets=1, modules=[])
    told = hot_memory(guest, "False", "GuestRefused")
    assert "m0" in told["message"]
    assert "asked again when the spec changes" in told["message"]
    asked = guest.asked_for_generation()
    assert asked == guest.vm.get()["metadata"]["generation"]
    assert guest.module_names() == {"m0"}
    guest.wait(cpus="0", more=MORE)
    assert guest.vm.condition("Running")["status"] == "True"
    assert guest.vm.status()["memory"]["guestCurrent"] == f"{256 + MORE}Mi"

    guest.vm.patch({"terminationGracePeriodSeconds": 7})
    hot_memory(guest, "False", "GuestRefused")
    assert guest.asked_for_generation() == guest.vm.get()["metadata"]["generation"] > asked

    guest.change(sockets=1, modules=[DIMM])
    guest.settles()
    assert guest.vm.qemu() == qemu


@pytest.mark.parametrize("guest", ["acpi_no_memhotplug"], indirect=True)
def test_modules_that_the_guest_has_no_driver_for_are_told_of_and_can_be_taken_back(
    guest: HotGuest,
) -> None:
    qemu = guest.vm.qemu()
    guest.change(sockets=1, modules=[DIMM])
    told = hot_memory(guest, "Unknown", "AwaitingGuest")
    assert "m0 are plugged in and not used" in told["message"]
    assert guest.module_names() == {"m0"}
    assert guest.seen() == ("0", guest.base)

    # The kernel's ACPI core gives back what no driver has taken.
    guest.change(sockets=1, modules=[])
    guest.settles()
    assert guest.module_names() == set()
    assert guest.vm.status()["memory"]["guestCurrent"] == "256Mi"
    assert guest.vm.qemu() == qemu
