"""How near host cells are to each other: what no choice of some of them can beat."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Final

from numavm_operator.placement.bits import members

_KNOWN_SETS: Final = 4096
"""Sets of host cells that are remembered: hosts of one model ask about them again and again."""
Distances = tuple[tuple[int, ...], ...]
"""There and back, by index of the cell."""


@lru_cache(maxsize=_KNOWN_SETS)
def sums_of_nearest(distances: Distances, among: int) -> Mapping[int, list[int]]:
    """Return per cell, at index n, the sum of the n smallest distances to others of these cells."""
    sums = {}
    cells = members(among)
    for cell in cells:
        row = distances[cell]
        rising = sorted([row[other] for other in cells if other != cell])
        sums[cell] = list(accumulate(rising, initial=0))
    return sums


@lru_cache(maxsize=_KNOWN_SETS)
def least_distance(distances: Distances, mask: int, count: int) -> int:
    """Return a bound that no `count` of the cells in `mask` beat: each with its nearest neighbours only."""
    sums = sorted([near[count - 1] for near in sums_of_nearest(distances, mask).values()])
    return -(-sum(sums[:count]) // 2)
