"""Amended claims: what moves is decided anew, what stays keeps its CPUs, and the VM's own room is free to it."""

from __future__ import annotations

from typing import Any

import pytest

from numavm_api.cpuset import CpuSet
from numavm_api.placement import Placement
from numavm_api.quantity import GIBIBYTE, Bytes
from numavm_operator.placement import (
    Cause,
    Fleet,
    Placed,
    Policy,
    Refusal,
    amend,
    moved_cells,
)
from numavm_operator.placement.moves import InUse
from support.placement_examples import fleet, host, placed, request, vm

TWO = ({"cpus": "0-1", "memory": "1Gi"}, {"cpus": "2-3", "memory": "1Gi"})
BOUND = tuple(
    {**cell, "hostBinding": {"hostCells": str(number)}} for number, cell in enumerate(TWO)
)


def running(where: Fleet, spec: dict[str, Any], uid: str = "vm") -> tuple[Fleet, Placement]:
    """Return the fleet on which a VM runs, and its claim."""
    found = placed(request(spec, uid), where)
    return where.with_claim(found.node_name, uid, found.placement), found.placement


def amended(
    where: Fleet,
    spec: dict[str, Any],
    claim: Placement,
    used: InUse | None = None,
    **moves: str,
) -> Placed | Refusal:
    """Move guest cells (`cell0="1"`) of the VM named vm."""
    wanted = {int(cell.removeprefix("cell")): CpuSet.parse(text) for cell, text in moves.items()}
    wish = request(spec, "vm", placement_id="next", epoch=4)
    outcome = amend(wish, where, "host-a", claim, wanted, Policy(), used)
    assert isinstance(outcome, Placed | Refusal), outcome
    return outcome


def where_of(claim: Placement) -> dict[int, str]:
    return {cell.id: str(cell.host_cells) for cell in claim.cells}


def cpus_of(claim: Placement, cell: int) -> CpuSet:
    return CpuSet.union_of(claim.cells[cell].pcpus)


def test_a_cell_that_moves_gets_cpus_there_and_one_that_stays_keeps_its_own() -> None:
    where, claim = running(fleet(host(cells=3)), vm(*BOUND, cores=4))
    after = amended(where, vm(*BOUND, cores=4), claim, cell0="2")

    assert isinstance(after, Placed)
    new = after.placement
    assert where_of(new) == {0: "2", 1: "1"}
    assert new.cells[1] == claim.cells[1]
    assert cpus_of(new, 0) <= CpuSet.parse("9-11")
    assert new.dedicated_cpus == cpus_of(new, 0) | cpus_of(new, 1)
    assert (new.id, new.epoch, new.summary) == ("next", 4, "0->2,1->1")
    assert new.earlier == claim
    assert new.request_hash == claim.request_hash


def test_emulator_and_overhead_stay_where_their_host_cell_stays() -> None:
    spec = vm(*BOUND, cores=4, isolateEmulatorThread=True)
    where, claim = running(fleet(host(cells=3, cores=5)), spec)
    booked, other = claim.overhead_cell, 1 - claim.overhead_cell

    stays = amended(where, spec, claim, **{f"cell{other}": "2"})
    assert isinstance(stays, Placed)
    assert stays.placement.emulator_cpus == claim.emulator_cpus
    assert stays.placement.overhead_cell == booked

    goes = amended(where, spec, claim, **{f"cell{booked}": "2"})
    assert isinstance(goes, Placed)
    assert goes.placement.overhead_cell == 2
    assert goes.placement.emulator_cpus <= CpuSet.parse("11-14")
    assert len(goes.placement.dedicated_cpus) == 5


def test_two_cells_change_places_on_a_full_host() -> None:
    where, claim = running(fleet(host(cells=2, cores=3, memory="1200Mi")), vm(*BOUND, cores=4))
    after = amended(where, vm(*BOUND, cores=4), claim, cell0="1", cell1="0")

    assert isinstance(after, Placed)
    assert where_of(after.placement) == {0: "1", 1: "0"}
    assert after.placement.dedicated_cpus == claim.dedicated_cpus
    assert cpus_of(after.placement, 0) == cpus_of(claim, 1)


