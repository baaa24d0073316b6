"""What was read of the host, before anything is decided about it. Pure values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from numavm_api.cpuset import CpuSet
from numavm_api.errors import HostFaultError
from numavm_api.numahost import CellDistance, HostCell, HostCpu, PciDevice
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


def cell_cpus(cells: Iterable[HostCell]) -> dict[int, CpuSet]:
    """Return the online CPUs of each host cell of a NumaHost's report."""
    return {cell.id: CpuSet(frozenset(cpu.id for cpu in cell.cpus)) for cell in cells}
