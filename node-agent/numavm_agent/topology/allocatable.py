"""How much memory of each host cell NumaVM may hand out, and how the report of it stays calm. Pure.

    base pages:  total - huge pages - max(reserve + promised, used by others + half the reserve)
    huge pages:  total - max(used by others, promised)

`Used by others` is what is neither free nor reclaimable nor resident for NumaVM's own domains. What
own domains hold is not subtracted: the ledger of claims does that. The reserve is first for what
the host itself uses anyway; half of it stays untouched however much others use. `Promised` is what the kubelet's
memory manager keeps for pods, used or not yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from numavm_agent.topology.cell_class import classes_of
from numavm_agent.topology.readings import CellReading, PagePool
from numavm_api.hmat import HostCellClass
from numavm_api.numahost import HostCell, HostHugePages, HostMemory, NumaHostSpec
from numavm_api.quantity import BASE_PAGE, MEBIBYTE, Bytes

MEMORY_STEP: Final = Bytes(64 * MEBIBYTE)
"""Amounts of memory are reported in these steps."""
_MIN_RESERVE: Final = Bytes(256 * MEBIBYTE)
_RESERVE_PERCENT: Final = 5
_CALM_PERCENT: Final = 1


@dataclass(frozen=True, slots=True)
class OwnResident:
    """What NumaVM's own domains hold now, by the kernel's word."""

    base: Mapping[int, Bytes] = field(default_factory=dict)
    """Host cell -> bytes in base pages, QEMU's own memory included."""
    huge: Mapping[tuple[int, Bytes], int] = field(default_factory=dict)
    """(host cell, page size) -> pages."""


Promised = Mapping[tuple[int, Bytes], Bytes]
"""(host cell, page size) -> bytes that the kubelet keeps for pods."""
NO_PROMISE: Final[Promised] = {}


def report_cells(
    readings: Sequence[CellReading],
    spec: NumaHostSpec,
    own: OwnResident,
    previous: Sequence[HostCell] = (),
    *,
    promised: Promised = NO_PROMISE,
) -> list[HostCell]:
    """Return the cells as NumaHost reports them.

    Args:
        readings: What the kernel says now.
        spec: The administrator's reserves.
        own: What own domains hold, read while none of them changed.
        previous: The report before: amounts less than a step or 1 % of the cell away from it stay as
            they were.
        promised: What the kubelet keeps for pods.
    """
    before = {cell.id: cell for cell in previous}
    uses = Uses(own, promised)
    classes = classes_of(readings)
    return [
        _report_cell(
            reading,
            spec,
            uses,
            before=before.get(reading.id),
            memory_class=classes.get(reading.id),
        )
        for reading in readings
    ]


def reserve_of(cell: CellReading, spec: NumaHostSpec) -> Bytes:
    """Return the reserve of a cell: the administrator's, or 256Mi, or 5 % if that is more."""
    for reserved in spec.reserved_memory:
        if reserved.cell == cell.id:
            return reserved.memory
    return Bytes(max(_MIN_RESERVE, cell.memory.total * _RESERVE_PERCENT // 100))


def allocatable_memory(
    cell: CellReading, reserve: Bytes, own: OwnResident, promised: Promised = NO_PROMISE
) -> Bytes:
    """Return the bytes of a cell that NumaVM may hand out in base pages, to the byte."""
    memory = cell.memory
    huge = sum(pool.total * pool.page_size for pool in cell.page_pools)
    unused = memory.free + memory.reclaimable + own.base.get(cell.id, 0)
    others = max(0, memory.total - huge - unused)
    least = reserve + promised.get((cell.id, BASE_PAGE), 0)
    return Bytes(max(0, memory.total - huge - max(least, others + reserve // 2)))


def allocatable_pages(
    cell: int, pool: PagePool, own: OwnResident, promised: Promised = NO_PROMISE
) -> int:
    """Return the huge pages of a pool that NumaVM may hand out: all that others neither use nor were promised."""
    others = pool.total - pool.free - own.huge.get((cell, pool.page_size), 0)
    pods = -(-promised.get((cell, pool.page_size), 0) // pool.page_size)
    return max(0, pool.total - max(0, others, pods))


def calm(now: Bytes, before: Bytes | None, total: Bytes) -> Bytes:
    """Return what to report of an amount: the one before, unless it moved enough; in steps.

    Enough is a step or 1 % of the cell, whichever is more. From zero, and to zero, it always
    counts.
    """
    stepped = Bytes(now // MEMORY_STEP * MEMORY_STEP)
    if before is None or not before or not stepped:
        return stepped
    band = max(MEMORY_STEP, total * _CALM_PERCENT // 100)
    return before if abs(now - before) < band else stepped


@dataclass(frozen=True, slots=True)
class Uses:
    """What domains hold, and what the kubelet keeps."""

    own: OwnResident
    promised: Promised


def _report_cell(
    reading: CellReading,
    spec: NumaHostSpec,
    uses: Uses,
    *,
    before: HostCell | None,
    memory_class: HostCellClass | None,
) -> HostCell:
    total = reading.memory.total
    reserve = reserve_of(reading, spec)
    allocatable = allocatable_memory(reading, reserve, uses.own, uses.promised)
    return HostCell(
        id=reading.id,
        cpus=list(reading.cpus),
        memory=HostMemory(
            total=total,
            free=calm(reading.memory.free, before.memory.free if before else None, total),
            allocatable=calm(allocatable, before.memory.allocatable if before else None, total),
        ),
        hugepages=[_report_pool(reading.id, pool, uses) for pool in reading.page_pools],
        distances=list(reading.distances),
        figures=reading.figures,
        memory_class=memory_class,
    )


def _report_pool(cell: int, pool: PagePool, uses: Uses) -> HostHugePages:
    return HostHugePages(
        page_size=pool.page_size,
        total=pool.total,
        free=pool.free,
        allocatable=allocatable_pages(cell, pool, uses.own, uses.promised),
    )