@pytest.mark.parametrize(
    ("other", "cause"),
    [
        (vm({"cpus": "0-2", "memory": "1Gi"}, cores=3), Cause.DEDICATED_CPUS),
        (vm({"cpus": "0", "memory": "3584Mi"}, cores=1), Cause.MEMORY),
    ],
)
def test_no_room_on_the_target_is_said_with_numbers(other: dict[str, Any], cause: Cause) -> None:
    where, claim = running(fleet(host(cells=3)), vm(*BOUND, cores=4))
    other["domain"]["cpu"]["numa"]["cells"][0]["hostBinding"] = {"hostCells": "2"}
    where, _ = running(where, other, "neighbour")
    refusal = amended(where, vm(*BOUND, cores=4), claim, cell0="2")

    assert isinstance(refusal, Refusal)
    (count,) = refusal.counts
    assert (count.cause, count.nearest.host_cell) == (cause, 2)
    assert count.nearest.missing > 0


def test_huge_pages_of_the_target_must_suffice() -> None:
    cells = [{**cell, "hugepages": {"pageSize": "2Mi"}} for cell in BOUND]
    where, claim = running(fleet(host(cells=2, cores=6, huge=512)), vm(*cells, cores=4))
    refusal = amended(where, vm(*cells, cores=4), claim, cell0="1")

    assert isinstance(refusal, Refusal)
    assert [count.cause for count in refusal.counts] == [Cause.HUGE_PAGES]
    swap = amended(where, vm(*cells, cores=4), claim, cell0="1", cell1="0")
    assert isinstance(swap, Placed)


def test_what_the_cells_need_is_what_runs_not_what_the_spec_says_by_now() -> None:
    where, claim = running(fleet(host(cells=3)), vm(*BOUND, cores=4))
    grown = [{**cell, "memory": "3Gi"} for cell in BOUND]
    after = amended(where, vm(*grown, cores=4), claim, cell0="2")

    assert isinstance(after, Placed)
    assert [cell.memory for cell in after.placement.cells] == [2**30, 2**30]


def test_isolated_cores_move_whole() -> None:
    spec = vm(*BOUND, cores=4, threadPolicy="Isolate")
    where, claim = running(fleet(host(cells=3, threads=2)), spec)
    after = amended(where, spec, claim, cell0="2")

    assert isinstance(after, Placed)
    assert len(after.placement.dedicated_cpus) == len(claim.dedicated_cpus) == 8
    assert after.placement.dedicated_cpus & CpuSet.parse("0-7") == CpuSet()


def test_only_cells_that_the_spec_binds_elsewhere_move() -> None:
    _, claim = running(fleet(host(cells=3)), vm(*BOUND, cores=4))
    free, bound = request(vm(*TWO, cores=4)).vm, request(vm(*BOUND, cores=4)).vm
    there = [{**BOUND[0], "hostBinding": {"hostCells": "2"}}, TWO[1]]

    assert moved_cells(claim, free) == moved_cells(claim, bound) == {}
    assert moved_cells(claim, request(vm(*there, cores=4)).vm) == {0: CpuSet.of(2)}


def test_a_vcpu_that_is_allowed_other_cpus_gets_one_on_the_host_cell_where_it_is() -> None:
    where, claim = running(fleet(host(cells=2, cores=6)), vm(*BOUND, cores=4))
    (cpu,) = claim.cells[0].pcpus[0]
    others = {"vcpus": [{"vcpu": 0, "cpuset": "4-5"}]}
    spec = vm(*BOUND, cores=4, pinning=others)
    moves = moved_cells(claim, request(spec).vm)
    assert moves == {0: CpuSet.of(0)}
    assert moved_cells(claim, request(vm(*BOUND, cores=4, pinning={"cpuset": "0-11"})).vm) == {}

    after = amended(where, spec, claim, cell0="0")
    assert isinstance(after, Placed)
    assert cpu not in (4, 5)
    assert after.placement.cells[0].pcpus[0] <= CpuSet.of(4, 5)
    assert after.placement.cells[1] == claim.cells[1]


