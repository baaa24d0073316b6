"""Whether a running VM's memory can be moved between host cells, as far as its spec tells. Pure."""

from __future__ import annotations

from numavm_api.backing import BackingSource
from numavm_api.effective import effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import BASE_PAGE


def why_unmovable(spec: NumaVMSpec) -> str | None:
    """Return why the memory of a domain built from `spec` cannot be moved while it runs; None: it can.

    Moves of memfd memory in base pages have been seen not to end (measured on emulated NUMA hosts).
    """
    if spec.domain.devices.memory:
        return "memory modules are plugged into it, and only boot memory can be moved"
    vm = effective(spec)
    in_base_pages = any(cell.page_size == BASE_PAGE for cell in vm.cells)
    if in_base_pages and vm.backing.source is not BackingSource.ANONYMOUS:
        return (
            f"its memory lies in a {vm.backing.source} in 4 KiB pages, and a move of such has not been seen to end: "
            "use huge pages or spec.domain.memory.backing.source Anonymous"
        )
    return None
