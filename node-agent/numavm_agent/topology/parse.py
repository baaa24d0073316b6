"""The texts of sysfs, understood. Pure.

Formats: Documentation/ABI/stable/sysfs-devices-node and sysfs-devices-system-cpu of the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from numavm_agent.topology.readings import MemoryReading, TopologyError
from numavm_api.numahost import CellDistance
from numavm_api.quantity import KIBIBYTE, Bytes

_MEMINFO_LINE: Final = re.compile(r"Node\s+\d+\s+(?P<key>[^:]+):\s+(?P<value>\d+)(?P<unit> kB)?")
_PAGE_DIRECTORY: Final = re.compile(r"hugepages-(?P<kib>\d+)kB")
DATA_CACHES: Final = frozenset({"Data", "Unified"})


def parse_node_meminfo(text: str) -> dict[str, int]:
    """Return `nodeN/meminfo` as key -> bytes (page counts of huge pages stay counts)."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        match = _MEMINFO_LINE.match(line)
        if match:
            found[match["key"]] = int(match["value"]) * (KIBIBYTE if match["unit"] else 1)
    return found


def memory_reading(text: str, *, source: str) -> MemoryReading:
    """Return what `nodeN/meminfo` says of a cell's memory; `source` names it in errors.

    What the page cache holds counts as reclaimable, and half of the reclaimable slab, as the
    kernel's own MemAvailable has it (si_mem_available() in mm/page_alloc.c).

    Raises:
        TopologyError: a line is missing.
    """
    found = parse_node_meminfo(text)
    try:
        cache = found["Active(file)"] + found["Inactive(file)"]
        slab = found.get("SReclaimable", 0) // 2
        return MemoryReading(
            total=Bytes(found["MemTotal"]),
            free=Bytes(found["MemFree"]),
            reclaimable=Bytes(cache + slab),
        )
    except KeyError as error:
        raise TopologyError(f"{source}: has no line {error}") from error


def parse_distances(
    text: str, online_cells: Sequence[int], *, source: str
) -> tuple[CellDistance, ...]:
    """Return `nodeN/distance`: one number per online cell, in the order of their numbers.

    Raises:
        TopologyError: there are more or fewer numbers than cells.
    """
    values = text.split()
    if len(values) != len(online_cells):
        raise TopologyError(
            f"{source}: {len(values)} distances for {len(online_cells)} online cells"
        )
    return tuple(
        CellDistance(cell=cell, value=int(value))
        for cell, value in zip(online_cells, values, strict=True)
    )


def page_size_of(directory: str) -> Bytes | None:
    """Return the page size that `hugepages-2048kB` stands for; None: another kind of name."""
    match = _PAGE_DIRECTORY.fullmatch(directory)
    return Bytes(int(match["kib"]) * KIBIBYTE) if match else None