def test_vcpus_that_are_added_get_cpus_on_the_host_cell_and_the_others_keep_theirs() -> None:
    cells = [
        {"cpus": "0-1,4-5", "memory": "1Gi", "hostBinding": {"hostCells": "0"}},
        {"cpus": "2-3,6-7", "memory": "1Gi", "hostBinding": {"hostCells": "1"}},
    ]
    small, large = (vm(*cells, cores=8, onlineVcpus=on) for on in ("0-3", "0-4"))
    where, claim = running(fleet(host(cells=2, cores=6)), small)
    moves = moved_cells(claim, request(large).vm)
    assert moves == {0: CpuSet.of(0)}

    after = amended(where, large, claim, cell0="0")
    assert isinstance(after, Placed)
    first, second = after.placement.cells
    assert second == claim.cells[1]
    assert (str(claim.cells[0].held_vcpus), str(first.held_vcpus)) == ("0-1", "0-1,4")
    before = dict(zip(claim.cells[0].vcpus, claim.cells[0].pcpus, strict=True))
    now = dict(zip(first.vcpus, first.pcpus, strict=True))
    assert [now[0], now[1], now[5]] == [before[0], before[1], CpuSet()]
    assert now[4] <= CpuSet.parse("1-5") - claim.dedicated_cpus
    assert after.placement.dedicated_cpus == claim.dedicated_cpus | now[4]


def test_vcpus_without_room_are_refused_and_a_vm_of_another_maximum_gets_none() -> None:
    cells = [{"cpus": "0-5", "memory": "1Gi", "hostBinding": {"hostCells": "0"}}]
    small, large = (vm(*cells, cores=6, onlineVcpus=on) for on in ("0-1", "0-4"))
    where, claim = running(fleet(host(cells=2)), small)
    refusal = amended(where, large, claim, cell0="0")
    assert isinstance(refusal, Refusal)
    assert [count.cause for count in refusal.counts] == [Cause.DEDICATED_CPUS]

    other = [{**cells[0], "cpus": "0-7"}]
    assert moved_cells(claim, request(vm(*other, cores=8, onlineVcpus="0-4")).vm) == {}


def test_a_module_is_booked_on_the_host_cell_of_its_guest_cell_or_refused_with_numbers() -> None:
    def with_module(size: str) -> dict[str, Any]:
        spec = vm(*BOUND, cores=4)
        module = {"name": "m0", "cell": 1, "size": size, "dimm": {}}
        spec["domain"]["memory"] = {"maxGuest": "16Gi"}
        spec["domain"]["devices"] = {"memory": [module]}
        return spec

    where, claim = running(fleet(host(cells=2, cores=6)), vm(*BOUND, cores=4))
    moves = moved_cells(claim, request(with_module("1Gi")).vm)
    assert moves == {1: CpuSet.of(1)}
    after = amended(where, with_module("1Gi"), claim, cell1="1")
    assert isinstance(after, Placed)
    assert after.placement.cells[1].plugged == 2**30
    assert after.placement.cells[1].pcpus == claim.cells[1].pcpus
    assert after.placement.cells[0] == claim.cells[0]

    refusal = amended(where, with_module("8Gi"), claim, cell1="1")
    assert isinstance(refusal, Refusal)
    assert [count.cause for count in refusal.counts] == [Cause.MEMORY]


