"""Units of libvirt's XML."""

from __future__ import annotations

from numavm_agent.domain.model import CannotRender
from numavm_api.quantity import KIBIBYTE, Bytes


def kib(amount: Bytes) -> int:
    """Return an amount in KiB, the unit libvirt itself prints.

    Raises:
        CannotRender: it is no whole number of KiB.
    """
    if amount % KIBIBYTE:
        raise CannotRender(f"{amount} bytes is no whole number of KiB")
    return amount // KIBIBYTE
