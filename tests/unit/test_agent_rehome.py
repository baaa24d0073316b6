"""How a running domain moves between host cells: every row of the table, and what is recorded of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numavm_agent.domain.metadata import DomainRecord, metadata_xml, read_metadata
from numavm_agent.reconcile.changes import applied_live
from numavm_agent.reconcile.decide import Change, News, Wish, change_phase
from numavm_agent.reconcile.rehome import (
    BATCH,
    Seen,
    Step,
    at_step,
    batches,
    begun,
    homes,
    kind_of,
    narrowed,
    new_aim,
    next_step,
    percent_done,
    status_of,
    widened,
)
from numavm_agent.verify.guest_memory import Block
from numavm_agent.verify.parsers import MemoryMapping, Policy
from numavm_api.conditions import ClaimRefusalReason
from numavm_api.cpuset import CpuSet
from numavm_api.effective import effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.quantity import BASE_PAGE, MEBIBYTE, Bytes
from numavm_api.vm_status import DomainRefusal
from support.agent_values import claim, spec

SWAPPED = (1, 0)


def claim_on(*host_cells: int, name: str = "claim-2") -> Placement:
    """Return the claim with guest cell n on the n-th of the given host cells."""
    cells = [
        cell.model_copy(update={"host_cells": CpuSet.of(host_cell)})
        for cell, host_cell in zip(claim().cells, host_cells, strict=True)
    ]
    summary = ",".join(f"{cell.id}->{cell.host_cells}" for cell in cells)
    return claim(id=name, cells=cells, summary=summary)


def record(placement: Placement | None = None, target: Placement | None = None) -> DomainRecord:
    return DomainRecord(
        uid="uid-1",
        namespace="ns",
        name="vm",
        generation=3,
        restart_token=None,
        placement=placement or claim(),
        spec=spec(),
        target=target,
    )


def seen(astray: int = 0, *, right: bool = True, **allowed: str) -> Seen:
    groups = {name: CpuSet.parse(cells) for name, cells in allowed.items()}
    return Seen(allowed=groups, astray=Bytes(astray), threads_right=right)


TO_TWO = claim_on(2, 1)
OLD, BOTH, NEW = "0-1", "0-2", "1-2"


@pytest.mark.parametrize(
    ("shown", "step"),
    [
        (seen(1, right=False, emulator=OLD, vcpu0=OLD), Step.WIDEN),
        (seen(1, right=False, emulator=BOTH, vcpu0=OLD), Step.WIDEN),
        (seen(1, right=False, emulator=BOTH, vcpu0=BOTH), Step.MOVE),
        (seen(1, right=True, emulator=BOTH, vcpu0=BOTH), Step.MOVE),
        (seen(1, right=True, emulator=NEW, vcpu0=NEW), Step.MOVE),
        (seen(0, right=False, emulator=BOTH, vcpu0=BOTH), Step.THREADS),
        (seen(0, right=True, emulator=BOTH, vcpu0=BOTH), Step.NARROW),
        (seen(0, right=True, emulator=NEW, vcpu0=BOTH), Step.NARROW),
        (seen(0, right=True, emulator=NEW, vcpu0=NEW), Step.COMMIT),
        (seen(0, right=True), Step.COMMIT),
        (seen(1, right=True), Step.MOVE),
    ],
)
def test_the_next_step_follows_from_what_the_kernel_shows(shown: Seen, step: Step) -> None:
    assert step == next_step(shown, TO_TWO)


def test_vcpus_are_powered_on_when_memory_is_there_and_before_pins_are_judged() -> None:
    off = CpuSet.of(1)
    wide = seen(1, right=False, emulator=BOTH)
    assert next_step(replace(wide, off=off), TO_TWO) is Step.MOVE
    assert next_step(replace(wide, astray=Bytes(0), off=off), TO_TWO) is Step.PLUG
    assert next_step(replace(wide, astray=Bytes(0)), TO_TWO) is Step.THREADS


def test_from_every_state_the_steps_come_to_an_end() -> None:
    sets = [CpuSet.parse(text) for text in (OLD, BOTH, NEW, "0", "0-3")]
    for astray, right, one, two in itertools.product((0, 1), (False, True), sets, sets):
        now = Seen({"emulator": one, "vcpu0": two}, Bytes(astray), threads_right=right)
        taken = [next_step(now, TO_TWO)]
        while taken[-1] is not Step.COMMIT:
            now = _after(now, taken[-1])
            taken.append(next_step(now, TO_TWO))
        assert len(taken) <= 5
        assert len(set(taken)) == len(taken)


def _after(now: Seen, step: Step) -> Seen:
    match step:
        case Step.WIDEN:
            return replace(now, allowed={**now.allowed, **dict(widened(now, TO_TWO))})
        case Step.MOVE:
            return replace(now, astray=Bytes(0))
        case Step.THREADS:
            return replace(now, threads_right=True)
        case _:
            return replace(now, allowed={**now.allowed, **dict(narrowed(now, TO_TWO))})


def test_groups_are_widened_to_one_set_and_from_the_outside_narrowed_from_the_inside() -> None:
    shown = seen(1, top=OLD, emulator=OLD, vcpu0="0")
    both = CpuSet.parse(BOTH)
    assert widened(shown, TO_TWO) == [("top", both), ("emulator", both), ("vcpu0", both)]
    wide = seen(0, top=BOTH, emulator=BOTH, vcpu0=NEW)
    new = CpuSet.parse(NEW)
    assert narrowed(wide, TO_TWO) == [("emulator", new), ("top", new)]


def block(start: int, size: Bytes, resident: dict[int, int], page: Bytes = BASE_PAGE) -> Block:
    mapping = MemoryMapping(
        start=start,
        size=size,
        permissions="rw-p",
        name="",
        inode=0,
        policy=Policy.BIND,
        nodes=CpuSet.of(0),
        page_size=page,
        resident={cell: Bytes(amount) for cell, amount in resident.items()},
    )
    return Block((mapping,))


SIZE = Bytes(64 * MEBIBYTE)


@given(
    pages=st.integers(1, 5000),
    other=st.integers(1, 5000),
    page=st.sampled_from([BASE_PAGE, Bytes(2 * MEBIBYTE)]),
)
def test_a_pass_names_each_page_of_what_moves_once(pages: int, other: int, page: Bytes) -> None:
    blocks = {
        0: block(0x10_0000_0000, Bytes(pages * page), {0: page}, page),
        1: block(0x40_0000_0000, Bytes(other * page), {1: page}, page),
    }
    named: dict[int, list[int]] = {0: [], 1: []}
    for batch in batches(claim_on(*SWAPPED), blocks):
        assert len(batch.addresses) * page <= max(BATCH, page)
        assert homes(batch) == [SWAPPED[batch.guest_cell]] * len(batch.addresses)
        named[batch.guest_cell] += batch.addresses
    for guest_cell, count in ((0, pages), (1, other)):
        start = blocks[guest_cell].mappings[0].start
        assert named[guest_cell] == list(range(start, start + count * page, page))


def test_cells_that_change_places_move_in_turns() -> None:
    blocks = {0: block(0, SIZE, {0: SIZE}), 1: block(2 * SIZE, SIZE, {1: SIZE})}
    turns = [batch.guest_cell for batch in batches(claim_on(*SWAPPED), blocks)]
    assert turns == [0, 1] * (SIZE // BATCH)


def test_a_cell_that_is_where_it_belongs_is_left_alone() -> None:
    blocks = {0: block(0, SIZE, {0: SIZE}), 1: block(2 * SIZE, SIZE, {1: SIZE})}
    assert {batch.guest_cell for batch in batches(claim_on(2, 1), blocks)} == {0}


def test_pages_that_may_be_on_several_host_cells_are_spread_over_them() -> None:
    several = claim_on(*SWAPPED)
    cells = [
        one.model_copy(update={"host_cells": CpuSet.of(1, 3)}) if one.id == 0 else one
        for one in several.cells
    ]
    blocks = {0: block(0, SIZE, {0: SIZE})}
    first = next(batches(several.model_copy(update={"cells": cells}), blocks))
    assert homes(first)[:4] == [1, 3, 1, 3]


def test_progress_counts_only_the_memory_that_moves() -> None:
    whole, half = SIZE, Bytes(SIZE // 2)
    assert [percent_done(claim_on(2, 1), claim(), left) for left in (whole, half, Bytes(0))] == [
        0,
        50,
        100,
    ]
    assert percent_done(claim_on(*SWAPPED), claim(), half) == 75


def test_what_is_under_way_survives_in_the_metadata() -> None:
    moving = at_step(begun(record(), claim_on(2, 1)), Step.MOVE)
    xml = f"<domain><metadata>{_with_namespace(metadata_xml(moving))}</metadata></domain>"
    assert read_metadata(xml) == moving
    assert moving.held == claim_on(2, 1).replacing(claim())


def _with_namespace(text: str) -> str:
    """Do what libvirt does to the element it is given."""
    prefixed = text.replace("</", "</numavm:").replace("<", "<numavm:").replace("<numavm:/", "</")
    return prefixed.replace(
        "<numavm:vm>", '<numavm:vm xmlns:numavm="https://numavm.io/domain/1">', 1
    )


def test_the_record_names_both_ends_and_the_step() -> None:
    moving = begun(record(), claim_on(*SWAPPED))
    assert moving.operation is not None
    assert (moving.operation.before, moving.operation.after) == ("0->0,1->1", "0->1,1->0")
    said = status_of(at_step(moving, Step.NARROW), percent=57)
    assert said is not None
    assert (said.step, said.percent, said.placement_id) == ("Narrow", 50, "claim-2")
    assert said.kind == "ReHome"


def test_a_claim_amended_on_the_same_host_cells_is_no_re_home() -> None:
    now = begun(record(), claim_on(0, 1))
    said = status_of(at_step(now, Step.PLUG), percent=100)
    assert said is not None
    assert (said.kind, said.step) == ("Amend", "Plug")
    assert kind_of(claim_on(0, 1), claim_on(0, 2)) == "ReHome"


def test_turning_back_holds_what_was_held() -> None:
    there = begun(record(), claim_on(2, 1))
    back = begun(there, claim_on(0, 1, name="claim-3"))
    assert back.placement.id == "claim-2"
    assert back.target is not None
    assert back.target.id == "claim-3"
    again = begun(there, claim())
    assert (again.placement.id, again.target.id if again.target else None) == ("claim-2", "claim-1")


AMENDED = claim_on(2, 1).replacing(claim())
REFUSED = DomainRefusal(
    placement_id="claim-2", reason=ClaimRefusalReason.MEMORY_TAKEN, message="full", time="now"
)


@pytest.mark.parametrize(
    ("known", "stated", "refused", "change"),
    [
        (None, AMENDED, None, Change.NONE),
        (record(), claim(), None, Change.NONE),
        (record(), None, None, Change.NONE),
        (record(), AMENDED, None, Change.ASKED),
        (record(), AMENDED, REFUSED, Change.NONE),
        (record(), claim_on(2, 1), None, Change.NONE),
        (record(claim_on(2, 1)), AMENDED, None, Change.NONE),
        (record(target=claim_on(2, 1)), AMENDED, None, Change.UNDER_WAY),
        (record(target=claim_on(2, 1)), None, None, Change.UNDER_WAY),
        (record(target=claim_on(2, 1)), claim(), REFUSED, Change.UNDER_WAY),
    ],
)
def test_a_change_is_asked_for_by_a_claim_that_names_the_domains_own(
    known: DomainRecord | None,
    stated: Placement | None,
    refused: DomainRefusal | None,
    change: Change,
) -> None:
    assert change == change_phase(known, stated, refused, Wish(spec()))


def test_what_the_claim_allows_already_is_only_noted() -> None:
    bound = [
        {"id": n, "cpus": str(n), "memory": "64Mi", "hostBinding": {"hostCells": str(n)}}
        for n in (0, 1)
    ]
    elsewhere = [{**bound[0], "hostBinding": {"hostCells": "2"}}, bound[1]]
    for cells, change in ((bound, Change.SPEC), (elsewhere, Change.SPEC)):
        wanted = with_cells(cells)
        assert change == change_phase(record(), claim(), None, Wish(wanted))
    noted = replace(record(), spec=applied_live(spec(), with_cells(elsewhere), claim()))
    assert change_phase(noted, claim(), None, Wish(with_cells(elsewhere))) is Change.NONE
    lost = Wish(with_cells(elsewhere), news=News.LOSS)
    assert change_phase(noted, claim(), None, lost) is Change.SPEC
    assert [cell.host_cells for cell in effective(noted.spec).cells] == [None, CpuSet.of(1)]


def with_cells(cells: list[dict[str, object]]) -> NumaVMSpec:
    huge = [{**cell, "hugepages": {"pageSize": "2Mi"}} for cell in cells]
    cpu = {"cores": 2, "dedicatedCpuPlacement": True, "numa": {"cells": huge}}
    return spec(domain={"type": "TCG", "cpu": cpu})


@pytest.mark.parametrize(
    ("pinning", "applies"),
    [
        ({"cpuset": "1-3"}, True),
        ({"vcpus": [{"vcpu": 0, "cpuset": "1"}]}, True),
        ({"vcpus": [{"vcpu": 0, "cpuset": "0"}]}, False),
        ({"emulator": "0"}, True),
    ],
)
def test_cpus_chosen_by_hand_hold_where_the_claims_are_among_them(
    pinning: dict[str, object], *, applies: bool
) -> None:
    cpu = {**spec().domain.cpu.to_api(), "pinning": pinning}
    wanted = spec(domain={"type": "TCG", "cpu": cpu})
    after = applied_live(spec(), wanted, claim())
    assert (after.domain.cpu.pinning is not None) == applies


@pytest.mark.parametrize(
    ("stated", "aim"),
    [
        (AMENDED, None),
        (None, None),
        (claim_on(3, 1, name="claim-9"), None),
        (claim_on(3, 1, name="claim-9").replacing(claim()), None),
        (claim(), "claim-1"),
        (claim_on(0, 1, name="claim-3").replacing(claim_on(2, 1)), "claim-3"),
    ],
)
def test_a_move_turns_only_to_what_holds_nothing_new(
    stated: Placement | None, aim: str | None
) -> None:
    found = new_aim(claim_on(2, 1), claim(), stated)
    assert aim == (found.id if found else None)


def test_why_a_change_does_not_come_forward_is_told() -> None:
    said = status_of(begun(record(), claim_on(2, 1)), 0, "libvirt refuses: no free slot")
    assert said is not None
    assert said.message == "libvirt refuses: no free slot"
