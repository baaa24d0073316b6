"""How good a host's answer can be at best, seen from a few counts: so that only hosts that may win are searched."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from numavm_operator.placement.policy import Weights
from numavm_operator.placement.request import Wanted
from numavm_operator.placement.score import host_part
from numavm_operator.placement.shape import Shape
from numavm_operator.placement.state import HostState

ROUNDING: Final = 1e-6
"""Far below any difference of scores that means something, far above what sums of floats are off by."""

Least = tuple[int, int, float]
"""Compromise, distance and score that no answer can beat."""
ANYTHING: Final[Least] = (0, 0, -inf)


@dataclass(slots=True)
class Bounds:
    """The bounds for one shape of request."""

    wanted: Wanted
    weights: Weights
    _cells: int = field(init=False)
    _cpus: int = field(init=False)
    """CPUs that each guest cell takes at least."""
    _plain: bool = field(init=False)
    """Whether there is something to say at all."""
    _distances: dict[tuple[object, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.wanted.shape
        self._plain = len(self.wanted.ways) == 1 and self.wanted.all_ways and _is_plain(shape)
        self._cells = len(shape.cells)
        self._cpus = min(bare.least for bare, _ in shape.demands)

    def least(self, state: HostState) -> Least | None:
        """Return what no answer of this host can beat; None: it cannot fit."""
        if not self._plain:
            return ANYTHING
        rising = state.takeable_rising
        first = bisect_left(rising, self._cpus)
        if len(rising) - first < self._cells:
            return None if self.wanted.shape.declared else (1, 0, -inf)
        return 0, self._distance(state), self._score(state, rising[first : first + self._cells])

    def _score(self, state: HostState, tightest: Sequence[int]) -> float:
        """Bound the score: the tightest cells that have the CPUs, as if without memory or devices."""
        weights = self.weights
        if weights.cell_cpu >= 0:
            in_cells = weights.cell_cpu * sum(tightest) / len(tightest)
        else:
            in_cells = weights.cell_cpu * max(cell.free for cell in state.cells)
        return in_cells + host_part(state, self.wanted.shape, weights) - ROUNDING

    def _distance(self, state: HostState) -> int:
        """Bound the distance by the cells that have the CPUs."""
        if self._cells == 1:
            return 0
        mask = 0
        for at, cell in enumerate(state.cells):
            if cell.takeable >= self._cpus:
                mask |= 1 << at
        key = (state.host.distances, mask)
        known = self._distances.get(key)
        if known is None:
            known = least_distance(state.host.distances, mask, self._cells)
            self._distances[key] = known
        return known


def least_distance(distances: Sequence[Sequence[int]], mask: int, count: int) -> int:
    """Return a bound that no `count` of the cells in `mask` beat: each with its nearest neighbours only."""
    cells = [at for at in range(len(distances)) if mask >> at & 1]
    sums = sorted(
        sum(sorted(distances[one][other] for other in cells if other != one)[: count - 1])
        for one in cells
    )
    return -(-sum(sums[:count]) // 2)


def _is_plain(shape: Shape) -> bool:
    """Tell whether guest cells want host cells of their own and the counts of what is free say it all."""
    return shape.counts_only and not shape.bound and not shape.sharing
