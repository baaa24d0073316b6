"""Whether and how a request fits one host: sound and complete, within a budget of steps.

The order is that of what a user would rather have: every guest cell on a host cell of its own; guest cells that
share (where allowed); and for a VM that named no cells, one host cell, else the fewest that take it together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from numavm_operator.placement.bits import members
from numavm_operator.placement.complete import (
    emulator_can_float,
)
from numavm_operator.placement.loads import Budget, OutOfStepsError
from numavm_operator.placement.misses import miss_of
from numavm_operator.placement.openings import Openings, openings_at_a_glance
from numavm_operator.placement.outcome import Miss
from numavm_operator.placement.policy import Policy
from numavm_operator.placement.problem import Fit, problem_of
from numavm_operator.placement.request import Wanted
from numavm_operator.placement.score import slack_of
from numavm_operator.placement.search import apart, compromise
from numavm_operator.placement.shape import Shape
from numavm_operator.placement.state import HostState

WAY_COSTS: Final = 3
"""How many of `_costs` are the way's: compromise, page sizes, devices."""


@dataclass(frozen=True, slots=True)
class OutOfSteps:
    """The budget ended before the search knew."""


@dataclass(frozen=True, slots=True)
class NoFit:
    """There is no place; `why_not` says why, when someone asks."""


Verdict = Fit | Miss | NoFit | OutOfSteps


def fit(state: HostState, wanted: Wanted, policy: Policy) -> Verdict:
    """Return how the request fits the host, that (or why) it does not, or that the budget was used up."""
    if len(wanted.ways) == 1 and wanted.all_ways:
        return _fit_one_way(state, wanted.shape, policy)
    return _fit_cheapest(state, wanted, policy)


def why_not(state: HostState, wanted: Wanted) -> Miss:
    """Return the nearest miss on a host that `fit` found no place on: of the way that asks for least."""
    least_split = [way for way in wanted.ways if way.spread == wanted.ways[0].spread]
    problem = problem_of(state, least_split[-1].shape)
    return problem if isinstance(problem, Miss) else miss_of(problem)


def _fit_cheapest(state: HostState, wanted: Wanted, policy: Policy) -> Verdict:
    """Try the ways in turn: every guest cell apart, then compromises; the first, least dear answer wins.

    Each way has half of what is left of the budget, so that a hard one does not hide an easy one behind it.
    """
    left = Budget(policy.search_steps)
    unknown = not wanted.all_ways
    best: Fit | None = None
    for search in (apart, compromise):
        for at, way in enumerate(wanted.ways):
            if best is not None and _costs(best)[:WAY_COSTS] < way.cost:
                break
            budget = Budget(max(left.left // 2, 1))
            try:
                problem = problem_of(state, way.shape)
                found = None if isinstance(problem, Miss) else search(problem, policy, budget)
            except OutOfStepsError:
                found, unknown = None, True
            left.left = max(left.left - budget.used - 1, 0)
            if found is not None:
                settled = (way.fallbacks, way.astray)
                more = found.compromise + way.spread
                found = found._replace(way=at, settled=settled, compromise=more)
                best = found if best is None else min(best, found, key=_costs)
        if best is not None:
            return best
    return OutOfSteps() if unknown else NoFit()


def _costs(found: Fit) -> tuple[int, int, int, int]:
    return (found.compromise, *found.settled, found.distance)


def _fit_one_way(state: HostState, shape: Shape, policy: Policy) -> Verdict:
    openings = None
    if shape.counts_only and not shape.bound:
        openings = openings_at_a_glance(state.cells, shape)
        quick = _at_a_glance(state, shape, openings, policy)
        if quick is not None:
            return quick
    problem = problem_of(state, shape)
    if isinstance(problem, Miss):
        return problem
    budget = Budget(policy.search_steps)
    try:
        found = apart(problem, policy, budget, openings) or compromise(problem, policy, budget)
    except OutOfStepsError:
        return OutOfSteps()
    return found or NoFit()


def _at_a_glance(
    state: HostState, shape: Shape, openings: Openings, policy: Policy
) -> Fit | NoFit | None:
    """Answer what needs no search: guest cells for which there are too few host cells, and a single guest cell."""
    alone = openings.alone
    too_few = len(set(alone)) == 1 and alone[0].bit_count() < len(alone)
    if too_few or not all(alone):
        return NoFit() if shape.declared and not shape.sharing else None
    if len(shape.cells) > 1 or state.watched:
        return None
    slack = slack_of(state.cells, shape.cells[0].page_size, policy.weights)
    able = openings.hosts_emulator[0]
    for cell in sorted(members(able), key=lambda cell: (slack[cell], cell)):
        if emulator_can_float(state.cells, shape, (cell,)):
            return Fit(((cell,),), cell, (), (), (), (), 0, 0)
    return None
