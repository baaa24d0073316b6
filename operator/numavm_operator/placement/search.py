"""The search for a map of guest cells to host cells, for a plain VM on one host.

Every guest cell on a host cell of its own, or else the compromise that the VM allows: guest cells that share, or for a
VM that named no cells the fewest host cells that take it together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numavm_operator.placement.bits import members
from numavm_operator.placement.complete import (
    Completion,
    complete,
    emulator_can_float,
    emulator_can_float_anywhere,
    sets_to_keep,
)
from numavm_operator.placement.devices import assign_devices
from numavm_operator.placement.distinct import Choice, Finish, choose_distinct
from numavm_operator.placement.hands import by_hand
from numavm_operator.placement.loads import Budget, SpreadCpus
from numavm_operator.placement.openings import Openings, fitting_cells, openings_of, spare_for_io
from numavm_operator.placement.policy import Policy
from numavm_operator.placement.problem import Fit, Problem
from numavm_operator.placement.score import slack_of
from numavm_operator.placement.sharing import choose_shared
from numavm_operator.placement.spanning import Part, parts_of


def compromise(problem: Problem, policy: Policy, budget: Budget) -> Fit | None:
    """Return the least compromise that the VM allows, or None."""
    if not problem.shape.declared:
        return _spanning(problem, policy, budget)
    if problem.shape.sharing and problem.open_cells:
        return _sharing(problem, policy, budget)
    return None


def apart(
    problem: Problem, policy: Policy, budget: Budget, openings: Openings | None = None
) -> Fit | None:
    """Return a map with every open guest cell on a host cell of its own, apart from the bound ones, or None.

    Args:
        problem: What to solve.
        policy: How far to search for shorter distances.
        budget: Counts the nodes of the search.
        openings: Who can go where, if that is known already.
    """
    shape = problem.shape
    order = shape.open_cells
    if not order:
        completion = _complete(problem, {}, budget)
        return _fit(problem, {}, completion, 0, 0) if completion else None
    candidates = openings or openings_of(problem, order)
    if candidates is None:
        return None
    simple = shape.counts_only and not problem.bound_mask and not problem.watched

    def finish(cells: tuple[int, ...]) -> Completion | None:
        if simple and emulator_can_float(problem.cells, shape, cells):
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
        and emulator_can_float_anywhere(problem.cells, shape),
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
    return choice._replace(gives=spare_for_io(problem, openings), wanted=wanted)


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
