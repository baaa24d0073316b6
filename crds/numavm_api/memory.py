"""`spec.domain.memory`: how much memory the guest has and what backs it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from numavm_api.backing import Allocation, Backing, BackingSource, MemoryAccess, Switch
from numavm_api.balloon import Balloon
from numavm_api.base import SpecModel
from numavm_api.cpu import HugePages
from numavm_api.modules import MAX_SLOTS
from numavm_api.quantity import Quantity

__all__ = ["Allocation", "Backing", "BackingSource", "Memory", "MemoryAccess", "Switch"]


class HotplugMethod(StrEnum):
    """What NumaVM plugs in where boot memory is raised on a running VM."""

    DIMM = "DIMM"
    """A DIMM: every guest knows it, and gives it back as a whole."""
    VIRTIO_MEM = "VirtioMem"
    """A virtio-mem device: the guest needs its driver, and gives back any part of it."""


class MemoryHotplug(SpecModel):
    """How memory is added to the running guest."""

    method: HotplugMethod = HotplugMethod.DIMM
    """What is plugged in where `memory.guest`, or the memory of a cell, is raised on a running VM: DIMM (default) or VirtioMem."""


class Memory(SpecModel):
    """The guest's memory."""

    guest: Quantity | None = None
    """Memory of the whole guest. Left out, or equal to the sum, where `cpu.numa.cells` name theirs."""
    max_guest: Quantity | None = None
    """Ceiling of boot memory and `devices.memory` together. Left out: nothing can be plugged in."""
    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)] | None = None
    """How many memory modules the guest can have; virtio-mem and virtio-pmem count too. Default 16 with maxGuest."""
    hotplug: MemoryHotplug | None = None
    """How memory is added to the running VM where `guest`, or the memory of a cell, is raised. Left out: by DIMMs."""
    balloon: Balloon | None = None
    """The guest's balloon. Left out: it has none. A balloon frees no claim."""
    hugepages: HugePages | None = None
    """Huge pages for every cell that does not name its own. NUMA does not need huge pages."""
    backing: Backing = Backing()
    """What backs the memory."""
