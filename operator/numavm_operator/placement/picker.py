"""Which CPUs of one host cell: siblings together, leftovers before whole cores, few last-level caches.

Takes what the counts of `free` promised to be there, so it never comes back empty-handed; what it chooses is
only how well. Last-level caches come first: a guest cell that fits in one cache gets one, the fullest that
takes it.
"""

from __future__ import annotations

from typing import Final

from numavm_operator.placement.bits import members
from numavm_operator.placement.host import Cell

_Offer = tuple[int, tuple[int, int], int, int]
"""Of a core: its cache, its turn within the cache, the mask of its free threads, how many units it can give."""
_NO_TURN: Final = (0, 0)


class CellPicker:
    """Hands out the free CPUs of one host cell, one guest cell after the other."""

    def __init__(self, cell: Cell, held: int) -> None:
        self._cell = cell
        self._free = cell.dedicated & ~held

    def groups(self, count: int, size: int) -> list[tuple[int, ...]]:
        """Take up to `count` groups of `size` threads, each on one core; fewer where there are no more."""
        if not count:
            return []
        offers: list[_Offer] = []
        for core in self._cell.cores:
            left = core.threads & self._free
            threads = left.bit_count()
            if threads >= size and (core.width > 1 or size == 1):
                turn = (threads % size, threads)
                offers.append((core.last_level_cache, turn, left, threads // size))
        taken: list[tuple[int, ...]] = []
        for left, given in _in_order(offers, count):
            groups = min(given, count - len(taken))
            cpus = self._take(left, groups * size)
            taken += [cpus[at : at + size] for at in range(0, len(cpus), size)]
            if len(taken) == count:
                break
        return taken

    def singles(self, count: int, *, with_siblings: bool = False) -> list[int]:
        """Take threads one by one: leftovers of cores first, then cores that must be broken.

        Args:
            count: How many; they are there.
            with_siblings: Only on cores with more than one thread.
        """
        if not count:
            return []
        offers: list[_Offer] = []
        for core in self._cell.cores:
            left = core.threads & self._free
            if left and (core.width > 1 or not with_siblings):
                threads = left.bit_count()
                turn = (int(left == core.threads), threads)
                offers.append((core.last_level_cache, turn, left, threads))
        taken: list[int] = []
        for left, given in _in_order(offers, count):
            taken += self._take(left, min(given, count - len(taken)))
            if len(taken) == count:
                break
        return taken

    def whole_cores(self, count: int) -> list[tuple[int, ...]]:
        """Take wholly free cores, the narrowest first; they are there."""
        whole = [core for core in self._cell.cores if core.threads & self._free == core.threads]
        widths = sorted(core.width for core in whole)[:count]
        taken: list[tuple[int, ...]] = []
        for width in sorted(set(widths)):
            here = widths.count(width)
            offers = [
                (core.last_level_cache, _NO_TURN, core.threads, 1)
                for core in whole
                if core.width == width
            ]
            taken += [self._take(threads, width) for threads, _ in _in_order(offers, here)[:here]]
        return taken

    def _take(self, left: int, count: int) -> tuple[int, ...]:
        """Take the lowest threads of a core.

        Args:
            left: Mask of its free threads.
            count: How many to take.
        """
        cpus = members(left)[:count]
        taken = left if len(cpus) == left.bit_count() else sum(1 << cpu for cpu in cpus)
        self._free ^= taken
        return cpus


def _in_order(offers: list[_Offer], wanted: int) -> list[tuple[int, int]]:
    """Return the cores to take from, as (free threads, units): by cache, within a cache by turn, then by number."""
    turns = _fewest_caches(offers, wanted)
    order = [
        (turns[cache], turn, left & -left, left, given)
        for cache, turn, left, given in offers
        if cache in turns
    ]
    order.sort()
    return [(left, given) for _, _, _, left, given in order]


def _fewest_caches(offers: list[_Offer], wanted: int) -> dict[int, int]:
    """Return the caches to take from, with the turn of each: the largest until one small enough takes the rest.

    Args:
        offers: Of each core.
        wanted: How much is to be taken; not 0.
    """
    gives: dict[int, int] = {}
    for cache, _, _, given in offers:
        gives[cache] = gives.get(cache, 0) + given
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
