"""Guests whose cells the placement derived get more memory by vCPU share, and are the same once it is folded in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numavm_agent.reconcile.changes import Effect, FieldChange, applied_live, field_changes
from numavm_api.cpuset import CpuSet
from numavm_api.derived import as_it_is_split, grown_cells_of, settled, split_over
from numavm_api.effective import effective
from numavm_api.growth import as_boot_memory, as_it_runs
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import PlacedCell, Placement
from numavm_api.quantity import GIBIBYTE, MEBIBYTE, Bytes
from numavm_api.vm_status import MemoryStatus, ModuleStatus, NumaVMStatus
from support.agent_values import shared_claim

GUEST = "spec.domain.memory.guest"


def derived(memory: str, *, cores: int = 4, cells: int | None = None, **more: Any) -> NumaVMSpec:
    """Return a guest of derived cells, as many as the placement likes unless said otherwise."""
    numa = {"guestMappingPassthrough": {} if cells is None else {"cells": cells}}
    numa |= more.pop("numa", {})
    domain = {
        "cpu": {"cores": cores, "numa": numa},
        "memory": {"guest": memory, "maxGuest": "64Gi", **more},
    }
    return NumaVMSpec.model_validate({"domain": domain})


def claim_of(spec: NumaVMSpec, cells: int, plugged: int = 1 << 40) -> Placement:
    """Return a claim that split the guest over so many cells, with room for any module."""
    placed = [
        PlacedCell(
            id=cell.id,
            host_cells=CpuSet.of(cell.id),
            mode=cell.mode,
            memory=cell.memory,
            vcpus=cell.vcpus,
            plugged=Bytes(plugged),
        )
        for cell in split_over(effective(spec), cells).cells
    ]
    return shared_claim().model_copy(update={"cells": placed})


def modules(spec: NumaVMSpec) -> dict[str, int]:
    return {one.name: one.size // MEBIBYTE for one in spec.domain.devices.memory}


def changes(was: NumaVMSpec, will: NumaVMSpec, claim: Placement) -> list[FieldChange]:
    return field_changes(settled(was, claim), settled(will, claim))


def test_each_cell_gets_its_share_and_boot_memory_stays() -> None:
    claim = claim_of(derived("1Gi"), 2)
    after = applied_live(derived("1Gi"), derived("2Gi"), claim)

    assert modules(after) == {"grown-0-1": 512, "grown-1-1": 512}
    assert after.domain.memory.guest == GIBIBYTE
    assert applied_live(after, derived("2Gi"), claim) == after
    assert changes(after, derived("2Gi"), claim) == []
    assert as_boot_memory(after).domain.memory.guest == 2 * GIBIBYTE
    assert modules(applied_live(after, derived("1Gi"), claim)) == {}


def test_the_change_is_live_and_told_by_the_only_field_that_the_user_wrote() -> None:
    found = changes(derived("1Gi"), derived("2Gi"), claim_of(derived("1Gi"), 2))
    assert [(one.path, one.effect) for one in found] == [(GUEST, Effect.LIVE)]


def test_unequal_cells_get_unequal_shares_in_whole_blocks_of_linux() -> None:
    spec = derived("1536Mi", cores=3)
    after = applied_live(spec, derived("2304Mi", cores=3), claim_of(spec, 2))
    assert modules(after) == {"grown-0-1": 512, "grown-1-1": 256}


def test_less_than_a_block_for_each_cell_goes_where_a_block_is_whole() -> None:
    spec = derived("1Gi")
    after = applied_live(spec, derived("1152Mi"), claim_of(spec, 2))
    assert modules(after) == {"grown-1-1": 128}


@pytest.mark.parametrize("wanted", ["1025Mi", "512Mi"])
def test_what_no_modules_make_up_waits_for_a_restart_and_changes_nothing(wanted: str) -> None:
    spec, claim = derived("1Gi"), claim_of(derived("1Gi"), 2)
    assert applied_live(spec, derived(wanted), claim) == spec
    found = changes(spec, derived(wanted), claim)
    assert [(one.path, one.effect) for one in found] == [(GUEST, Effect.RESTART)]


def test_cells_follow_together_or_wait_together() -> None:
    spec, room = derived("1Gi", slots=1), claim_of(derived("1Gi", slots=1), 2)
    assert applied_live(spec, derived("2Gi", slots=1), room) == spec
    tight = claim_of(derived("1Gi"), 2, plugged=256 * MEBIBYTE)
    assert applied_live(derived("1Gi"), derived("2Gi"), tight) == derived("1Gi")


def test_another_number_of_cells_or_other_host_cells_wait_for_a_restart() -> None:
    claim = claim_of(derived("1Gi"), 2)
    split = changes(derived("1Gi"), derived("1Gi", cells=3), claim)
    assert [one.effect for one in split] == [Effect.RESTART]
    assert changes(derived("1Gi"), derived("1Gi", cells=2), claim) == []
    bound = derived("1Gi", numa={"hostBinding": {"hostCells": "0-1"}})
    assert [(one.path, one.effect) for one in changes(derived("1Gi"), bound, claim)] == [
        ("spec.domain.cpu.numa.hostBinding.hostCells", Effect.RESTART)
    ]


def test_a_running_guest_is_known_by_its_status() -> None:
    claim = claim_of(derived("1Gi"), 2)
    running = applied_live(settled(derived("1Gi"), claim), derived("2Gi"), claim)
    found = [
        ModuleStatus(name=one.name, model="dimm", cell=one.cell, size=one.size)
        for one in running.domain.devices.memory
    ]
    sizes = dict.fromkeys(("guest_at_boot", "guest_requested", "guest_current"), Bytes(1))
    memory = MemoryStatus(**sizes, devices=found)
    stored = settled(derived("2Gi"), claim)
    assert as_it_runs(stored, NumaVMStatus(memory=memory)) == running


@given(
    cores=st.integers(1, 16),
    cells=st.integers(1, 8),
    boot=st.integers(16, 64).map(lambda count: count * 64 * MEBIBYTE),
    units=st.integers(0, 200),
    unit=st.sampled_from([2 * MEBIBYTE, 128 * MEBIBYTE]),
)
def test_shares_add_up_to_what_was_asked_for_in_whole_modules(
    cores: int, cells: int, boot: int, units: int, unit: int
) -> None:
    cells = min(cells, cores)
    vm = effective(derived(str(boot), cores=cores))
    total = Bytes(boot + units * unit)
    split = split_over(vm, cells).cells
    grown = grown_cells_of(split, total)
    assert grown is not None
    assert sum(grown.values()) == total
    for cell in split:
        more = grown[cell.id] - cell.memory
        assert more >= 0
        assert more % unit == 0
        fair = units * unit * len(cell.vcpus) / cores
        assert abs(more - fair) < 128 * MEBIBYTE


def test_operator_and_agent_come_to_the_same_shares() -> None:
    for cores, cells in ((4, 2), (3, 2), (7, 3)):
        claim = claim_of(derived("2Gi", cores=cores), cells)
        wanted = derived("5Gi", cores=cores)
        split = as_it_is_split(effective(wanted), claim)
        assert split is not None
        after = applied_live(derived("2Gi", cores=cores), wanted, claim)
        plugged = {one.cell: one.size for one in after.domain.devices.memory}
        boot = {cell.id: cell.memory for cell in claim.cells}
        assert {cell.id: cell.memory - boot[cell.id] for cell in split.cells} == plugged


def test_declared_cells_are_split_as_they_are() -> None:
    spec = NumaVMSpec.model_validate({"domain": {"memory": {"guest": "1Gi"}}})
    vm = effective(spec)
    claim = claim_of(derived("1Gi"), 2)
    assert as_it_is_split(vm, claim) is vm
    assert settled(spec, claim) is spec
    assert as_it_is_split(effective(derived("1Gi", cells=3)), claim) is None
