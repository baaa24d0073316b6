"""Small sets as bits of one integer: CPUs, and indices of host cells."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from numavm_api.cpuset import CpuSet

_KNOWN_SETS: Final = 16_384


@lru_cache(maxsize=_KNOWN_SETS)
def members(mask: int) -> tuple[int, ...]:
    """Return the positions of the bits that are set, rising. The search asks for the same few sets again and again."""
    positions = []
    while mask:
        lowest = mask & -mask
        positions.append(lowest.bit_length() - 1)
        mask ^= lowest
    return tuple(positions)


def mask_of(cpus: CpuSet) -> int:
    """Return the set as bits of one integer."""
    mask = 0
    for cpu in cpus.members:
        mask |= 1 << cpu
    return mask


def cpus_of(mask: int) -> CpuSet:
    """Return the set whose bits are in `mask`."""
    return CpuSet(frozenset(members(mask)))
