"""`spec.domain.memory`: how much memory the guest has and what backs it."""

from __future__ import annotations

from numavm_api.backing import Allocation, Backing, BackingSource, MemoryAccess, Switch
from numavm_api.base import SpecModel
from numavm_api.cpu import HugePages
from numavm_api.quantity import Quantity

__all__ = ["Allocation", "Backing", "BackingSource", "Memory", "MemoryAccess", "Switch"]


class Memory(SpecModel):
    """The guest's memory."""

    guest: Quantity | None = None
    """Memory of the whole guest. Left out, or equal to the sum, where `cpu.numa.cells` name theirs."""
    hugepages: HugePages | None = None
    """Huge pages for every cell that does not name its own. NUMA does not need huge pages."""
    backing: Backing = Backing()
    """What backs the memory."""
