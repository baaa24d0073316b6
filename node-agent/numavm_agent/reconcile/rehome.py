"""How a running domain moves from one claim to another on its host: which step is next. Pure.

A table over what the kernel shows, never over what was done: so an agent that was killed goes on where the domain is,
and turning back is the same move towards the other claim. The record in the domain's metadata names both claims before
anything begins; the step in it is for people.

    Widen     its groups may use the new host cells too
    Move      move_pages(2), cell by cell in turns, in bounded batches
    Plug      vCPUs that are to be on are pinned, then powered on; memory modules are plugged in
    Threads   vCPUs and emulator are pinned anew
    Narrow    its groups may use the new host cells only; the kernel rebinds policies, and moves QEMU's own memory
    Commit    all is verified: the domain's claim is the new one
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from numavm_agent.domain.metadata import DomainRecord, Operation
from numavm_agent.verify.guest_memory import Block
from numavm_api.cpuset import CpuSet
from numavm_api.placement import Placement
from numavm_api.quantity import MEBIBYTE, Bytes
from numavm_api.vm_status import OperationStatus

REHOME: Final = "ReHome"
"""Memory moves to other host cells."""
AMEND: Final = "Amend"
"""The host cells stay: threads move, vCPUs and memory modules come."""
BATCH: Final = Bytes(4 * MEBIBYTE)
"""Moved by one call: the guest waits for a page of it no longer than that takes."""
_TENTH: Final = 10
_MESSAGE: Final = 2048


class Step(StrEnum):
    """What is done next."""

    RECORD = "Record"
    WIDEN = "Widen"
    MOVE = "Move"
    PLUG = "Plug"
    THREADS = "Threads"
    NARROW = "Narrow"
    COMMIT = "Commit"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the kernel shows of a domain that is being moved."""

    allowed: Mapping[str, CpuSet]
    """Group -> host cells it may use, of groups that are held down, outer ones first."""
    astray: Bytes
    """Guest memory that is not on the host cells of the new claim."""
    threads_right: bool
    """Every thread is pinned as the new claim says."""
    off: CpuSet = field(default_factory=CpuSet)
    """vCPUs that are to be on, and have no thread."""
    unplugged: frozenset[str] = frozenset()
    """Memory modules that are to be there, and are not."""


def next_step(seen: Seen, target: Placement) -> Step:
    """Return what is next for a domain on its way to `target`."""
    cells = target.memory_host_cells
    is_open = all(cells <= allowed for allowed in seen.allowed.values())
    if (seen.astray or seen.unplugged) and not is_open:
        return Step.WIDEN
    if seen.astray:
        return Step.MOVE
    if seen.off or seen.unplugged:
        return Step.PLUG
    if not seen.threads_right:
        return Step.THREADS
    if any(allowed != cells for allowed in seen.allowed.values()):
        return Step.NARROW
    return Step.COMMIT


def widened(seen: Seen, target: Placement) -> list[tuple[str, CpuSet]]:
    """Return what each group is to be allowed, outer groups first.

    One set for all: each group's write rebinds the policies of the whole process, and a different set would map the
    same policy twice.
    """
    together = target.memory_host_cells | CpuSet.union_of(seen.allowed.values())
    return [(group, together) for group, cells in seen.allowed.items() if cells != together]


def narrowed(seen: Seen, target: Placement) -> list[tuple[str, CpuSet]]:
    """Return what each group is to be allowed at the end, inner groups first."""
    cells = target.memory_host_cells
    inner_first = reversed(list(seen.allowed.items()))
    return [(group, cells) for group, allowed in inner_first if allowed != cells]


