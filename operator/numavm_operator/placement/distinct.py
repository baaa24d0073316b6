"""The search for host cells that are all different: which of them, least distance first.

A branch and bound over sets of host cells. Guest cells with equal needs are interchangeable, so a set is looked
at once and not once per permutation. Before each branch it is checked that the guest cells left can still be
matched with host cells (Hall's condition, by augmenting paths), so that dead ends come only from side
conditions; a greedy walk gives the first answer, and mostly meets the bound, which ends the search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate
from operator import or_
from typing import NamedTuple

from numavm_operator.placement.bits import members
from numavm_operator.placement.complete import Completion
from numavm_operator.placement.flow import can_match
from numavm_operator.placement.loads import Budget, OutOfStepsError
from numavm_operator.placement.nearest import Distances, sums_of_nearest

Finish = Callable[[tuple[int, ...]], Completion | None]


class Choice(NamedTuple):
    """Guest cells that want host cells, each its own."""

    candidates: tuple[int, ...]
    """Per guest cell, the mask of host cells that can take it. Equal ones stand together."""
    hosts_emulator: tuple[int, ...]
    """Per guest cell, the mask of host cells that can take it with emulator and overhead."""
    emulator_elsewhere: bool
    """The emulator may have room on a bound cell."""
    distances: Distances
    alike: tuple[int, ...]
    """Per host cell, the first one with the same distances to all others."""
    swaps_allowed: bool
    """Host cells that are alike and take the same guest cells may stand for each other."""
    fixed: tuple[int, ...]
    """Per host cell, a distance that is added where it is used."""
    slack: tuple[float, ...]
    """Per host cell, what would be left: smaller first among equals."""
    same_need: tuple[bool, ...]
    """Per guest cell: it asks for the same as the one before."""
    finish: Finish
    """Completes a map (host cell per guest cell), or says that it breaks a side condition."""
    gives: tuple[int, ...] = ()
    """Per host cell, what it gives to a demand that all cells of the map meet together."""
    wanted: int = 0
    """That demand."""


class Chosen(NamedTuple):
    """The best map found."""

    cells: tuple[int, ...]
    distance: int
    slack: float
    completion: Completion


def choose_distinct(choice: Choice, budget: Budget, improve_steps: int) -> Chosen | None:
    """Return the map of least distance, or None where there is none at all.

    Raises:
        OutOfStepsError: the budget ended before anything was found.
    """
    if not can_match(choice.candidates, 0):
        return None
    if not (choice.emulator_elsewhere or any(choice.hosts_emulator)):
        return None
    search = _Search(choice, budget)
    if not search.enough_together(0):
        return None
    least = search.least_possible()
    search.walk(least)
    if search.best is not None:
        if search.best.distance <= least:
            return search.best
        search.budget = Budget(min(improve_steps, budget.left))
    try:
        search.descend()
    except OutOfStepsError:
        if search.best is None:
            raise
    return search.best


class _Search:
    def __init__(self, choice: Choice, budget: Budget) -> None:
        self.choice = choice
        self.budget = budget
        self.best: Chosen | None = None
        self._allowed = reduce(or_, choice.candidates)
        self._near = sums_of_nearest(choice.distances, self._allowed)
        self._same_kind = _same_kind(_kinds(choice))
        self._by_slack = sorted(
            range(len(choice.slack)), key=lambda cell: (choice.slack[cell], cell)
        )
        # What guest cells from each on can be on, and whether they are all alike in that.
        self._rest = [*accumulate(reversed(choice.candidates), or_, initial=0)][::-1]
        self._rest_alike = [
            len(set(choice.candidates[guest:])) <= 1 for guest in range(len(choice.candidates) + 1)
        ]

    def walk(self, enough: int) -> None:
        """Take the nearest cell again and again, from a cell of every kind, the most promising first."""
        choice = self.choice
        tried = 0
        for start in self._in_order(choice.candidates[0], choice.fixed, len(choice.candidates)):
            if tried >> start & 1:
                continue
            tried |= self._same_kind[start]
            self.budget.step()
            self._walk_from(start)
            if self.best is not None and self.best.distance <= enough:
                return

    def least_possible(self) -> int:
        """Return a bound that no map can beat: each cell with its nearest neighbours only."""
        choice = self.choice
        return self._rest_bound(self._allowed, len(choice.candidates), choice.fixed)

    def descend(self) -> None:
        """Look at every set that may be better than the best."""
        size = len(self.choice.fixed)
        self._branch((), 0, 0, list(self.choice.fixed), (1 << size) - 1, hosted=False)

    def _walk_from(self, start: int) -> None:
        choice = self.choice
        to = list(choice.fixed)
        cells: list[int] = []
        cost = used = 0
        for guest, mask in enumerate(choice.candidates):
            left = len(choice.candidates) - guest
            options = [start] if guest == 0 else self._in_order(mask & ~used, to, left)
            pick = next((cell for cell in options if self._open(guest, used | 1 << cell)), None)
            if pick is None:
                return
            cells.append(pick)
            used |= 1 << pick
            cost += to[pick]
            row = choice.distances[pick]
            to = [distance + more for distance, more in zip(to, row, strict=True)]
        self._offer(tuple(cells), cost)

    def _branch(
        self,
        cells: tuple[int, ...],
        used: int,
        cost: int,
        to: list[int],
        allowed: int,
        *,
        hosted: bool,
    ) -> None:
        """Give the next guest cell a host cell. `allowed` keeps equal guest cells from taking turns."""
        self.budget.step()
        choice = self.choice
        guest = len(cells)
        if guest == len(choice.candidates):
            if hosted or choice.emulator_elsewhere:
                self._offer(cells, cost)
            return
        if guest and not choice.same_need[guest]:
            allowed = (1 << len(to)) - 1
        if self._hopeless(guest, used, cost, to, hosted=hosted):
            return
        open_cells = choice.candidates[guest] & ~used & allowed
        for cell in self._in_order(open_cells, to, len(choice.candidates) - guest):
            if not allowed >> cell & 1:
                continue
            allowed &= ~(1 << cell)
            if not self._open(guest, used | 1 << cell):
                continue
            row = choice.distances[cell]
            self._branch(
                (*cells, cell),
                used | 1 << cell,
                cost + to[cell],
                [distance + more for distance, more in zip(to, row, strict=True)],
                allowed,
                hosted=hosted or bool(choice.hosts_emulator[guest] >> cell & 1),
            )
            # A map with another cell of this kind in its place is a map with this cell after all.
            allowed &= ~self._same_kind[cell]

    def _hopeless(self, guest: int, used: int, cost: int, to: list[int], *, hosted: bool) -> bool:
        choice = self.choice
        if self.best is not None:
            rest = self._rest[guest] & ~used
            bound = cost + self._rest_bound(rest, len(choice.candidates) - guest, to)
            if bound >= self.best.distance:
                return True
        if hosted or choice.emulator_elsewhere:
            return False
        return not any(mask & ~used for mask in choice.hosts_emulator[guest:])

    def _open(self, guest: int, used: int) -> bool:
        """Tell whether the guest cells after `guest` can still all be matched, and all cells together give enough."""
        choice = self.choice
        if not self.enough_together(used):
            return False
        after = guest + 1
        if self._rest_alike[after]:
            return (self._rest[after] & ~used).bit_count() >= len(choice.candidates) - after
        return can_match(choice.candidates[after:], used)

    def enough_together(self, used: int) -> bool:
        """Tell whether the cells used and the most giving of the others can meet the common demand."""
        choice = self.choice
        if not choice.wanted:
            return True
        open_cells = self._allowed & ~used
        others = sorted((choice.gives[cell] for cell in members(open_cells)), reverse=True)
        more = len(choice.candidates) - used.bit_count()
        given = sum(choice.gives[cell] for cell in members(used))
        return given + sum(others[:more]) >= choice.wanted

    def _rest_bound(self, rest: int, count: int, to: Sequence[int]) -> int:
        """Bound what `count` more cells of `rest` cost: their way to those chosen, half of that to each other."""
        if count == 0:
            return 0
        near = self._near
        costs = sorted([2 * to[cell] + near[cell][count - 1] for cell in members(rest)])
        return -(-sum(costs[:count]) // 2)

    def _in_order(self, mask: int, to: Sequence[int], left: int) -> list[int]:
        """Return the cells of a mask, those first whose way to the chosen ones and to their own nearest is shortest.

        So a walk that has filled one socket goes on where it finds room for all that are left. Of equals the tightest
        is first, then the one of lowest index.

        Args:
            mask: Which cells.
            to: Per cell, the distance to those chosen before.
            left: How many cells are to be chosen yet, this one among them.
        """
        near = self._near
        cells = [cell for cell in self._by_slack if mask >> cell & 1]
        return sorted(cells, key=lambda cell: 2 * to[cell] + near[cell][left - 1])

    def _offer(self, cells: tuple[int, ...], cost: int) -> None:
        slack = sum(self.choice.slack[cell] for cell in cells)
        if self.best is not None and (cost, slack, cells) >= (
            self.best.distance,
            self.best.slack,
            self.best.cells,
        ):
            return
        completion = self.choice.finish(cells)
        if completion is not None:
            self.best = Chosen(cells, cost, slack, completion)


def _kinds(choice: Choice) -> list[tuple[int, ...]]:
    """Return per host cell a value that is equal for cells which can stand for each other.

    Alike in distances, and able to take the same guest cells: a map stays a map, and costs the same, when two such
    cells change places. Not so where side conditions know cells by name; then every cell is a kind of its own.
    """
    if not choice.swaps_allowed or choice.wanted:
        return [(cell,) for cell in range(len(choice.alike))]
    masks = list(dict.fromkeys(choice.candidates + choice.hosts_emulator))
    return [
        (choice.alike[cell], choice.fixed[cell], *[mask >> cell & 1 for mask in masks])
        for cell in range(len(choice.alike))
    ]


def _same_kind(kinds: Sequence[tuple[int, ...]]) -> list[int]:
    """Return per host cell the mask of those of its kind."""
    masks: dict[tuple[int, ...], int] = {}
    for cell, kind in enumerate(kinds):
        masks[kind] = masks.get(kind, 0) | 1 << cell
    return [masks[kind] for kind in kinds]
