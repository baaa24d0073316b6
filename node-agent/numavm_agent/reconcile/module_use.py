"""Whether a running guest uses the memory that is plugged in, by its own kernel's word. Pure.

That a module is plugged in says nothing of this: memory that nobody brings online is there and not used, after a plug
while the guest boots as well as in guests without udev's rule. Nor does ACPI: Linux 6.1 with `acpi_no_memhotplug`
answers a plug with success (_OST, source 1, status 0: measured), and does not answer at all for a module that it finds
while it boots. What is left is MemTotal, which the balloon's driver tells where it is asked to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from numavm_api.effective_modules import ModuleKind
from numavm_api.quantity import MEBIBYTE, Bytes, format_bytes
from numavm_api.vm_status import BalloonStatus, ModuleStatus

_KEPT_BYTES: Final = 128 * MEBIBYTE
_KEPT_SHARE: Final = 16
"""A kernel keeps so much, and one part in so many of its memory, out of MemTotal (106 MiB of 256 MiB: measured)."""


def unused_modules(
    boot: Bytes, modules: Iterable[ModuleStatus], balloon: BalloonStatus | None
) -> str:
    """Return which modules the guest does not use, in words; nothing where it does, or where that cannot be known.

    It is known where the guest speaks of its memory, and where there is more in modules than any kernel keeps to
    itself: then a guest with no more than it booted with uses none of them.

    Args:
        boot: What it booted with, without modules.
        modules: What is plugged in.
        balloon: What the guest says now.
    """
    if balloon is None or balloon.stale or balloon.available is None:
        return ""
    here = [one for one in modules if _plugged(one)]
    dimms = sum(one.size for one in here if one.model == ModuleKind.DIMM)
    given_back = max(0, boot + dimms - balloon.actual)
    has = Bytes(balloon.available + given_back)
    if sum(map(_plugged, here)) <= _KEPT_BYTES + boot // _KEPT_SHARE or has > boot:
        return ""
    names = ", ".join(one.name for one in here)
    return (
        f"The guest's kernel has {format_bytes(has)}, no more than it booted with: memory modules {names} are plugged"
        " in and not used. Bring them online in the guest (/sys/devices/system/memory/auto_online_blocks)"
    )


def _plugged(module: ModuleStatus) -> Bytes:
    """Return what of a module a kernel would count."""
    match module.model:
        case ModuleKind.DIMM:
            return module.size
        case ModuleKind.VIRTIO_MEM:
            return module.current or Bytes(0)
        case _:
            return Bytes(0)
