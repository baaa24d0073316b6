"""One host with everything that is held there: immutable, and cheap to step from one claim to the next.

Held is a union, not a sum. The same claim may be known from `status.placement` and from the host's report; a VM
under change holds `placement` and `placement.previous`. Per VM, CPUs unite and of two bookings of the same pool
the larger counts, since one domain holds them. Between VMs, memory and floating vCPUs add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from numavm_api.placement import CpuPlacement, Placement
from numavm_api.quantity import Bytes, pages_of
from numavm_operator.placement.bits import mask_of
from numavm_operator.placement.devices import HostDevice, free_devices
from numavm_operator.placement.free import CellUse, FreeCell, free_cell
from numavm_operator.placement.host import Cell, FitKey, Host


class VMUse(NamedTuple):
    """What one VM holds on a host."""

    cpus: int
    """Mask of dedicated CPUs."""
    memory: Mapping[int, Mapping[Bytes, int]]
    """Bytes per page size, by id of the host cell."""
    floating: Mapping[int, int]
    """vCPUs over shared CPUs, per id of the host cell."""
    emulator_floats_over: frozenset[int]
    """Ids of the host cells over whose CPUs its emulator floats; empty: it has a CPU of its own."""
    devices: frozenset[str]
    """PCI addresses."""


def use_of(claims: Iterable[Placement], host: Host) -> VMUse:
    """Return what the claims of one VM hold together."""
    cpus = 0
    memory: dict[int, dict[Bytes, int]] = {}
    floating: dict[int, int] = {}
    over: set[int] = set()
    devices: set[str] = set()
    for claim in claims:
        cpus |= mask_of(claim.dedicated_cpus) | mask_of(claim.emulator_cpus)
        for (cell, page_size), amount in claim.memory_by_host_cell().items():
            here = memory.setdefault(cell, {})
            here[page_size] = max(here.get(page_size, 0), pages_of(amount, page_size) * page_size)
        for cell, vcpus in floating_of(claim, host).items():
            floating[cell] = max(floating.get(cell, 0), vcpus)
        if not claim.emulator_cpus:
            over |= claim.host_cells.members
        devices |= {device.address for device in claim.devices}
    return VMUse(cpus, memory, floating, frozenset(over), frozenset(devices))


def floating_of(claim: Placement, host: Host) -> dict[int, int]:
    """Return how many shared vCPUs count on each host cell.

    Of a guest cell on several these are equal shares, rounded up, on those that have CPUs.
    """
    floating: dict[int, int] = {}
    if claim.cpu_placement is not CpuPlacement.SHARED:
        return floating
    for cell in claim.cells:
        vcpus = cell.room
        over = [one.id for one in host.cells if one.id in cell.host_cells and one.online]
        share = -(-len(vcpus) // max(len(over), 1))
        for host_cell in over:
            floating[host_cell] = floating.get(host_cell, 0) + share
    return floating


@dataclass(frozen=True)
class HostState:
    """A host and what is left of it."""

    host: Host
    claims: Mapping[str, tuple[Placement, ...]]
    """By uid."""
    uses: Mapping[str, VMUse]
    cells: tuple[FreeCell, ...]
    """In the order of `host.cells`."""
    watched: tuple[int, ...]
    """Sets of host cells (masks of indices, two cells or more) over whose free CPUs alone some emulator floats."""
    alone: frozenset[int]
    """Single cells (masks) of the same kind: there one CPU stays free."""

    @classmethod
    def of(cls, host: Host, claims: Mapping[str, tuple[Placement, ...]]) -> HostState:
        """Return the state of a host under the given claims."""
        uses = {uid: use_of(placements, host) for uid, placements in claims.items()}
        return cls._made(host, claims, uses, None, ())

    def with_claims(self, uid: str, placements: tuple[Placement, ...]) -> HostState:
        """Return the state in which `uid` holds just these placements; none: it holds nothing."""
        claims = {**self.claims, uid: placements}
        uses = {**self.uses, uid: use_of(placements, self.host)}
        if not placements:
            del claims[uid], uses[uid]
        changed = [use for use in (self.uses.get(uid), uses.get(uid)) if use]
        return self._made(self.host, claims, uses, self, changed)

    @cached_property
    def held_cpus(self) -> int:
        """Mask of every dedicated CPU that is held."""
        return _held(self.uses)

    @cached_property
    def devices(self) -> tuple[HostDevice, ...]:
        """The host devices that nobody holds."""
        held = {address for use in self.uses.values() for address in use.devices}
        return free_devices(self.host.devices, held)

    def fit_key(self, *, cores: bool, devices: bool, single_cpus: bool, classes: bool) -> FitKey:
        """Return what the search looks at: states of equal keys get equal answers.

        Args:
            cores: For VMs that take CPUs by cores or caches.
            devices: For VMs that ask for host devices.
            single_cpus: For VMs whose user had a hand in which CPUs these are.
            classes: For VMs that ask for a class of host cells.
        """
        if not (cores or devices or single_cpus or classes):
            return self._counts
        left = tuple(cell.cores for cell in self.cells) if cores else ()
        cpus = (tuple(map(_names, self.host.cells)), self.held_cpus) if single_cpus else ()
        near = (self.devices, tuple(cell.sockets for cell in self.host.cells)) if devices else ()
        kinds = tuple(cell.memory_class for cell in self.host.cells) if classes else ()
        return FitKey.of((self._counts, left, cpus, near, kinds))

    @cached_property
    def takeable_rising(self) -> tuple[int, ...]:
        """How many CPUs a new VM may take in each cell, the least first."""
        return tuple(sorted([cell.takeable for cell in self.cells]))

    @cached_property
    def mean_free(self) -> float:
        """Free CPUs per cell."""
        return sum([cell.free for cell in self.cells]) / max(len(self.cells), 1)

    @cached_property
    def most_free(self) -> int:
        """Free CPUs of the cell that has most."""
        return max([cell.free for cell in self.cells], default=0)

    @cached_property
    def _counts(self) -> FitKey:
        counts = tuple([cell.counts for cell in self.cells])
        return FitKey.of((self.host.layout, counts, self.watched))

    @classmethod
    def _made(
        cls,
        host: Host,
        claims: Mapping[str, tuple[Placement, ...]],
        uses: Mapping[str, VMUse],
        before: HostState | None,
        changed: Sequence[VMUse],
    ) -> HostState:
        """Return the state under `uses`; of `before`, cells are kept that nothing `changed` touches."""
        held = _held(uses)
        watched = _watched(host, uses, held)
        alone = frozenset([mask for mask in watched if mask.bit_count() == 1])
        kept = before.cells if before is not None and before.alone == alone else ()
        free = _devices_by_cell(host, uses)
        touched = _Touched.by(changed)
        cells: list[FreeCell] = []
        for index, cell in enumerate(host.cells):
            devices = free.get(cell.id, 0) if free else 0
            if kept and kept[index].devices == devices and not touched.holds(cell):
                cells.append(kept[index])
            else:
                keep_one = (1 << index) in alone
                use = _cell_use(cell, uses.values(), held)
                cells.append(free_cell(host, cell, use, keep_one=keep_one, devices=devices))
        return cls(host, claims, uses, tuple(cells), tuple(sorted(watched - alone)), alone)


def _held(uses: Mapping[str, VMUse]) -> int:
    held = 0
    for use in uses.values():
        held |= use.cpus
    return held


class _Touched(NamedTuple):
    """What a step changes on a host."""

    cpus: int
    ids: frozenset[int]
    """Of host cells whose memory or shared CPUs it changes."""

    @classmethod
    def by(cls, changed: Iterable[VMUse]) -> _Touched:
        """Return what VMs touch whose use comes or goes."""
        cpus, ids = 0, set[int]()
        for use in changed:
            cpus |= use.cpus
            ids.update(use.floating, use.memory)
        return cls(cpus, frozenset(ids))

    def holds(self, cell: Cell) -> bool:
        """Tell whether a cell is touched."""
        return cell.id in self.ids or bool(self.cpus & cell.online)


def _names(cell: Cell) -> tuple[object, ...]:
    """Return what tells a cell's CPUs apart."""
    return (cell.cores, cell.dedicated, cell.shared, cell.housekeeping)


