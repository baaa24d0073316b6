"""`spec.domain.memory`: how much memory the guest has and what backs it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from numavm_api.balloon import Balloon
from numavm_api.base import SpecModel
from numavm_api.cpu import HugePages
from numavm_api.modules import MAX_SLOTS
from numavm_api.quantity import Quantity


class BackingSource(StrEnum):
    """What QEMU takes guest memory from (libvirt's `<source type=>`)."""

    ANONYMOUS = "Anonymous"
    MEMFD = "Memfd"


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
    """Anonymous or Memfd. Default: Memfd with huge pages or shared access, else Anonymous."""
    access: MemoryAccess = MemoryAccess.PRIVATE
    """Shared needs Memfd."""
    allocation: Allocation = Allocation.IMMEDIATE
    """Immediate: all pages are taken at start, so that what is promised is there. OnDemand is refused with huge pages."""


class Memory(SpecModel):
    """The guest's memory."""

    guest: Quantity | None = None
    """Memory of the whole guest. Left out, or equal to the sum, where `cpu.numa.cells` name theirs."""
    max_guest: Quantity | None = None
    """Ceiling of boot memory and `devices.memory` together. Left out: nothing can be plugged in."""
    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)] | None = None
    """How many memory modules the guest can have; virtio-mem and virtio-pmem count too. Default 16 with maxGuest."""
    balloon: Balloon | None = None
    """The guest's balloon. Left out: it has none. A balloon frees no claim."""
    hugepages: HugePages | None = None
    """Huge pages for every cell that does not name its own. NUMA does not need huge pages."""
    backing: Backing = Backing()
    """What backs the memory."""
