"""Whether and how a request fits one host: sound and complete, within a budget of steps.

The order is that of what a user would rather have: every guest cell on a host cell of its own; guest cells that
share (where allowed); and for a VM that named no cells, one host cell, else the fewest that take it together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from numavm_operator.placement.bits import members
from numavm_operator.placement.complete import (
    Completion,
    complete,
    emulator_can_float,
    sets_to_keep,
)
from numavm_operator.placement.devices import assign_devices
from numavm_operator.placement.distinct import Choice, Finish, choose_distinct
from numavm_operator.placement.hands import by_hand
from numavm_operator.placement.loads import Budget, OutOfStepsError, SpreadCpus
from numavm_operator.placement.misses import miss_of
from numavm_operator.placement.openings import Openings, fitting_cells, openings_of, spare_for_io
from numavm_operator.placement.outcome import Miss
from numavm_operator.placement.policy import Policy
from numavm_operator.placement.problem import Fit, Problem, problem_of
from numavm_operator.placement.request import Wanted
from numavm_operator.placement.score import slack_of
from numavm_operator.placement.shape import Shape
from numavm_operator.placement.sharing import choose_shared
from numavm_operator.placement.spanning import Part, parts_of
from numavm_operator.placement.state import HostState


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
    for search in (_apart, _compromise):
        for at, way in enumerate(wanted.ways):
            if best is not None and _costs(best)[:3] < (way.spread, way.fallbacks, way.astray):
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
                compromise = found.compromise + way.spread
                found = replace(found, way=at, settled=settled, compromise=compromise)
                best = found if best is None else min(best, found, key=_costs)
        if best is not None:
            return best
    return OutOfSteps() if unknown else NoFit()


def _costs(found: Fit) -> tuple[int, int, int, int]:
    return (found.compromise, *found.settled, found.distance)


def _fit_one_way(state: HostState, shape: Shape, policy: Policy) -> Verdict:
    if shape.counts_only and not shape.bound:
        quick = _at_a_glance(state, shape, policy)
        if quick is not None:
            return quick
    problem = problem_of(state, shape)
    if isinstance(problem, Miss):
        return problem
    budget = Budget(policy.search_steps)
    try:
        found = _apart(problem, policy, budget) or _compromise(problem, policy, budget)
    except OutOfStepsError:
        return OutOfSteps()
    return found or NoFit()


def _at_a_glance(state: HostState, shape: Shape, policy: Policy) -> Fit | NoFit | None:
    """Answer what needs no search: guest cells for which there are too few host cells, and a single guest cell."""
    masks = [
        fitting_cells(state.cells, shape.demands[guest], 0)
        for guest, same in zip(shape.open_cells, shape.same_as_before, strict=True)
        if not same
    ]
    too_few = len(masks) == 1 and masks[0][0].bit_count() < len(shape.cells)
    if too_few or not all(alone for alone, _ in masks):
        return NoFit() if shape.declared and not shape.sharing else None
    if len(shape.cells) > 1 or state.watched:
        return None
    slack = slack_of(state.cells, shape.cells[0].page_size, policy.weights)
    for cell in sorted(members(masks[0][1]), key=lambda cell: (slack[cell], cell)):
        if emulator_can_float(state.cells, shape, (cell,)):
            return Fit(((cell,),), cell, (), (), (), (), 0, 0)
    return None


def _compromise(problem: Problem, policy: Policy, budget: Budget) -> Fit | None:
    if not problem.shape.declared:
        return _spanning(problem, policy, budget)
    if problem.shape.sharing and problem.open_cells:
        return _sharing(problem, policy, budget)
    return None


def _apart(problem: Problem, policy: Policy, budget: Budget) -> Fit | None:
    """Every open guest cell on a host cell of its own, apart from the bound ones."""
    shape = problem.shape
    order = shape.open_cells
    if not order:
        completion = _complete(problem, {}, budget)
        return _fit(problem, {}, completion, 0, 0) if completion else None
    candidates = openings_of(problem, order)
    if candidates is None:
        return None
    apart = shape.counts_only and not problem.bound_mask and not problem.watched

    def finish(cells: tuple[int, ...]) -> Completion | None:
        if apart and emulator_can_float(problem.cells, shape, cells):
            hosts = zip(candidates.hosts_emulator, cells, strict=True)
            return next((Completion(cell) for mask, cell in hosts if mask >> cell & 1), None)
        placed = dict(zip(order, cells, strict=True))
        with problem.loads.carrying((cell, shape.cells[at]) for at, cell in placed.items()):
            return _complete(problem, placed, budget)

    choice = _choice(problem, candidates, shape.same_as_before, finish, policy)
    if shape.io_threads:
        choice = _with_io_threads(problem, choice, candidates)
    chosen = choose_distinct(choice, budget, policy.improve_steps)
    if chosen is None:
        return None
    placed = dict(zip(order, chosen.cells, strict=True))
    return _fit(problem, placed, chosen.completion, 0, chosen.distance)


def _emulator_can_float_anywhere(problem: Problem) -> bool:
    return all(
        emulator_can_float(problem.cells, problem.shape, (cell,))
        for cell in range(len(problem.cells))
    )


def _choice(
    problem: Problem,
    candidates: Openings,
    same_need: tuple[bool, ...],
    finish: Finish,
    policy: Policy,
    part: Part | None = None,
) -> Choice:
    """Set the search for distinct host cells up."""
    shape = problem.shape
    page_size = shape.cells[0].page_size
    return Choice(
        candidates=candidates.alone,
        hosts_emulator=candidates.hosts_emulator,
        emulator_elsewhere=any(
            problem.loads.bears(cell, emulators=shape.emulators, overhead=shape.overhead)
            for cell in members(problem.bound_mask)
        ),
        distances=problem.host.distances,
        alike=problem.host.alike,
        swaps_allowed=shape.counts_only
        and not problem.watched
        and _emulator_can_float_anywhere(problem),
        fixed=problem.near_bound,
        slack=slack_of(problem.cells, page_size, policy.weights),
        same_need=same_need,
        finish=finish,
        gives=part.gives if part else (),
        wanted=part.wanted if part else 0,
    )


def _with_io_threads(problem: Problem, choice: Choice, openings: Openings) -> Choice:
    """Have the search leave out sets of host cells that cannot bear the I/O threads together."""
    elsewhere = sum(problem.loads.spare(cell) for cell in members(problem.bound_mask))
    wanted = max(problem.shape.io_threads - elsewhere, 0)
    return replace(choice, gives=spare_for_io(problem, openings), wanted=wanted)


def _sharing(problem: Problem, policy: Policy, budget: Budget) -> Fit | None:
    def finish(cells: tuple[int, ...]) -> Completion | None:
        placed = dict(zip(problem.open_cells, cells, strict=True))
        return _complete(problem, placed, budget)

    found = choose_shared(problem, finish, budget, policy.improve_steps)
    if found is None:
        return None
    placed = dict(zip(problem.open_cells, found.cells, strict=True))
    return _fit(problem, placed, found.completion, found.compromise, found.distance)


def _spanning(problem: Problem, policy: Policy, budget: Budget) -> Fit | None:
    """Put the one guest cell of a VM that declared none on the fewest host cells that take it together."""
    for size in range(2, len(problem.cells) + 1):
        part = parts_of(problem, size)
        masks = fitting_cells(problem.cells, problem.shape.demands_of(part.need), 0)
        if masks[0].bit_count() < size:
            continue

        def finish(cells: tuple[int, ...], part: Part = part) -> Completion | None:
            with problem.loads.carrying((cell, part.need) for cell in cells):
                spread = part.spread_over(cells)
                return _finish(problem, (tuple(sorted(cells)),), cells, spread, budget)

        candidates = Openings((masks[0],) * size, (masks[1],) * size)
        same = (False, *(True,) * (size - 1))
        choice = _choice(problem, candidates, same, finish, policy, part)
        chosen = choose_distinct(choice, budget, policy.improve_steps)
        if chosen is not None:
            cells = tuple(sorted(chosen.cells))
            end = chosen.completion
            return Fit(
                (cells,),
                end.overhead_cell,
                end.units,
                end.singles,
                end.io_threads,
                end.by_hand,
                size - 1,
                chosen.distance,
            )
    return None


def _complete(problem: Problem, placed: Mapping[int, int], budget: Budget) -> Completion | None:
    host_cells = _host_cells(problem, placed)
    used = list(dict.fromkeys(cell for cells in host_cells for cell in cells))
    return _finish(problem, host_cells, used, problem.spread, budget)


def _finish(
    problem: Problem,
    host_cells: Sequence[tuple[int, ...]],
    used: Sequence[int],
    spread: Sequence[SpreadCpus],
    budget: Budget,
) -> Completion | None:
    """Complete a map: devices near it, CPUs by hand or by count, and what stands beside them."""
    shape = problem.shape
    if shape.devices:
        free = problem.state.devices
        if assign_devices(problem.host, free, shape.devices, host_cells) is None:
            return None
    if not shape.by_hand:
        return complete(problem.loads, used, spread, problem.watched, budget)
    for overhead_cell in used:
        if problem.loads.bears(overhead_cell, emulators=shape.emulators, overhead=shape.overhead):
            sets = sets_to_keep(problem.loads, used, problem.watched)
            cpus = by_hand(problem, host_cells, overhead_cell, sets, budget)
            if cpus is not None:
                return Completion(overhead_cell, by_hand=cpus)
    return None


def _host_cells(problem: Problem, placed: Mapping[int, int]) -> tuple[tuple[int, ...], ...]:
    return tuple(
        (placed[guest],) if nodeset is None else nodeset
        for guest, nodeset in enumerate(problem.bound)
    )


def _fit(
    problem: Problem,
    placed: Mapping[int, int],
    completion: Completion,
    compromise: int,
    distance: int,
) -> Fit:
    return Fit(
        host_cells=_host_cells(problem, placed),
        overhead_cell=completion.overhead_cell,
        units=completion.units,
        singles=completion.singles,
        io_threads=completion.io_threads,
        by_hand=completion.by_hand,
        compromise=compromise,
        distance=problem.bound_distance + distance,
    )