def _devices_by_cell(host: Host, uses: Mapping[str, VMUse]) -> dict[int, int]:
    """Return how many devices are free in each cell, by its id."""
    counts: dict[int, int] = {}
    if host.devices:
        held = {address for use in uses.values() for address in use.devices}
        for device in free_devices(host.devices, held):
            counts[device.host_cell] = counts.get(device.host_cell, 0) + 1
    return counts


def _cell_use(cell: Cell, uses: Iterable[VMUse], held: int) -> CellUse:
    floating = 0
    memory: dict[Bytes, int] = {}
    for use in uses:
        floating += use.floating.get(cell.id, 0) if use.floating else 0
        here = use.memory.get(cell.id)
        if here is not None:
            for size, taken in here.items():
                memory[size] = memory.get(size, 0) + taken
    return CellUse(held & cell.online, floating, memory)


def _watched(host: Host, uses: Mapping[str, VMUse], held: int) -> set[int]:
    """Return the sets of cells without a refuge over which emulators float, as far as a CPU is free there.

    Where none is free, there is nothing left that a new VM could take away.
    """
    open_ = [cell.refuge & ~held for cell in host.cells]
    if all(open_):
        return set()
    refuge = {cell.id for cell, mask in zip(host.cells, open_, strict=True) if mask}
    over = {use.emulator_floats_over for use in uses.values() if use.emulator_floats_over}
    masks: set[int] = set()
    for ids in over:
        cells = [(at, cell) for at, cell in enumerate(host.cells) if cell.id in ids]
        if not ids & refuge and any(cell.dedicated & ~held for _, cell in cells):
            masks.add(sum(1 << at for at, _ in cells))
    return masks
