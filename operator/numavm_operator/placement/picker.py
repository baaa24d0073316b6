"""Which CPUs of one host cell: siblings together, leftovers before whole cores, few last-level caches.

Takes what the counts of `free` promised to be there, so it never comes back empty-handed; what it chooses is
only how well. Last-level caches come first: a guest cell that fits in one cache gets one, the fullest that
takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from numavm_operator.placement.host import Cell


@dataclass(slots=True)
class FreeCore:
    """A core and those of its threads that are still free."""

    free: int
    whole: bool
    width: int
    cache: int

    @property
    def count(self) -> int:
        """How many threads are free."""
        return self.free.bit_count()

    def take(self, threads: int) -> list[int]:
        """Take the lowest free threads."""
        taken = []
        for _ in range(threads):
            lowest = self.free & -self.free
            self.free ^= lowest
            taken.append(lowest.bit_length() - 1)
        self.whole = False
        return taken


class CellPicker:
    """Hands out the free CPUs of one host cell, one guest cell after the other."""

    def __init__(self, cell: Cell, held: int) -> None:
        free = cell.dedicated & ~held
        self._cores = [
            FreeCore(
                core.threads & free,
                core.threads & free == core.threads,
                core.width,
                core.last_level_cache,
            )
            for core in cell.cores
            if core.threads & free
        ]

    def groups(self, count: int, size: int) -> list[list[int]]:
        """Take up to `count` groups of `size` threads, each on one core; fewer where there are no more."""

        def capacity(core: FreeCore) -> int:
            return core.count // size if core.width > 1 or size == 1 else 0

        taken: list[list[int]] = []
        for core in self._ordered(count, capacity, lambda core: (core.count % size, core.count)):
            here = min(capacity(core), count - len(taken))
            taken += [core.take(size) for _ in range(here)]
        return taken

    def group_capacity(self, size: int) -> int:
        """Return how many groups of this size there are."""
        return sum(core.count // size for core in self._cores if core.width > 1 or size == 1)

    def singles(self, count: int, *, with_siblings: bool = False) -> list[int]:
        """Take threads one by one: leftovers of cores first, then cores that must be broken.

        Args:
            count: How many; they are there.
            with_siblings: Only on cores with more than one thread.
        """

        def capacity(core: FreeCore) -> int:
            return core.count if core.width > 1 or not with_siblings else 0

        taken: list[int] = []
        for core in self._ordered(count, capacity, lambda core: (core.whole, core.count)):
            taken += core.take(min(capacity(core), count - len(taken)))
        return taken

    def whole_cores(self, count: int) -> list[list[int]]:
        """Take wholly free cores, the narrowest first; they are there."""
        widths = sorted(core.width for core in self._cores if core.whole)
        taken: list[list[int]] = []
        for width in sorted(set(widths[:count])):
            here = min(widths[:count].count(width), count - len(taken))

            def capacity(core: FreeCore, width: int = width) -> int:
                return int(core.whole and core.width == width)

            taken += [
                core.take(core.width)
                for core in self._ordered(here, capacity, lambda _: (0, 0))[:here]
            ]
        return taken

    def _ordered(
        self,
        wanted: int,
        capacity: Callable[[FreeCore], int],
        rank: Callable[[FreeCore], tuple[int, int]],
    ) -> list[FreeCore]:
        """Return the cores that can give something: chosen caches first, within a cache by rank."""
        if not wanted:
            return []
        able = [(core, given) for core in self._cores if (given := capacity(core))]
        caches = _fewest_caches(((core.cache, given) for core, given in able), wanted)
        return sorted(
            (core for core, _ in able if core.cache in caches),
            key=lambda core: (caches[core.cache], *rank(core), core.free & -core.free),
        )


def _fewest_caches(given: Iterable[tuple[int, int]], wanted: int) -> dict[int, int]:
    """Return the caches to take from, with the turn of each: the largest until one small enough takes the rest.

    Args:
        given: Per core its cache, and what it can give.
        wanted: How much is to be taken; not 0.
    """
    gives: dict[int, int] = {}
    for cache, amount in given:
        gives[cache] = gives.get(cache, 0) + amount
    if len(gives) == 1:
        return dict.fromkeys(gives, 0)
    turns: dict[int, int] = {}
    while wanted > 0 and len(turns) < len(gives):
        left = {cache: amount for cache, amount in gives.items() if cache not in turns}
        enough = [cache for cache, amount in left.items() if amount >= wanted]
        pick = (
            min(enough, key=lambda cache: (left[cache], cache))
            if enough
            else max(left, key=lambda cache: (left[cache], -cache))
        )
        turns[pick] = len(turns)
        wanted -= left[pick]
    return turns