def astray(target: Placement, blocks: Mapping[int, Block]) -> Bytes:
    """Return how much guest memory is not where the claim says; memory that is not found counts whole."""
    return Bytes(
        sum(
            blocks[cell.id].astray(cell.host_cells) if cell.id in blocks else cell.memory
            for cell in target.cells
        )
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Pages to be moved by one call."""

    guest_cell: int
    addresses: range
    cells: CpuSet
    """Host cells where they belong."""


def batches(target: Placement, blocks: Mapping[int, Block]) -> Iterator[Batch]:
    """Yield the batches of one pass over all cells with pages elsewhere, a batch of each cell in turn.

    In turn, so that cells that change places never need more room on a host cell than the larger of them and a batch.
    """
    turns = [
        _batches_of(cell.id, blocks[cell.id], cell.host_cells)
        for cell in target.cells
        if cell.id in blocks and blocks[cell.id].astray(cell.host_cells)
    ]
    while turns:
        for turn in list(turns):
            batch = next(turn, None)
            if batch is None:
                turns.remove(turn)
            else:
                yield batch


def _batches_of(guest_cell: int, block: Block, cells: CpuSet) -> Iterator[Batch]:
    for mapping in block.mappings:
        page = mapping.page_size
        step = max(page, BATCH // page * page)
        for start in range(mapping.start, mapping.end, step):
            end = min(start + step, mapping.end)
            yield Batch(guest_cell, range(start, end, page), cells)


def homes(batch: Batch) -> list[int]:
    """Return the host cell for each page of a batch: in turn over those where it belongs."""
    cells = list(batch.cells)
    return [cells[at % len(cells)] for at in range(len(batch.addresses))]


def kind_of(before: Placement, target: Placement) -> str:
    """Return what a change from one claim to another is."""
    cells = {cell.id: cell.host_cells for cell in before.cells}
    moves = any(cells.get(cell.id) != cell.host_cells for cell in target.cells)
    return REHOME if moves else AMEND


def operation(record: DomainRecord, target: Placement, step: Step) -> Operation:
    """Return the record of a move from the claim that the domain has to another."""
    return Operation(
        kind=kind_of(record.placement, target),
        before=record.placement.summary,
        after=target.summary,
        step=str(step),
    )


def begun(record: DomainRecord, target: Placement) -> DomainRecord:
    """Return what a domain remembers as it begins to move to `target`.

    One that was on its way elsewhere turns back: what it was moving to is what it has now, for as long as it takes.
    """
    has = record.target or record.placement
    before = record.placement if target.id == has.id else has
    start = replace(record, placement=before.alone, target=target.alone, moved=True)
    return replace(start, operation=operation(start, target, Step.RECORD))


def at_step(record: DomainRecord, step: Step) -> DomainRecord:
    """Return what a domain remembers at a step of its move."""
    if record.target is None:
        return record
    return replace(record, operation=operation(record, record.target, step))


def status_of(
    record: DomainRecord, percent: int, error: str | None = None
) -> OperationStatus | None:
    """Return what the status says of a move that is under way, and why it does not come forward; None: none is."""
    now = record.operation
    if record.target is None or now is None or now.kind not in (REHOME, AMEND):
        return None
    return OperationStatus.model_validate(
        {
            "kind": now.kind,
            "placementId": record.target.id,
            "from": now.before,
            "to": now.after,
            "step": now.step,
            "percent": percent // _TENTH * _TENTH,
            "message": error[:_MESSAGE] if error else None,
        }
    )


def percent_done(target: Placement, placement: Placement, left: Bytes) -> int:
    """Return how much of the memory that moves is there, in percent."""
    before = {cell.id: cell for cell in placement.cells}
    moving = sum(
        cell.memory
        for cell in target.cells
        if cell.id not in before or before[cell.id].host_cells != cell.host_cells
    )
    return max(0, min(100, 100 - 100 * left // moving)) if moving else 100


def new_aim(target: Placement, placement: Placement, claim: Placement | None) -> Placement | None:
    """Return the claim that a move under way is to turn to; None: it goes on.

    Turned to is only what holds nothing that the domain does not hold already: its former claim, or one that names the
    aim so far as the claim before it.
    """
    if claim is None or claim.id == target.id:
        return None
    turns = claim.previous is not None and claim.previous.id == target.id
    return claim.alone if turns or claim.id == placement.id else None
