"""Last-level caches taken whole: which sets of caches bear a load, and how many CPUs they cost.

A cache counts only while every one of its online CPUs is free. Caches of equal cores are one kind, so that the sets
are few; the cheapest set that bears a load is the one that is claimed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Final

from numavm_operator.placement.shape import CpuRule

_KNOWN_LAYOUTS: Final = 4096
Kind = tuple[int, ...]
"""The widths of a cache's cores, rising."""


@dataclass(frozen=True, slots=True)
class CacheSet:
    """Caches taken together."""

    kinds: tuple[tuple[Kind, int], ...]
    """How many of each kind."""
    cpus: int

    @property
    def widths(self) -> Iterator[int]:
        """The widths of all their cores."""
        return (width for kind, count in self.kinds for _ in range(count) for width in kind)

    def units(self, rule: CpuRule, size: int, singles: int, emulators: int) -> int:
        """Return how many units fit beside the singles and the emulator; negative: not even those."""
        match rule:
            case CpuRule.ANYWHERE:
                return self.cpus - emulators
            case CpuRule.WHOLE_CORES:
                return sum(len(kind) * count for kind, count in self.kinds) - emulators
            case CpuRule.SIBLINGS:
                with_siblings = sum(width for width in self.widths if width > 1)
                groups = sum(width // size for width in self.widths if width > 1)
                room = min(with_siblings - singles, self.cpus - singles - emulators)
                return -1 if room < 0 else min(groups, room // size)
            case CpuRule.FLOAT:
                return 0


@lru_cache(maxsize=_KNOWN_LAYOUTS)
def cache_sets(caches: tuple[Kind, ...]) -> tuple[CacheSet, ...]:
    """Return every set of the given caches, cheapest first, the empty one included."""
    kinds = sorted(Counter(caches).items())
    sets = (
        CacheSet(
            tuple((kind, count) for (kind, _), count in zip(kinds, counts, strict=True) if count),
            sum(sum(kind) * count for (kind, _), count in zip(kinds, counts, strict=True)),
        )
        for counts in product(*(range(most + 1) for _, most in kinds))
    )
    return tuple(sorted(sets, key=lambda one: (one.cpus, one.kinds)))


def cheapest(
    sets: Iterable[CacheSet], rule: CpuRule, size: int, units: int, singles: int, emulators: int
) -> CacheSet | None:
    """Return the first set that bears a load; None: there is none."""
    bearing = (one for one in sets if one.units(rule, size, singles, emulators) >= units)
    return next(bearing, None)


def most_units(
    sets: Iterable[CacheSet], limit: int, rule: CpuRule, size: int, singles: int, emulators: int
) -> int:
    """Return how many units fit into any set of at most `limit` CPUs; negative: not even the rest does."""
    affordable = [one for one in sets if one.cpus <= limit]
    return max((one.units(rule, size, singles, emulators) for one in affordable), default=-1)
