"""`spec.domain.memory`: how much memory the guest has and what backs it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from numavm_api.backing import Allocation, Backing, BackingSource, MemoryAccess, Switch
from numavm_api.balloon import Balloon
from numavm_api.base import SpecModel
from numavm_api.cpu import HugePages
from numavm_api.modules import MAX_SLOTS
from numavm_api.quantity import Quantity

__all__ = ["Allocation", "Backing", "BackingSource", "Memory", "MemoryAccess", "Switch"]


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
