"""What ACPI's HMAT says of guest memory: latencies, bandwidths, and caches in front of it.

Limits from outside: QEMU's parse_numa_hmat_lb() and parse_numa_hmat_cache() in hw/core/numa.c, and libvirt's
virDomainNumaDefValidate().
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from numavm_api.base import SpecModel
from numavm_api.limits import CellId
from numavm_api.quantity import Quantity

MAX_CACHE_LEVEL: Final = 3
MAX_LATENCY: Final = 65534
"""The table holds 16 bits, of which 0xffff means unreachable."""
MAX_INTERCONNECTS: Final = 512
"""Reads and writes between every pair of 16 cells."""

CacheLevel = Annotated[int, Field(ge=1, le=MAX_CACHE_LEVEL)]


class AccessType(StrEnum):
    """Which accesses a figure is for."""

    ACCESS = "Access"
    READ = "Read"
    WRITE = "Write"


class HostCellClass(StrEnum):
    """What kind of memory a host cell has."""

    DRAM = "DRAM"
    HBM = "HBM"
    CXL = "CXL"


class CacheAssociativity(StrEnum):
    """How a memory-side cache finds its lines."""

    NONE = "None"
    DIRECT = "Direct"
    FULL = "Full"


class CachePolicy(StrEnum):
    """When a memory-side cache writes back."""

    NONE = "None"
    WRITEBACK = "Writeback"
    WRITETHROUGH = "Writethrough"


class MemorySideCache(SpecModel):
    """A cache in front of a cell's memory. Needs a latency and a bandwidth of that cell."""

    level: CacheLevel
    """1 is nearest to the memory; levels run from 1 without gaps, each larger than the one before."""
    associativity: CacheAssociativity = CacheAssociativity.DIRECT
    """None, Direct or Full."""
    policy: CachePolicy = CachePolicy.WRITEBACK
    """None, Writeback or Writethrough."""
    size: Quantity
    """Size of the cache, in whole KiB."""
    line_bytes: Annotated[int, Field(ge=1, le=65535)]
    """Size of a line."""


class Latency(SpecModel):
    """How long an access takes."""

    initiator: CellId
    """The cell whose CPUs access; it has CPUs."""
    target: CellId
    """The cell whose memory is accessed."""
    cache_level: CacheLevel | None = None
    """The memory-side cache of the target that answers; left out: the memory itself."""
    type: AccessType
    """Access (both), Read or Write."""
    latency_nanoseconds: Annotated[int, Field(ge=1, le=MAX_LATENCY)]
    """Nanoseconds, at most 65534."""


class Bandwidth(SpecModel):
    """How much can be accessed in a second."""

    initiator: CellId
    """The cell whose CPUs access; it has CPUs."""
    target: CellId
    """The cell whose memory is accessed."""
    cache_level: CacheLevel | None = None
    """The memory-side cache of the target that answers; left out: the memory itself."""
    type: AccessType
    """Access (both), Read or Write."""
    bytes_per_second: Quantity
    """For example `100Gi`; a multiple of 1Mi."""


class Interconnects(SpecModel):
    """ACPI's HMAT: what memory costs, seen from each cell with CPUs. QEMU derives each target's initiator from the best figures."""

    latencies: list[Latency] = Field(default=[], max_length=MAX_INTERCONNECTS)
    """Latencies, each combination of initiator, target, cacheLevel and type once."""
    bandwidths: list[Bandwidth] = Field(default=[], max_length=MAX_INTERCONNECTS)
    """Bandwidths, each combination of initiator, target, cacheLevel and type once."""
