"""Raised boot memory of a running guest: what is plugged in for it, and that it is the same once folded in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numavm_agent.reconcile.changes import Effect, applied_live, field_changes, pending_changes
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveVM, effective
from numavm_api.growth import as_boot_memory, as_it_runs, as_modules
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import PlacedCell, Placement
from numavm_api.quantity import MEBIBYTE, Bytes
from numavm_api.reading import read_spec
from numavm_api.vm_status import MemoryStatus, ModuleStatus, NumaVMStatus
from support.agent_values import shared_claim

METHODS = ("DIMM", "VirtioMem")


def guest(*cells: int, method: str | None = None, slots: int = 16, **memory: Any) -> NumaVMSpec:
    """Return a guest with cells of so many MiB."""
    hotplug = {"hotplug": {"method": method}} if method else {}
    declared = [
        {"id": number, "cpus": str(number), "memory": f"{size}Mi"}
        for number, size in enumerate(cells)
    ]
    numa = {"cpu": {"cores": len(cells), "numa": {"cells": declared}}}
    room = {"maxGuest": "64Gi", "slots": slots}
    return NumaVMSpec.model_validate({"domain": {**numa, "memory": {**room, **hotplug, **memory}}})


def plain(size: str) -> NumaVMSpec:
    return NumaVMSpec.model_validate({"domain": {"memory": {"guest": size, "maxGuest": "64Gi"}}})


def roomy(vm: EffectiveVM) -> Placement:
    """Return a claim with room for any module."""
    made = shared_claim()
    cells = [
        PlacedCell(
            id=cell.id,
            host_cells=CpuSet.of(0),
            mode=cell.mode,
            memory=cell.memory,
            vcpus=cell.vcpus,
            plugged=Bytes(1 << 40),
        )
        for cell in vm.cells
    ]
    return made.model_copy(update={"cells": cells})


def plugged(spec: NumaVMSpec) -> dict[str, int]:
    return {
        one.name: (one.virtio_mem.requested if one.virtio_mem else one.size) // MEBIBYTE
        for one in spec.domain.devices.memory
    }


def lived(first: NumaVMSpec, *then: NumaVMSpec) -> NumaVMSpec:
    """Return what a domain built from the first spec remembers after the others."""
    claim = roomy(effective(first))
    for wanted in then:
        first = applied_live(first, wanted, claim)
    return first


def test_the_difference_of_a_cell_is_a_module_of_that_cell_and_boot_memory_stays() -> None:
    after = lived(guest(512, 512), guest(512, 1024))
    assert [cell.memory // MEBIBYTE for cell in effective(after).cells] == [512, 512]
    assert [cell.plugged // MEBIBYTE for cell in effective(after).cells] == [0, 512]
    assert plugged(after) == {"grown-1-1": 512}
    assert pending_changes(after, guest(512, 1024)) == []


def test_a_guest_without_cells_grows_by_its_memory_guest() -> None:
    after = lived(plain("1Gi"), plain("3Gi"))
    assert (after.domain.memory.guest, plugged(after)) == (1024 * MEBIBYTE, {"grown-0-1": 2048})
    found = field_changes(plain("1Gi"), plain("3Gi"))
    assert [(one.path, one.old, one.new, one.effect) for one in found] == [
        ("spec.domain.memory.guest", "1Gi", "3Gi", Effect.LIVE)
    ]


def test_what_is_raised_again_gets_another_module_and_lowered_gives_back_whole_ones() -> None:
    twice = lived(guest(512), guest(1024), guest(1280))
    assert plugged(twice) == {"grown-0-1": 512, "grown-0-2": 256}
    claim = roomy(effective(guest(512)))
    back = applied_live(twice, guest(1024), claim)
    assert plugged(back) == {"grown-0-1": 512}
    assert plugged(applied_live(twice, guest(512), claim)) == {}
    half = field_changes(twice, guest(1100))
    assert {one.effect for one in half} == {Effect.RESTART}


def test_virtio_mem_gives_back_any_part_and_is_used_again_first() -> None:
    sizes = (512, 1024, 768, 900, 1280, 512)
    specs = [guest(size, method="VirtioMem") for size in sizes]
    states = [plugged(lived(*specs[: upto + 1])) for upto in range(len(specs))]
    assert states == [
        {},
        {"grown-0-1": 512},
        {"grown-0-1": 256},
        {"grown-0-1": 388},
        {"grown-0-1": 512, "grown-0-2": 256},
        {"grown-0-1": 0, "grown-0-2": 0},
    ]


@pytest.mark.parametrize(
    ("running", "wanted"),
    [
        (guest(512), guest(256)),
        (guest(512), guest(513)),
        (guest(512, maxGuest="1Gi"), guest(1024, maxGuest="8Gi")),
        (guest(512, slots=16), guest(1024, slots=8)),
        (guest(512, 512, slots=1), guest(1024, 1024, slots=1)),
    ],
)
def test_what_no_module_can_make_up_waits_for_a_restart(
    running: NumaVMSpec, wanted: NumaVMSpec
) -> None:
    assert as_modules(running, wanted) == wanted
    waits = {one.path for one in field_changes(running, wanted) if one.effect is Effect.RESTART}
    assert any(path.endswith("memory") for path in waits)


def test_a_cell_that_shrinks_waits_and_one_that_grows_does_not() -> None:
    found = {one.path: one.effect for one in field_changes(guest(512, 512), guest(256, 1024))}
    cells = "spec.domain.cpu.numa.cells"
    assert found[f"{cells}[0].memory"] is Effect.RESTART
    assert found[f"{cells}[1].memory"] is Effect.LIVE


@given(st.lists(st.integers(1, 40).map(lambda n: 256 + 2 * n), min_size=1, max_size=6))
def test_whatever_was_applied_is_what_the_user_said_and_is_applied_once(sizes: list[int]) -> None:
    for method in METHODS:
        now = guest(256, method=method)
        claim = roomy(effective(now))
        for size in sizes:
            wanted = guest(size, method=method)
            now = applied_live(now, wanted, claim)
            assert applied_live(now, wanted, claim) == now
            if not pending_changes(now, wanted):
                assert effective(as_boot_memory(now)).memory == size * MEBIBYTE


def test_a_running_guest_is_known_by_its_status() -> None:
    running = lived(guest(512, 512), guest(512, 1024))
    modules = [
        ModuleStatus(name=one.name, model="dimm", cell=one.cell, size=one.size)
        for one in running.domain.devices.memory
    ]
    memory = MemoryStatus(
        guest_at_boot=Bytes(1), guest_requested=Bytes(1), guest_current=Bytes(1), devices=modules
    )
    stored = guest(512, 1024)
    assert as_it_runs(stored, NumaVMStatus(memory=memory)) == running
    assert as_it_runs(stored, NumaVMStatus()) == stored


def test_names_of_such_modules_are_nobody_elses() -> None:
    module = {"name": "grown-0-1", "cell": 0, "size": "1Gi", "dimm": {}}
    domain = {
        "memory": {"guest": "1Gi", "maxGuest": "4Gi"},
        "devices": {"memory": [module]},
    }
    found = read_spec({"domain": domain})
    assert isinstance(found, list)
    assert [one.field for one in found] == ["spec.domain.devices.memory[0].name"]
