"""QEMU's monitor, for what libvirt has no call: at which address of QEMU a guest cell's memory is.

`gpa2hva` answers "Host virtual address for 0x0 (ram-node0) is 0x7f..." (QEMU, monitor/misc.c); the name in brackets is
libvirt's for the cell's memory backend. Guest memory is one run of cells in their order, cut where the machine leaves a
hole for devices below 4 GiB (hw/i386/pc_q35.c, pc_piix.c: `below_4g_mem_size`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from numavm_api.quantity import GIBIBYTE, MEBIBYTE, Bytes

_ANSWER: Final = re.compile(r"\((?P<name>[^)]+)\) is (?P<address>0x[0-9a-f]+)")
_BALLOON: Final = re.compile(r"balloon: actual=(?P<mebibytes>\d+)")
_FOUR_GIB: Final = 4 * GIBIBYTE
_LOW_ENDS: Final = (0x8000_0000, 0xB000_0000, 0xC000_0000, 0xE000_0000)
"""Where memory below 4 GiB may end."""


def cell_addresses(ask: Callable[[str], str], sizes: Mapping[int, Bytes]) -> dict[int, int]:
    """Return guest cell -> an address of the QEMU process within that cell's memory; cells not found are left out.

    Args:
        ask: Runs a command of QEMU's human monitor.
        sizes: Boot memory of each guest cell.
    """
    found: dict[int, int] = {}
    start = 0
    for cell, size in sorted(sizes.items()):
        middle = start + size // 2
        for guest_address in _places(middle):
            answer = _ANSWER.search(ask(f"gpa2hva {guest_address:#x}"))
            if answer is not None and answer["name"] == f"ram-node{cell}":
                found[cell] = int(answer["address"], 16)
                break
        start += size
    return found


def balloon_size(answer: str) -> Bytes | None:
    """Return the size that QEMU names (`balloon: actual=384`, in MiB); None: it names none."""
    found = _BALLOON.search(answer)
    return Bytes(int(found["mebibytes"]) * MEBIBYTE) if found else None


def _places(offset: int) -> Iterator[int]:
    """Yield the guest addresses at which an offset into all memory may be."""
    yield offset
    for end in _LOW_ENDS:
        if offset >= end:
            yield offset - end + _FOUR_GIB
