"""The search for VMs whose guest cells may share host cells, used where different ones do not fit.

Two passes. The first finds out whether there is any map: guest cells in turn, most demanding first, and a
memory of loads that led nowhere, so that hosts with many equal cells do not multiply. The second shortens what
the first found: fewer guest cells that share, then less distance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from numavm_operator.placement.complete import Completion
from numavm_operator.placement.loads import Budget, OutOfStepsError
from numavm_operator.placement.openings import by_name
from numavm_operator.placement.problem import Problem


@dataclass(frozen=True, slots=True)
class Shared:
    """The best map found: host cell per open guest cell, in the order of `Problem.open_cells`."""

    cells: tuple[int, ...]
    compromise: int
    distance: int
    completion: Completion


Finish = Callable[[tuple[int, ...]], Completion | None]


def choose_shared(
    problem: Problem, finish: Finish, budget: Budget, improve_steps: int
) -> Shared | None:
    """Return the map with the fewest guest cells that share, or None where there is none at all.

    Raises:
        OutOfStepsError: the budget ended before anything was found.
    """
    search = _Search(problem, finish, budget)
    search.descend(0, 0, 0, remember=True)
    if search.best is None:
        return None
    search.budget = Budget(min(improve_steps, budget.left))
    try:
        search.descend(0, 0, 0, remember=False)
    except OutOfStepsError:
        return search.best
    return search.best


@dataclass(slots=True)
class _Search:
    problem: Problem
    finish: Finish
    budget: Budget
    best: Shared | None = None
    _chosen: dict[int, int] = field(default_factory=dict)
    _in_vain: set[tuple[object, ...]] = field(default_factory=set)
    _kinds: list[int] = field(default_factory=list)
    """Per host cell, the first cell that has as much left."""

    _named: dict[int, int] = field(default_factory=dict)
    """Per open guest cell that asks for something by name, the mask of host cells that have it."""

    def __post_init__(self) -> None:
        cells = self.problem.cells
        self._kinds = [cells.index(cell) for cell in cells]
        if not self.problem.shape.counts_only:
            self._named = {guest: by_name(self.problem, guest) for guest in self.problem.open_cells}

    def descend(self, depth: int, compromise: int, distance: int, *, remember: bool) -> bool:
        """Place the guest cells from `depth` on; tell whether the search may end here.

        Args:
            depth: Position in `Problem.open_cells`.
            compromise: Guest cells so far that share.
            distance: So far.
            remember: True: stop at the first map and skip loads that led nowhere. False: look for better ones.
        """
        self.budget.step()
        if depth == len(self.problem.open_cells):
            return self._offer(compromise, distance) and remember
        known = self._known(depth) if remember else ()
        if known in self._in_vain:
            return False
        guest = self.problem.open_cells[depth]
        loads = self.problem.loads
        for shares, further, cell in self._options(guest):
            if not remember and self._no_better(compromise + shares, distance + further):
                continue
            loads.add(cell, self.problem.shape.cells[guest])
            if loads.bears(cell):
                self._chosen[guest] = cell
                found = self.descend(
                    depth + 1, compromise + shares, distance + further, remember=remember
                )
                del self._chosen[guest]
            else:
                found = False
            loads.add(cell, self.problem.shape.cells[guest], -1)
            if found:
                return True
        if remember:
            self._in_vain.add(known)
        return False

    def _options(self, guest: int) -> list[tuple[int, int, int]]:
        """Return (shares, distance, host cell), the best first."""
        problem = self.problem
        occupied = set(self._chosen.values())
        options = []
        need = problem.shape.cells[guest]
        for cell in range(len(problem.cells)):
            if not self._named.get(guest, -1) >> cell & 1 or not problem.may_hold(need, cell):
                continue
            taken = cell in occupied or problem.bound_mask >> cell & 1
            distance = problem.near_bound[cell] + sum(
                problem.host.distances[cell][other] for other in self._chosen.values()
            )
            options.append((int(bool(taken)), distance, cell))
        return sorted(options)

    def _known(self, depth: int) -> tuple[object, ...]:
        """Return what alone decides whether the rest fits: the loads.

        Host cells with equal rests are interchangeable, unless something tells them apart by name: a nodeset of
        the user, or emulators that float over a set of cells. Where guest cells ask for CPUs or devices by name,
        only the map itself decides.
        """
        problem = self.problem
        if problem.shape.by_hand or problem.shape.devices or problem.shape.classed:
            return (depth, tuple(self._chosen.items()))
        loads = [(kind, problem.loads.snapshot(at)) for at, kind in enumerate(self._kinds)]
        named = problem.bound_mask or problem.watched
        return (depth, tuple(loads) if named else tuple(sorted(loads)))

    def _no_better(self, compromise: int, distance: int) -> bool:
        best = self.best
        return best is not None and (compromise, distance) >= (best.compromise, best.distance)

    def _offer(self, compromise: int, distance: int) -> bool:
        if self._no_better(compromise, distance):
            return False
        cells = tuple(self._chosen[guest] for guest in self.problem.open_cells)
        completion = self.finish(cells)
        if completion is None:
            return False
        self.best = Shared(cells, compromise, distance, completion)
        return True
