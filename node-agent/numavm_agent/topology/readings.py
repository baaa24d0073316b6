"""What was read of the host, before anything is decided about it. Pure values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from numavm_api.cpuset import CpuSet
from numavm_api.errors import HostFaultError
from numavm_api.numahost import CellDistance, HostCell, HostCpu, MemoryFigures, PciDevice
from numavm_api.quantity import Bytes


class TopologyError(HostFaultError):
    """The kernel does not say what must be known; the message names the file."""


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Memory of one host cell, from its `meminfo`."""

    total: Bytes
    free: Bytes
    reclaimable: Bytes
    """Page cache and half of the reclaimable slab: given back when somebody needs it."""


@dataclass(frozen=True, slots=True)
class PagePool:
    """Huge pages of one size on one host cell, in pages."""

    page_size: Bytes
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class CellReading:
    """One host cell."""

    id: int
    cpus: tuple[HostCpu, ...]
    """Its online CPUs; none for a memory-only cell."""
    memory: MemoryReading
    page_pools: tuple[PagePool, ...]
    """By page size."""
    distances: tuple[CellDistance, ...]
    """To every cell, itself included."""
    figures: MemoryFigures | None = None
    """What HMAT says of its memory; None: the host has none."""
    tier: int | None = None
    """The kernel's memory tier, a lower number for faster memory; None: the kernel tells of none."""


@dataclass(frozen=True, slots=True)
class HostTopology:
    """The host."""

    boot_id: str
    cells: tuple[CellReading, ...]
    """By id."""
    offline_cpus: CpuSet
    pci_devices: tuple[PciDevice, ...]
    """By address."""

    def cell_cpus(self) -> dict[int, CpuSet]:
        """Return the online CPUs of each host cell."""
        return {cell.id: CpuSet(frozenset(cpu.id for cpu in cell.cpus)) for cell in self.cells}


def cell_distances(cells: Iterable[HostCell]) -> dict[int, dict[int, int]]:
    """Return host cell -> other host cell -> distance, of a NumaHost's report."""
    return {cell.id: {one.cell: one.value for one in cell.distances} for cell in cells}


def cell_figures(cells: Iterable[HostCell]) -> dict[int, MemoryFigures]:
    """Return what the host's HMAT says of each cell's memory, of a NumaHost's report; cells without are left out."""
    return {cell.id: cell.figures for cell in cells if cell.figures is not None}


def cell_cpus(cells: Iterable[HostCell]) -> dict[int, CpuSet]:
    """Return the online CPUs of each host cell of a NumaHost's report."""
    return {cell.id: CpuSet(frozenset(cpu.id for cpu in cell.cpus)) for cell in cells}
