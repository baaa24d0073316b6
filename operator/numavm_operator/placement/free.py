"""What is left of one host cell, reduced to the counts that the search asks for.

Two cells with equal counts are equal to the search, whatever the numbers of their CPUs. Which CPUs in
particular a VM gets is decided last, on the one host that was chosen (`cpus`); the counts here guarantee that
such CPUs exist.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from numavm_api.quantity import Bytes
from numavm_operator.placement.caches import Kind, cache_sets, cheapest, most_units
from numavm_operator.placement.host import Cell
from numavm_operator.placement.shape import CellDemand, CpuRule

PERCENT: Final = 100
_NO_ROOM: Final = -1
"""Not even the singles and the emulator fit."""
Memory = tuple[tuple[Bytes, int], ...]


@dataclass(frozen=True, slots=True)
class CellUse:
    """What all claims together take of one host cell."""

    held: int = 0
    """Mask of dedicated CPUs."""
    floating: int = 0
    """vCPUs that float over its shared CPUs."""
    memory: Mapping[Bytes, int] | None = None
    """Bytes per page size."""


@dataclass(frozen=True, slots=True)
class FreeCell:
    """What is left of one host cell."""

    has_cpus: bool
    free: int
    """CPUs of the dedicated pool that nobody holds."""
    takeable: int
    """How many of them a new VM may take, so that shared vCPUs keep the share they were promised."""
    shared_room: int
    """vCPUs that may still float here."""
    sibling_free: int
    """Free CPUs on cores with more than one thread."""
    groups: tuple[int, ...]
    """At index n: how many groups of n threads, each on one core with siblings, are free."""
    whole_cores: tuple[int, ...]
    """At index n: the CPUs that the n narrowest wholly free cores have."""
    refuge: bool
    """There are CPUs here for floating emulator threads that no dedicated VM can ever take."""
    memory: Memory
    """Bytes left per page size; negative where too much was promised."""
    caches: tuple[Kind, ...]
    """The last-level caches that are free as a whole, by their cores."""
    devices: int
    """Free host devices here."""

    def takes(self, demand: CellDemand) -> bool:
        """Tell whether a demand fits on what is left; nothing else is on the cell."""
        if demand.least > self.takeable:
            return False
        capacity = self.unit_capacity(
            demand.rule,
            demand.group_size,
            demand.singles,
            demand.emulators,
            whole_caches=demand.whole_caches,
        )
        if demand.units > capacity:
            return False
        for size, amount in demand.memory:  # noqa: SIM110 - the innermost loop of all: no generator
            if amount > self.memory_left(size):
                return False
        return True

    def memory_left(self, page_size: Bytes) -> int:
        """Return the bytes left in pages of this size."""
        for size, left in self.memory:
            if size == page_size:
                return left
        return 0

    def has_page_size(self, page_size: Bytes) -> bool:
        """Tell whether there is a pool of such pages."""
        return any(size == page_size for size, _ in self.memory)

    def unit_capacity(
        self,
        rule: CpuRule,
        size: int,
        singles: int,
        emulators: int,
        *,
        kept: int = 0,
        whole_caches: bool = False,
    ) -> int:
        """Return how many units fit beside `singles` vCPUs and `emulators`; -1 where not even those fit.

        Args:
            rule: What a unit is.
            size: Threads per unit with `SIBLINGS`.
            singles: vCPUs beside the groups.
            emulators: CPUs (with `WHOLE_CORES`: cores) for emulator threads.
            kept: Of the free CPUs, so many must stay free.
            whole_caches: Last-level caches are taken whole.
        """
        takeable = self.takeable if kept == 0 else max(min(self.takeable, self.free - kept), 0)
        if whole_caches:
            sets = cache_sets(self.caches)
            return max(most_units(sets, takeable, rule, size, singles, emulators), _NO_ROOM)
        match rule:
            case CpuRule.FLOAT:
                return max(self.shared_room, 0)
            case CpuRule.ANYWHERE:
                return max(takeable - emulators, _NO_ROOM)
            case CpuRule.SIBLINGS:
                room = min(self.sibling_free - singles, takeable - singles - emulators)
                return _NO_ROOM if room < 0 else min(self._groups_of(size), room // size)
            case CpuRule.WHOLE_CORES:
                cores = bisect_right(self.whole_cores, takeable) - 1
                return max(cores - emulators, _NO_ROOM)

    def cpus_taken(
        self,
        rule: CpuRule,
        size: int,
        units: int,
        singles: int,
        emulators: int,
        *,
        whole_caches: bool = False,
    ) -> int:
        """Return how many CPUs a load takes that fits."""
        if whole_caches:
            bearing = cheapest(cache_sets(self.caches), rule, size, units, singles, emulators)
            return self.free if bearing is None else bearing.cpus
        match rule:
            case CpuRule.FLOAT:
                return 0
            case CpuRule.ANYWHERE | CpuRule.SIBLINGS:
                return units * size + singles + emulators
            case CpuRule.WHOLE_CORES:
                return self.whole_cores[units + emulators]

    def _groups_of(self, size: int) -> int:
        return self.groups[size] if size < len(self.groups) else 0


def free_cell(
    cell: Cell,
    use: CellUse,
    *,
    follows: bool,
    allocation_percent: int,
    keep_one: bool,
    devices: int,
) -> FreeCell:
    """Return what `use` leaves of a cell.

    Args:
        cell: The cell.
        use: What all claims together take of it.
        follows: Shared CPUs are what dedicated VMs leave; else a pool of their own.
        allocation_percent: Shared vCPUs per 100 shared CPUs.
        keep_one: The emulator threads of some VM have nowhere to go but this cell's free CPUs.
        devices: Host devices of the cell that nobody holds.
    """
    free_mask = cell.dedicated & ~use.held
    free = free_mask.bit_count()
    shared = free if follows else (cell.shared & ~use.held).bit_count()
    promised = -(-use.floating * PERCENT // allocation_percent)
    takeable = free - promised if follows else free
    sibling_free, groups, whole = _cores_left(cell, free_mask)
    return FreeCell(
        has_cpus=cell.online != 0,
        free=free,
        takeable=max(min(takeable, free - keep_one), 0),
        shared_room=shared * allocation_percent // PERCENT - use.floating,
        sibling_free=sibling_free,
        groups=groups,
        whole_cores=whole,
        refuge=bool(cell.housekeeping & ~use.held) or (not follows and shared > 0),
        memory=_memory_left(cell, use),
        caches=_whole_caches(cell, free_mask),
        devices=devices,
    )


def _cores_left(cell: Cell, free_mask: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Return the free CPUs on cores with siblings, groups per size, and CPUs of the narrowest whole cores."""
    with_free: dict[int, int] = {}
    widths: list[int] = []
    for core in cell.cores:
        left = (core.threads & free_mask).bit_count()
        if left == core.width:
            widths.append(left)
        if left and core.width > 1:
            with_free[left] = with_free.get(left, 0) + 1
    widest = max(with_free, default=0)
    groups = tuple(
        sum(cores * (left // size) for left, cores in with_free.items()) if size else 0
        for size in range(widest + 1)
    )
    whole = [0]
    for width in sorted(widths):
        whole.append(whole[-1] + width)
    return sum(left * cores for left, cores in with_free.items()), groups, tuple(whole)


def _whole_caches(cell: Cell, free_mask: int) -> tuple[Kind, ...]:
    """Return the last-level caches all of whose CPUs are free; their cores stand together in `cell.cores`."""
    caches: dict[int, list[int] | None] = {}
    for core in cell.cores:
        widths = caches.setdefault(core.last_level_cache, [])
        if widths is not None and core.threads & free_mask == core.threads:
            widths.append(core.width)
        else:
            caches[core.last_level_cache] = None
    return tuple(sorted(tuple(sorted(widths)) for widths in caches.values() if widths))


def _memory_left(cell: Cell, use: CellUse) -> Memory:
    taken = use.memory or {}
    left = {size: amount - taken.get(size, 0) for size, amount in cell.memory.items()}
    return tuple(sorted(left.items()))
