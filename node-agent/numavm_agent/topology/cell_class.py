"""What kind of memory a host cell has, by HMAT, else by the kernel's memory tiers. The judgement is pure.

A cell with CPUs is DRAM: it is what the others are held against. A cell without CPUs is held against the cells that
access it best, by bandwidth where HMAT has it, for HBM beats DRAM in that alone; else by latency. Without HMAT the
kernel's tiers tell: it puts memory that a driver plugs in (CXL, persistent memory) below DRAM
(Documentation/ABI/testing/sysfs-kernel-mm-memory-tiers; mm/memory-tiers.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from numavm_agent.topology.readings import CellReading
from numavm_agent.topology.sysfs import KernelFiles
from numavm_api.hmat import HostCellClass

_TIERS: Final = "sys/devices/virtual/memory_tiering"
_TIER: Final = re.compile(r"memory_tier(?P<number>\d+)")


def read_tiers(files: KernelFiles) -> dict[int, int]:
    """Return host cell -> its memory tier; of a kernel without tiers, nothing."""
    found: dict[int, int] = {}
    for name in files.names(_TIERS):
        match = _TIER.fullmatch(name)
        if match is not None:
            cells = files.cpuset(f"{_TIERS}/{name}/nodelist")
            found.update(dict.fromkeys(cells, int(match["number"])))
    return found


def classes_of(cells: Sequence[CellReading]) -> dict[int, HostCellClass]:
    """Return host cell -> class; a cell without CPUs of which the kernel says nothing is left out."""
    by_id = {cell.id: cell for cell in cells}
    found = {cell.id: _class_of(cell, by_id) for cell in cells}
    return {cell: kind for cell, kind in found.items() if kind is not None}


def _class_of(cell: CellReading, cells: Mapping[int, CellReading]) -> HostCellClass | None:
    if cell.cpus:
        return HostCellClass.DRAM
    return _by_figures(cell, cells) or _by_tier(cell, cells.values())


def _by_figures(cell: CellReading, cells: Mapping[int, CellReading]) -> HostCellClass | None:
    """Hold a cell's figures against what the cells that access it best have of their own."""
    own = cell.figures
    if own is None:
        return None
    near = [cells[one].figures for one in own.initiators if one in cells]
    bandwidth = max((one.read_bytes_per_second or 0 for one in near if one is not None), default=0)
    if own.read_bytes_per_second and bandwidth:
        return _compared(own.read_bytes_per_second - bandwidth)
    latencies = [
        one.read_latency_nanoseconds
        for one in near
        if one is not None and one.read_latency_nanoseconds
    ]
    if own.read_latency_nanoseconds and latencies:
        slower = own.read_latency_nanoseconds > min(latencies)
        return HostCellClass.CXL if slower else HostCellClass.DRAM
    return None


def _by_tier(cell: CellReading, cells: Iterable[CellReading]) -> HostCellClass | None:
    """Hold a cell's tier against the fastest of those with CPUs; the same one only says that nobody knows better."""
    with_cpus = [one.tier for one in cells if one.cpus and one.tier is not None]
    if cell.tier is None or not with_cpus or cell.tier == min(with_cpus):
        return None
    return _compared(min(with_cpus) - cell.tier)


def _compared(faster_by: int) -> HostCellClass:
    if faster_by == 0:
        return HostCellClass.DRAM
    return HostCellClass.HBM if faster_by > 0 else HostCellClass.CXL
