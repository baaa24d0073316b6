"""What one plain VM asks of a host, as the values that the search works with (`demands` makes them)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.hmat import HostCellClass
from numavm_api.host_devices import NumaAffinity
from numavm_api.quantity import BASE_PAGE, Bytes


class CpuRule(StrEnum):
    """What a guest cell's vCPUs take of a host cell."""

    FLOAT = "Float"
    """Room among the shared CPUs; a unit is a vCPU."""
    ANYWHERE = "Anywhere"
    """A CPU each; a unit is a vCPU."""
    SIBLINGS = "Siblings"
    """A unit is a group of vCPUs that sit on threads of one core; leftover vCPUs are singles."""
    WHOLE_CORES = "WholeCores"
    """A unit is a vCPU and takes a whole core."""


@dataclass(frozen=True, slots=True)
class DeviceNeed:
    """One host device that the VM must have; which guest cell it belongs to says where this stands."""

    addresses: frozenset[str]
    selector: tuple[str, str] | None
    affinity: NumaAffinity
    """`PREFERRED` is no rule and does not occur here: `alternatives` makes it Required or None."""
    guest_cell: int | None
    """Position of the guest cell; None: any will do."""


@dataclass(frozen=True, slots=True)
class ModuleNeed:
    """A memory module on host cells of its own."""

    guest_cell: int
    """Position of the guest cell."""
    host_cells: CpuSet
    mode: BindingMode
    memory: Bytes
    """Whole pages."""
    page_size: Bytes


class CellNeed(NamedTuple):
    """What one guest cell asks for. Cells with equal needs are interchangeable to the search."""

    units: int
    """In the sense of the request's `CpuRule`."""
    singles: int
    """vCPUs beside the groups; only with `SIBLINGS`."""
    vcpus: int
    memory: Bytes
    """Whole pages."""
    page_size: Bytes
    mode: BindingMode
    host_cells: CpuSet | None
    """The nodeset the user bound it to; None: the search chooses one host cell."""
    among: CpuSet | None = None
    """Host cells one of which is to be chosen; None: any."""
    cell_class: HostCellClass | None = None
    """Class that its host cells must have; None: any, for an open cell with CPUs."""
    without_cpus: bool = False
    """Host cells of its class that have no CPUs will do."""
    pins: tuple[int | None, ...] = ()
    """Per vCPU that needs a CPU the mask of those that the user allows, None: any; empty: no hand in any."""
    beside: tuple[tuple[Bytes, Bytes], ...] = ()
    """(page size, memory) of modules in pages of their own, on the cell's host cells."""
    devices: tuple[DeviceNeed, ...] = ()
    """Devices that belong to this cell and have to be near it."""


@dataclass(frozen=True, slots=True)
class CellDemand:
    """What a guest cell, with or without the emulator, wants of one host cell that has nothing else to bear."""

    rule: CpuRule
    group_size: int
    units: int
    singles: int
    emulators: int
    memory: tuple[tuple[Bytes, int], ...]
    least: int
    """CPUs that it takes at least: what is quickest to look at."""
    least_will_do: bool
    """So many CPUs are all it takes, whichever they are."""
    whole_caches: bool


@dataclass(frozen=True)
class Shape:
    """Everything of a plain VM that decides where it fits on a host that suits it."""

    cells: tuple[CellNeed, ...]
    rule: CpuRule
    group_size: int
    """Threads per unit with `SIBLINGS`, else 1."""
    emulators: int
    """pCPUs (with Isolate: cores) for emulator threads: 0 or 1."""
    overhead: Bytes
    declared: bool
    """False: the one cell may span host cells."""
    sharing: bool
    """True: guest cells may share a host cell."""
    vcpus: int
    io_threads: int = 0
    """pCPUs (with Isolate: cores) for I/O threads, on any host cells of the VM."""
    whole_caches: bool = False
    """True: last-level caches are taken whole."""
    devices: tuple[DeviceNeed, ...] = ()
    modules: tuple[ModuleNeed, ...] = ()
    """On host cells of their own."""
    emulator_pins: int | None = None
    """Mask of CPUs that the user allows the emulator."""
    io_pins: tuple[int | None, ...] = ()
    """Per I/O thread the mask of CPUs that the user allows it, None: any; empty: no hand in any."""

    @cached_property
    def bound(self) -> bool:
        """Whether the user bound any cell to host cells."""
        return any(cell.host_cells is not None for cell in self.cells)

    @cached_property
    def classed(self) -> bool:
        """Whether any guest cell asks for a class of host cells."""
        return any(cell.cell_class is not None for cell in self.cells)

    @cached_property
    def by_cores(self) -> bool:
        """Whether it counts which cores and caches CPUs are on, and not only how many are free."""
        return self.whole_caches or self.rule in {CpuRule.SIBLINGS, CpuRule.WHOLE_CORES}

    @cached_property
    def by_hand(self) -> bool:
        """Whether the user had a hand in which CPUs these are."""
        if self.emulator_pins is not None or self.io_pins:
            return True
        return any(cell.pins for cell in self.cells)

    @cached_property
    def counts_only(self) -> bool:
        """Whether the counts of `FreeCell` say it all: no CPU, device or host cell is asked for by name."""
        named = self.classed or any(cell.among is not None for cell in self.cells)
        named = named or bool(self.modules)
        return not (named or self.devices or self.by_hand or self.io_threads)

    @cached_property
    def open_cells(self) -> tuple[int, ...]:
        """Guest cells whose host cell the search chooses: equal ones together, the most demanding first."""
        free = [at for at, cell in enumerate(self.cells) if cell.host_cells is None]
        kinds = {cell: at for at, cell in reversed(tuple(enumerate(self.cells)))}
        return tuple(sorted(free, key=lambda at: (*_greed(self.cells[at]), kinds[self.cells[at]])))

    @cached_property
    def same_as_before(self) -> tuple[bool, ...]:
        """Per open cell: it asks for the same as the one before it."""
        cells = [self.cells[at] for at in self.open_cells]
        return tuple(at > 0 and cells[at - 1] == cell for at, cell in enumerate(cells))

    @cached_property
    def demands(self) -> tuple[tuple[CellDemand, CellDemand], ...]:
        """Per guest cell: its demand on one host cell, and that with emulator and overhead on top."""
        return tuple(self.demands_of(cell) for cell in self.cells)

    def demands_of(self, need: CellNeed) -> tuple[CellDemand, CellDemand]:
        """Return a need as a demand on one host cell, and with emulator and overhead on top."""
        own = {need.page_size: int(need.memory)}
        for size, amount in need.beside:
            own[size] = own.get(size, 0) + amount
        full = own | {BASE_PAGE: own.get(BASE_PAGE, 0) + self.overhead}
        bare = self._demand(need, own, 0)
        return bare, self._demand(need, full, self.emulators)

    def _demand(self, need: CellNeed, memory: dict[Bytes, int], emulators: int) -> CellDemand:
        floats = self.rule is CpuRule.FLOAT
        return CellDemand(
            rule=self.rule,
            group_size=self.group_size,
            units=need.units,
            singles=need.singles,
            emulators=emulators,
            memory=tuple(sorted(memory.items())),
            least=0 if floats else need.units * self.group_size + need.singles + emulators,
            least_will_do=self.rule is CpuRule.ANYWHERE and not self.whole_caches,
            whole_caches=self.whole_caches,
        )


def _greed(need: CellNeed) -> tuple[int, int, int, str]:
    """Return a key by which the most demanding needs come first."""
    return (-need.vcpus, -need.memory, need.page_size, need.mode)
