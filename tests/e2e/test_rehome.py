"""A running guest that writes to its memory moves between host cells, and never notices but by a pause.

What the kernel says is read with no code of the agent; whether data stayed whole, the guest itself says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from numavm_api.cpuset import CpuSet
from numavm_api.killpoints import KILL_POINT_VARIABLE, OPERATION_POINTS, KillPoint
from numavm_api.quantity import parse_bytes
from numavm_lab.demo.proof import guest_console
from numavm_lab.guest import Writer, parse_pauses, parse_writers
from numavm_lab.hosts import LabHost
from numavm_lab.kernel_view import KernelView, kernel_view
from numavm_lab.stack import AGENT_SERVICE, Stack
from support.guests import wait_booted
from support.vms import Manifest, Vms, condition, is_ready, told, vm_manifest
from support.wait import wait_for

pytestmark = pytest.mark.lab

HERE, SWAPPED = {0: 0, 1: 1}, {0: 1, 1: 0}
TOGETHER, ACROSS = {0: 0, 1: 0}, {0: 1, 1: 1}
"""Both guest cells on one host cell, and on the other: the domain's groups are widened and narrowed on the way."""
LONGEST_PAUSE_MILLISECONDS = 20_000
"""On emulated hosts that share two CPUs: a guest that stood still for the whole move would need longer."""
ROUNDS = 3
"""Each writer finishes so many rounds after a move before it is believed."""
BOOT_MEBIBYTES = (192, 160)
"""Of each guest cell."""
FRESH_ROUNDS = 48
"""So many rounds of 1 MiB the witness's writers go on to memory that was not touched before."""
FRESH_BYTES = 4 << 20
"""The host backs memory 2 MiB at a time, so that not every round needs more of it."""
BACKINGS: dict[str, Mapping[str, Any]] = {
    "anonymous": {},
    "huge": {"hugepages": {"pageSize": "2Mi"}},
    "memfd": {"backing": {"source": "Memfd"}},
}


