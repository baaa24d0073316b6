"""How good a host's answer can be at best, seen from a few counts: so that only hosts that may win are searched."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from math import inf
from typing import Final

from numavm_operator.placement.nearest import least_distance
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

    def __post_init__(self) -> None:
        shape = self.wanted.shape
        self._plain = len(self.wanted.ways) == 1 and self.wanted.all_ways and _is_plain(shape)
        self._cells = len(shape.cells)
        self._cpus = min(bare.least for bare, _ in shape.demands)

    def least(self, state: HostState) -> Least | None:
        """Return what no answer of this host can beat; None: it cannot fit."""
        if not self._plain:
            return ANYTHING
        rising, cells = state.takeable_rising, self._cells
        first = bisect_left(rising, self._cpus)
        if len(rising) - first < cells:
            return None if self.wanted.shape.declared else (1, 0, -inf)
        rest = host_part(state, cells, self.weights) - ROUNDING
        if cells == 1:
            return 0, 0, self._in_cells(state, rising[first]) + rest
        tightest = sum(rising[first : first + cells]) / cells
        return 0, self._distance(state), self._in_cells(state, tightest) + rest

    def _in_cells(self, state: HostState, tightest: float) -> float:
        """Bound the part of the score for the VM's own cells, as if without memory or devices.

        Args:
            state: Of the host.
            tightest: CPUs of the tightest cells that have enough of them, the mean.
        """
        per_cpu = self.weights.cell_cpu
        return per_cpu * (tightest if per_cpu >= 0 else state.most_free)

    def _distance(self, state: HostState) -> int:
        """Bound the distance of several cells by those that have the CPUs."""
        mask = 0
        for at, cell in enumerate(state.cells):
            if cell.takeable >= self._cpus:
                mask |= 1 << at
        return least_distance(state.host.distances, mask, self._cells)


def _is_plain(shape: Shape) -> bool:
    """Tell whether guest cells want host cells of their own and the counts of what is free say it all."""
    return shape.counts_only and not shape.bound and not shape.sharing
