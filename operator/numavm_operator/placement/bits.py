"""Small sets of host cells as bits of one integer."""

from __future__ import annotations


def members(mask: int) -> list[int]:
    """Return the positions of the bits that are set, rising."""
    positions = []
    while mask:
        lowest = mask & -mask
        positions.append(lowest.bit_length() - 1)
        mask ^= lowest
    return positions
