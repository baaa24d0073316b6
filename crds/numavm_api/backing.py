"""What guest memory is made of: `spec.domain.memory.backing`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from numavm_api.base import SpecModel

MAX_ALLOCATION_THREADS: Final = 64


class Switch(StrEnum):
    """Whether something is done. Not `On` and `Off`: kubectl reads these bare words as booleans (YAML 1.1, measured)."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class BackingSource(StrEnum):
    """What QEMU takes guest memory from (libvirt's `<source type=>`)."""

    ANONYMOUS = "Anonymous"
    MEMFD = "Memfd"
    FILE = "File"


class MemoryAccess(StrEnum):
    """Whether another process may map guest memory (libvirt's `<access mode=>`)."""

    PRIVATE = "Private"
    SHARED = "Shared"


class Allocation(StrEnum):
    """When memory is taken from the host (libvirt's `<allocation mode=>`)."""

    IMMEDIATE = "Immediate"
    ON_DEMAND = "OnDemand"


class Backing(SpecModel):
    """What backs the guest's memory."""

    source: BackingSource | None = None
    """Anonymous, Memfd, or File: a file per cell below libvirt's memory_backing_dir, with huge pages on its hugetlbfs mount. Default: Memfd with huge pages or shared access, else Anonymous."""
    access: MemoryAccess = MemoryAccess.PRIVATE
    """Shared needs Memfd, or File with huge pages. Base pages of a memfd are always shared: a private mapping would take each of them twice."""
    allocation: Allocation = Allocation.IMMEDIATE
    """Immediate: all pages are taken at start, so that what is promised is there. OnDemand is refused with huge pages."""
    allocation_threads: Annotated[int, Field(ge=1, le=MAX_ALLOCATION_THREADS)] | None = None
    """Threads that take the pages of a cell. Default: one per GiB of the guest, at most 8 and at most as many as vCPUs."""
    same_page_merging: Switch = Switch.DISABLED
    """Enabled: KSM may merge equal pages; a merged page lies on whatever host cell it was found first."""
    core_dump: Switch = Switch.ENABLED
    """Disabled: guest memory is left out of QEMU's core dumps."""
    locked: bool = False
    """True: no page is ever swapped out. Needs the host's `permitted.lockedMemory`."""
    discard: Switch = Switch.DISABLED
    """Enabled: what a file holds is thrown away at the end instead of written back. Only for source File."""
