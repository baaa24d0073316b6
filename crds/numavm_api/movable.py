"""Whether a running VM's memory can be moved between host cells, as far as its spec tells. Pure."""

from __future__ import annotations

from typing import Final

from numavm_api.backing import BackingSource
from numavm_api.effective import effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import BASE_PAGE

_STRAYS: Final = (
    "memfd memory in 4 KiB pages keeps its first policy: pages first touched after the move may come from any host cell, "
    "and are moved within seconds"
)
"""The kernel rebinds policies of anonymous memory when cpuset.mems changes, and not those of a file's (measured)."""


def why_unmovable(spec: NumaVMSpec) -> str | None:
    """Return why the memory of a domain built from `spec` cannot be moved while it runs; None: it can.

    Moves of files in base pages have not been tried: their pages may be dirty, and on their way to a disk.
    """
    if spec.domain.devices.memory:
        return "memory modules are plugged into it, and only boot memory can be moved"
    if _in_base_pages_of(spec, BackingSource.FILE):
        return (
            "its memory lies in a file in 4 KiB pages, and moves of such are not proven: "
            "use huge pages, or spec.domain.memory.backing.source Memfd or Anonymous"
        )
    return None


def what_strays(spec: NumaVMSpec) -> str | None:
    """Return what is to be known of memory that a moved domain touches afterwards; None: it comes from the right cells."""
    return _STRAYS if _in_base_pages_of(spec, BackingSource.MEMFD) else None


def _in_base_pages_of(spec: NumaVMSpec, source: BackingSource) -> bool:
    vm = effective(spec)
    return vm.backing.source is source and any(cell.page_size == BASE_PAGE for cell in vm.cells)