def test_raised_memory_of_a_running_cell_is_booked_beside_what_it_booted_with() -> None:
    def grown(memory: str, maximum: str | None = "16Gi") -> dict[str, Any]:
        spec = vm({**BOUND[0], "memory": memory}, BOUND[1], cores=4)
        spec["domain"]["memory"] = {"maxGuest": maximum} if maximum else {}
        return spec

    where, claim = running(fleet(host(cells=2, cores=6)), grown("1Gi"))
    assert moved_cells(claim, request(grown("2Gi")).vm) == {0: CpuSet.of(0)}
    assert moved_cells(claim, request(grown("2Gi", None)).vm) == {}
    assert moved_cells(claim, request(grown("1025Mi")).vm) == {}
    after = amended(where, grown("2Gi"), claim, cell0="0")
    assert isinstance(after, Placed)
    assert (after.placement.cells[0].memory, after.placement.cells[0].plugged) == (
        GIBIBYTE,
        GIBIBYTE,
    )
    assert moved_cells(after.placement.alone, request(grown("2Gi")).vm) == {}
    refusal = amended(where, grown("9Gi"), claim, cell0="0")
    assert isinstance(refusal, Refusal)


def test_what_a_guest_has_given_back_is_let_go_and_what_it_still_has_is_not() -> None:
    def guest(size: str | None, online: str) -> dict[str, Any]:
        cells = [{**BOUND[0], "cpus": "0-1,4-5"}, {**BOUND[1], "cpus": "2-3,6-7"}]
        spec = vm(*cells, cores=8, onlineVcpus=online)
        module = {"name": "m0", "cell": 1, "size": size, "dimm": {}}
        spec["domain"]["memory"] = {"maxGuest": "16Gi"}
        spec["domain"]["devices"] = {"memory": [module] if size else []}
        return spec

    where, claim = running(fleet(host(cells=2, cores=6)), guest("1Gi", "0-4"))
    small = guest(None, "0-3")
    wish = request(small).vm
    has_both = InUse(CpuSet.parse("0-4"), {1: GIBIBYTE})
    assert moved_cells(claim, wish) == moved_cells(claim, wish, has_both) == {}
    gone = InUse(CpuSet.parse("0-3"), {})
    assert moved_cells(claim, wish, gone) == {0: CpuSet.of(0), 1: CpuSet.of(1)}
    after = amended(where, small, claim, gone, cell0="0", cell1="1")
    assert isinstance(after, Placed)
    first, second = after.placement.cells
    assert (str(first.held_vcpus), Bytes(second.plugged or 0)) == ("0-1", 0)
    assert after.placement.dedicated_cpus == claim.dedicated_cpus - claim.cells[0].pcpus[2]
    assert moved_cells(after.placement.alone, wish, gone) == {}


def test_derived_cells_hold_more_memory_where_they_are() -> None:
    def spec(memory: str) -> dict[str, Any]:
        made = vm(cores=4)
        made["domain"]["cpu"]["numa"] = {"guestMappingPassthrough": {"cells": 2}}
        made["domain"]["memory"] = {"guest": memory, "maxGuest": "8Gi"}
        return made

    where, claim = running(fleet(host()), spec("2Gi"))
    wish = request(spec("3Gi"), "vm").vm
    moves = moved_cells(claim, wish)
    assert moves == {cell.id: cell.host_cells for cell in claim.cells}

    after = amended(where, spec("3Gi"), claim, cell0=str(moves[0]), cell1=str(moves[1]))
    assert isinstance(after, Placed)
    assert where_of(after.placement) == where_of(claim)
    assert [cell.memory for cell in after.placement.cells] == [GIBIBYTE, GIBIBYTE]
    assert [cell.plugged for cell in after.placement.cells] == [GIBIBYTE // 2, GIBIBYTE // 2]
    assert [cell.pcpus for cell in after.placement.cells] == [cell.pcpus for cell in claim.cells]
    assert moved_cells(after.placement, wish) == {}
    full = amended(where, spec("8Gi"), claim, cell0=str(moves[0]), cell1=str(moves[1]))
    assert isinstance(full, Refusal)