def manifest(
    name: str, where: Mapping[int, int], memory: Mapping[str, Any], writes: str = "8M"
) -> Manifest:
    """Return a guest of two bound cells of different sizes that writes so much to both in a round."""
    made = vm_manifest(name, [(1, f"{size}Mi") for size in BOOT_MEBIBYTES], boots=True)
    domain = made["spec"]["domain"]
    domain["memory"] = dict(memory)
    domain["firmware"]["kernelBoot"]["args"] += f" numavm.write=0:{writes},1:{writes}"
    made["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "host-a"}
    domain["cpu"]["numa"]["cells"] = cells_of(made, where)
    return made


def cells_of(vm: Manifest, where: Mapping[int, int]) -> list[dict[str, Any]]:
    """Return the cells of a VM, bound to one host cell each."""
    cells = vm["spec"]["domain"]["cpu"]["numa"]["cells"]
    return [
        {**cell, "hostBinding": {"hostCells": str(where[cell["id"]]), "mode": "Strict"}}
        for cell in cells
    ]


def move(vms: Vms, name: str, where: Mapping[int, int]) -> Manifest:
    """Bind the cells elsewhere while the VM runs."""
    cells = cells_of(vms.get(name), where)
    return vms.patch(name, domain={"cpu": {"numa": {"cells": cells}}})


def rounds_later(host: LabHost, vm: Manifest, before: Mapping[int, Writer]) -> dict[int, Writer]:
    """Wait until both writers of the guest have done some more rounds, and return their words."""

    def later() -> dict[int, Writer]:
        now = parse_writers(guest_console(host, vm["metadata"]["uid"]))
        return {
            node: writer
            for node, writer in now.items()
            if writer.rounds >= (before[node].rounds if node in before else 0) + ROUNDS
        }

    return wait_for(
        later,
        until=lambda found: set(found) == {0, 1},
        deadline_seconds=400,
        poll_seconds=0.5,
        describe="both writers of the guest go on",
    )


def assert_the_kernel_confirms(host: LabHost, vm: Manifest, where: Mapping[int, int]) -> None:
    """Hold threads and pages of the process against where they should be."""
    view = kernel_view(host, vm["metadata"]["uid"])
    assert view is not None
    placed = {cell["id"]: cell for cell in vm["status"]["placement"]["cells"]}
    assert {cell: placed[cell]["hostCells"] for cell in where} == {
        cell: str(host_cell) for cell, host_cell in where.items()
    }
    assert view.vcpu_affinity() == {
        vcpu: CpuSet.parse(pcpu)
        for cell in placed.values()
        for vcpu, pcpu in zip(CpuSet.parse(cell["vcpus"]), cell["pcpus"], strict=True)
    }
    expected = Counter[int]()
    for cell, host_cell in where.items():
        expected[host_cell] += parse_bytes(placed[cell]["memory"])
    assert resident_of_guest(view) == expected


def mebibytes_moved(vms: Vms, name: str) -> int:
    """Return what the event of a VM's last move says."""
    notes = wait_for(
        lambda: [note for reason, note in vms.events(name) if reason == "ReHomed"],
        deadline_seconds=60,
        describe="the event of the move",
    )
    note = notes[-1]
    found = re.search(r"(\d+) MiB of pages", note)
    assert found is not None, note
    return int(found[1])


def resident(host: LabHost, vm: Manifest) -> dict[int, int]:
    """Return the guest's memory per host cell, as the kernel has it now."""
    view = kernel_view(host, vm["metadata"]["uid"])
    assert view is not None
    return resident_of_guest(view)


def resident_of_guest(view: KernelView) -> dict[int, int]:
    """Return guest memory per host cell; policies may have been rebound, so all with a policy counts."""
    return {cell: size for cell, size in view.resident_bytes().items() if size}


@pytest.fixture(
    params=[
        "anonymous",
        pytest.param("huge", marks=pytest.mark.long),
        pytest.param("memfd", marks=pytest.mark.long),
    ],
    ids=str,
)
def writing(
    request: pytest.FixtureRequest, vms: Vms, host_a: LabHost
) -> Iterator[tuple[Manifest, dict[int, Writer]]]:
    """A booted guest that writes, with what its writers say."""
    vms.create(manifest("mover", HERE, BACKINGS[request.param]))
    wait_booted(vms, host_a, "mover")
    vm = vms.wait_ready("mover", 400)
    yield vm, rounds_later(host_a, vm, {})
    vms.delete_and_wait("mover")


@pytest.fixture
def balancing(host_a: LabHost) -> Iterator[None]:
    """A kernel that balances NUMA by itself: it must leave what was placed alone."""
    setting = "kernel.numa_balancing"
    before = host_a.exec(["sysctl", "-n", setting]).stdout.strip()
    host_a.exec(["sysctl", "-w", f"{setting}=1"])
    yield
    host_a.exec(["sysctl", "-w", f"{setting}={before}"])


@pytest.mark.usefixtures("balancing")
def test_two_cells_change_places_and_come_back_with_their_data(
    vms: Vms,
    host_a: LabHost,
    writing: tuple[Manifest, dict[int, Writer]],
    record_property: Callable[[str, object], None],
) -> None:
    vm, writers = writing
    qemu = kernel_view(host_a, vm["metadata"]["uid"])
    for where in (SWAPPED, HERE, SWAPPED):
        move(vms, "mover", where)
        vm = vms.wait_ready("mover", 400)
        assert_the_kernel_confirms(host_a, vm, where)
        assert condition(vm, "RestartRequired")["status"] == "False"
        assert "previous" not in vm["status"]["placement"]
        writers = rounds_later(host_a, vm, writers)
        assert {node: writer.bad for node, writer in writers.items()} == {0: 0, 1: 0}
        assert_the_kernel_confirms(host_a, vms.get("mover"), where)
    after = kernel_view(host_a, vm["metadata"]["uid"])
    assert (qemu and qemu.pid) == (after and after.pid)
    pauses = parse_pauses(guest_console(host_a, vm["metadata"]["uid"]))
    record_property("longest_pause_milliseconds", pauses[-1].longest_milliseconds)
    assert pauses[-1].longest_milliseconds < LONGEST_PAUSE_MILLISECONDS


@pytest.fixture
def memory() -> Mapping[str, Any]:
    """What is said of a steady guest's memory."""
    return BACKINGS["anonymous"]


@pytest.fixture
def steady(
    vms: Vms, host_a: LabHost, request: pytest.FixtureRequest, memory: Mapping[str, Any]
) -> Iterator[tuple[Manifest, dict[int, Writer]]]:
    """A booted guest that writes to its memory, with what its writers say."""
    made = manifest("mover", request.param, memory, "1M" if "backing" in memory else "8M")
    if "backing" in memory:
        # What takes its memory on demand goes on to fresh memory for 48 rounds of 1 MiB: longer than a move takes.
        made["spec"]["domain"]["firmware"]["kernelBoot"]["args"] += " numavm.pace=6000"
    made["spec"]["placement"] = {"cellSharing": "Allow"}
    vms.create(made)
    wait_booted(vms, host_a, "mover")
    vm = vms.wait_ready("mover", 400)
    yield vm, rounds_later(host_a, vm, {})
    vms.delete_and_wait("mover")


@pytest.fixture
def agent_with(stack: Stack, host_a: LabHost) -> Iterator[Any]:
    """Start the agent of host-a anew with an environment; at the end as it was."""

    def start(**environment: str) -> None:
        host_a.stop_service(AGENT_SERVICE)
        stack.start_agent(host_a, environment=environment)

    yield start
    start()


@pytest.mark.long
@pytest.mark.parametrize("steady", [TOGETHER], indirect=True, ids=["together"])
@pytest.mark.parametrize(
    "memory",
    [
        {"backing": {"allocation": "OnDemand"}},
        {"backing": {"allocation": "OnDemand", "source": "Memfd"}},
    ],
    ids=["anonymous", "memfd"],
)
def test_what_the_guest_touches_first_after_a_move_is_where_the_guest_is_now(
    vms: Vms,
    host_a: LabHost,
    memory: Mapping[str, Any],
    steady: tuple[Manifest, dict[int, Writer]],
) -> None:
    """Each writer's first rounds go to fresh memory: so do some before the move, and some after it."""
    vm, _ = steady
    move(vms, "mover", ACROSS)
    vm = vms.wait_ready("mover", 400)
    writers = parse_writers(guest_console(host_a, vm["metadata"]["uid"]))
    assert max(writer.rounds for writer in writers.values()) < FRESH_ROUNDS - 2 * ROUNDS
    before = sum(resident(host_a, vm).values())
    assert mebibytes_moved(vms, "mover") < sum(BOOT_MEBIBYTES), "it was not all there to be moved"

    grown = wait_for(
        lambda: resident(host_a, vm),
        until=lambda seen: sum(seen.values()) >= before + FRESH_BYTES,
        deadline_seconds=400,
        poll_seconds=1,
        describe=f"the guest touches more than the {before} bytes before",
    )
    if memory["backing"].get("source") != "Memfd":
        assert set(grown) == {1}
    # Pages of a memfd may come from any host cell; the agent moves those that it sees at one of its looks.
    wait_for(
        lambda: resident(host_a, vm),
        until=lambda seen: set(seen) == {1},
        deadline_seconds=400,
        poll_seconds=1,
        describe="all memory is on host cell 1",
    )
    writers = rounds_later(host_a, vm, writers)
    assert {node: writer.bad for node, writer in writers.items()} == {0: 0, 1: 0}


@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("steady", [TOGETHER], indirect=True, ids=["together"])
def test_killed_at_each_step_of_one_move_it_arrives(
    vms: Vms,
    host_a: LabHost,
    steady: tuple[Manifest, dict[int, Writer]],
    agent_with: Any,
) -> None:
    """Each agent that comes after a killed one is killed at the next step."""
    vm, writers = steady
    died: list[KillPoint] = []
    for number, point in enumerate(OPERATION_POINTS):
        agent_with(**{KILL_POINT_VARIABLE: str(point)})
        if number == 0:
            move(vms, "mover", ACROSS)
        wait_for(
            lambda: host_a.is_service_running(AGENT_SERVICE),
            until=lambda running: not running,
            deadline_seconds=300,
            poll_seconds=0.2,
            describe=f"the agent dies at {point}; {told(vms.get('mover'))}",
        )
        died.append(point)
    agent_with()

    vm = vms.wait_ready("mover", 400)
    assert died == list(OPERATION_POINTS)
    assert_the_kernel_confirms(host_a, vm, ACROSS)
    writers = rounds_later(host_a, vm, writers)
    assert {node: writer.bad for node, writer in writers.items()} == {0: 0, 1: 0}
    claims = [one for one in vms.host("host-a")["status"]["claims"] if one["name"] == "mover"]
    assert [one["placement"] for one in claims] == [vm["status"]["placement"]]


@pytest.mark.long
@pytest.mark.parametrize("steady", [HERE], indirect=True, ids=["apart"])
def test_a_move_that_is_taken_back_half_way_leaves_the_vm_as_it_was(
    vms: Vms,
    host_a: LabHost,
    steady: tuple[Manifest, dict[int, Writer]],
    agent_with: Any,
) -> None:
    vm, writers = steady
    agent_with(NUMAVM_AGENT_REHOME_MEBIBYTES_PER_SECOND="16")
    vms.wait_ready("mover")
    move(vms, "mover", SWAPPED)
    vms.wait("mover", is_moving, 200, "pages are on the way")
    move(vms, "mover", HERE)
    vm = vms.wait_ready("mover", 400)

    assert_the_kernel_confirms(host_a, vm, HERE)
    assert [reason for reason, _ in vms.events("mover")].count("ReHomeTurned") == 1
    writers = rounds_later(host_a, vm, writers)
    assert {node: writer.bad for node, writer in writers.items()} == {0: 0, 1: 0}


def is_moving(vm: Manifest) -> bool:
    """Tell whether some pages have moved and others have not."""
    percent = vm.get("status", {}).get("operation", {}).get("percent", 0)
    return not is_ready(vm) and 0 < percent < 100
