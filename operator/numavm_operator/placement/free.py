"""What is left of one host cell, reduced to the counts that the search asks for.

Two cells with equal counts are equal to the search, whatever the numbers of their CPUs; for VMs that take CPUs by
cores or caches, two that have equal `cores` beside. Which CPUs in particular a VM gets is decided last, on the one
host that was chosen (`cpus`); the counts here guarantee that such CPUs exist.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from numavm_api.quantity import Bytes
from numavm_operator.placement.caches import cache_sets, cheapest, most_units
from numavm_operator.placement.cores import CoresLeft, cores_left
from numavm_operator.placement.host import Cell, Host
from numavm_operator.placement.shape import CellDemand, CpuRule

PERCENT: Final = 100
_NO_ROOM: Final = -1
"""Not even the singles and the emulator fit."""
Memory = tuple[tuple[Bytes, int], ...]


class CellUse(NamedTuple):
    """What all claims together take of one host cell."""

    held: int = 0
    """Mask of dedicated CPUs."""
    floating: int = 0
    """vCPUs that float over its shared CPUs."""
    memory: Mapping[Bytes, int] | None = None
    """Bytes per page size."""


@dataclass(frozen=True)
class FreeCell:
    """What is left of one host cell; equal to another of equal counts."""

    has_cpus: bool
    free: int
    """CPUs of the dedicated pool that nobody holds."""
    takeable: int
    """How many of them a new VM may take, so that shared vCPUs keep the share they were promised."""
    shared_room: int
    """vCPUs that may still float here."""
    refuge: bool
    """There are CPUs here for floating emulator threads that no dedicated VM can ever take."""
    memory: Memory
    """Bytes left per page size; negative where too much was promised."""
    devices: int
    """Free host devices here."""
    cell: Cell = field(compare=False, repr=False)
    mask: int = field(compare=False)
    """The CPUs of `free`."""

    @cached_property
    def counts(self) -> tuple[object, ...]:
        """All that VMs see which take CPUs anywhere."""
        return (
            self.has_cpus,
            self.free,
            self.takeable,
            self.shared_room,
            self.refuge,
            self.memory,
            self.devices,
        )

    @cached_property
    def cores(self) -> CoresLeft:
        """What VMs see beside that take CPUs by cores or caches. Counted when the first of them asks."""
        return cores_left(self.cell, self.mask)

    def takes(self, demand: CellDemand) -> bool:
        """Tell whether a demand fits on what is left; nothing else is on the cell."""
        if demand.least > self.takeable:
            return False
        if not demand.least_will_do and demand.units > self._units_beside(demand):
            return False
        for size, amount in demand.memory:  # noqa: SIM110 - the innermost loop of all: no generator
            if amount > self.memory_left(size):
                return False
        return True

    def _units_beside(self, demand: CellDemand) -> int:
        return self.unit_capacity(
            demand.rule,
            demand.group_size,
            demand.singles,
            demand.emulators,
            whole_caches=demand.whole_caches,
        )

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
            sets = cache_sets(self.cores.caches)
            return max(most_units(sets, takeable, rule, size, singles, emulators), _NO_ROOM)
        match rule:
            case CpuRule.FLOAT:
                return max(self.shared_room, 0)
            case CpuRule.ANYWHERE:
                return max(takeable - emulators, _NO_ROOM)
            case CpuRule.SIBLINGS:
                room = min(self.cores.sibling_free - singles, takeable - singles - emulators)
                return _NO_ROOM if room < 0 else min(self.cores.groups_of(size), room // size)
            case CpuRule.WHOLE_CORES:
                cores = bisect_right(self.cores.whole_cores, takeable) - 1
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
            bearing = cheapest(cache_sets(self.cores.caches), rule, size, units, singles, emulators)
            return self.free if bearing is None else bearing.cpus
        match rule:
            case CpuRule.FLOAT:
                return 0
            case CpuRule.ANYWHERE | CpuRule.SIBLINGS:
                return units * size + singles + emulators
            case CpuRule.WHOLE_CORES:
                return self.cores.whole_cores[units + emulators]


def free_cell(host: Host, cell: Cell, use: CellUse, *, keep_one: bool, devices: int) -> FreeCell:
    """Return what `use` leaves of a cell.

    Args:
        host: Whose cell it is: how its CPUs are shared.
        cell: The cell.
        use: What all claims together take of it.
        keep_one: The emulator threads of some VM have nowhere to go but this cell's free CPUs.
        devices: Host devices of the cell that nobody holds.
    """
    follows, allocation = host.shared_follows, host.allocation_percent
    mask = cell.dedicated & ~use.held
    free = mask.bit_count()
    shared = free if follows else (cell.shared & ~use.held).bit_count()
    promised = -(-use.floating * PERCENT // allocation)
    takeable = free - promised if follows else free
    return FreeCell(
        has_cpus=cell.online != 0,
        free=free,
        takeable=max(min(takeable, free - keep_one), 0),
        shared_room=shared * allocation // PERCENT - use.floating,
        refuge=bool(cell.refuge & ~use.held),
        memory=_memory_left(cell, use),
        devices=devices,
        cell=cell,
        mask=mask,
    )


def _memory_left(cell: Cell, use: CellUse) -> Memory:
    taken = use.memory or {}
    left = [(size, amount - taken.get(size, 0)) for size, amount in cell.memory.items()]
    left.sort()
    return tuple(left)
