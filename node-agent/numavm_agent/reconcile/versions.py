"""What a claim asks that this host's QEMU is too old for. Pure.

libvirt 9.0, the oldest that NumaVM runs on, renders all of it; what QEMU then does not do it does not say either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_api.cpu import BindingMode
from numavm_api.placement import Placement

_PREFERRED_MANY: Final = (8, 0)
"""QEMU 8.0: "hostmem: Honor multiple preferred nodes if possible"; before, the kernel is told the first one only."""


def too_old(placement: Placement, qemu_version: str) -> Iterator[str]:
    """Yield what this QEMU cannot do, as field, value, limit and remedy.

    Args:
        placement: The claim.
        qemu_version: `7.2.22`; empty: nobody knows yet.
    """
    if not qemu_version or _version(qemu_version) >= _PREFERRED_MANY:
        return
    for cell in placement.cells:
        if cell.mode is BindingMode.PREFERRED and len(cell.host_cells) > 1:
            yield (
                f"placement.cells[{cell.id}] is bound Preferred to the host cells {cell.host_cells}, but QEMU "
                f"{qemu_version} here prefers the first of them only, 8.0 and newer all: bind it to one, or use mode "
                "Interleave"
            )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
