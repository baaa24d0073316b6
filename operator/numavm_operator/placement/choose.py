"""The decision: the best host for a request, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from numavm_operator.placement.build import placement_of
from numavm_operator.placement.candidates import ineligible, unsuitable
from numavm_operator.placement.fit import OutOfSteps, fit
from numavm_operator.placement.fleet import Fleet
from numavm_operator.placement.groups import Sight
from numavm_operator.placement.host import FitKey
from numavm_operator.placement.outcome import (
    Cause,
    CauseCount,
    Miss,
    Placed,
    Refusal,
    Undecided,
)
from numavm_operator.placement.policy import Policy
from numavm_operator.placement.problem import Fit
from numavm_operator.placement.ranking import HARD_RANKS, Answer, Rank, Ranking
from numavm_operator.placement.request import Request
from numavm_operator.placement.spread import closed_off
from numavm_operator.placement.state import HostState

DEFAULT_POLICY = Policy()


def place(
    request: Request, fleet: Fleet, policy: Policy = DEFAULT_POLICY
) -> Placed | Refusal | Undecided:
    """Return where the VM goes and what it holds there, or why it goes nowhere.

    In this order the best host wins: KVM before emulation, no compromise (shared, spanned or more host cells), the
    page sizes asked for first, preferred devices near, least distance, no soft taint, preferred nodes, the former
    host, least fragmentation by the policy's weights, name. The same input gives the same answer.
    """
    ranking = fleet.lineage.ranking(request.wanted, policy, fleet.states)
    closed = _closed_off(request, fleet, ranking)
    best = _best(ranking, request, closed)
    found = None if best is None else best.answer.verdict
    if best is None or not isinstance(found, Fit):
        return _refused(ranking, request, fleet, closed)
    state = best.state or fleet.states[best.name]
    return Placed(
        node_name=best.name,
        placement=placement_of(state, request, found),
        spans_cells=not request.shape.declared and len(found.host_cells[0]) > 1,
        distance=found.distance,
        fallbacks=found.settled[0],
        astray=found.settled[1],
    )


def host_to_keep(request: Request, fleet: Fleet) -> str | None:
    """Return the host that is nearest to having room for a VM that was refused: the one with most CPUs free.

    None: no host could take it even if nothing were held there, so that keeping one would be in vain.
    """
    able: dict[FitKey, bool] = {}
    sight = Sight.of(request.wanted)
    best: tuple[int, str] | None = None
    for name, state in fleet.states.items():
        if ineligible(state.host, request) or unsuitable(state.host, request.wanted):
            continue
        empty = HostState.of(state.host, {})
        key = sight.key_of(empty)
        if key not in able:
            able[key] = isinstance(fit(empty, request.wanted, DEFAULT_POLICY), Fit)
        entry = (-sum(cell.free for cell in state.cells), name)
        if able[key] and (best is None or entry < best):
            best = entry
    return None if best is None else best[1]


class _Candidate(NamedTuple):
    """A host, with what it answers."""

    name: str
    answer: Answer
    state: HostState | None = None
    """Where some of its cells are closed off for this one VM; None: as the fleet has it."""


def _closed_off(request: Request, fleet: Fleet, ranking: Ranking) -> dict[str, _Candidate]:
    """Return the hosts of which only some cells are open to the VM."""
    found = {}
    for name, away in request.away.items():
        state = fleet.states.get(name)
        if state is not None and away.cells is not None and not ineligible(state.host, request):
            rest = closed_off(state, request.wanted, away)
            miss = Miss(Cause.SPREAD, detail=away.other)
            answer = Answer(miss, None) if rest is None else ranking.answer_on(rest)
            found[name] = _Candidate(name, answer, rest)
    return found


def _best(
    ranking: Ranking, request: Request, closed: Mapping[str, _Candidate]
) -> _Candidate | None:
    out = request.excluded.keys() | request.kept.keys() | request.away.keys()

    def named(name: str) -> _Candidate | None:
        answer = None if name in out else ranking.answer_of(name)
        found = closed.get(name) or (None if answer is None else _Candidate(name, answer))
        return None if found is None or found.answer.rank is None else found

    if request.tied_to is not None:
        return named(request.tied_to)
    first = ranking.best(out)
    names = [*closed, *([] if first is None else [first[1]])]
    able = [found for name in names if (found := named(name)) is not None]
    best = min(able, key=_goodness, default=None)
    former = None if request.former_host is None else named(request.former_host)
    if best is None or former is None:
        return best
    as_good = _goodness(former)[0][:HARD_RANKS] <= _goodness(best)[0][:HARD_RANKS]
    return former if as_good else best


def _goodness(found: _Candidate) -> tuple[Rank, str]:
    assert found.answer.rank is not None  # noqa: S101 - candidates without one are left out
    return found.answer.rank, found.name


def _refused(
    ranking: Ranking, request: Request, fleet: Fleet, closed: Mapping[str, _Candidate]
) -> Refusal | Undecided:
    """Say why no host fits: those that are out for this one VM by name, the others group by group."""
    misses: list[tuple[str, int, Miss]] = []
    undecided: list[str] = []
    out = {
        name: miss
        for name in _possibly_out(request, fleet)
        if name in fleet.states and (miss := ineligible(fleet.states[name].host, request))
    }
    for group, miss in ranking.misses():
        names = group.names - out.keys()
        apart = {name for name in names & closed.keys() if miss is None}
        names -= apart
        for name in apart:
            if isinstance(closed[name].answer.verdict, OutOfSteps):
                undecided.append(name)
            else:
                out[name] = Miss(Cause.SPREAD, detail=request.away[name].other)
        if names and miss is None:
            undecided.extend(names)
        elif names and miss is not None:
            misses.append((min(names), len(names), miss))
    misses += [(name, 1, miss) for name, miss in out.items()]
    counts = count_causes(misses)
    if undecided:
        return Undecided(len(fleet.states), tuple(sorted(undecided)), counts)
    return Refusal(len(fleet.states), counts)


def _possibly_out(request: Request, fleet: Fleet) -> Iterable[str]:
    if request.tied_to is not None:
        return fleet.states
    return request.excluded.keys() | request.kept.keys() | request.away.keys()


def count_causes(misses: Iterable[tuple[str, int, Miss]]) -> tuple[CauseCount, ...]:
    """Return the causes by number of hosts, each with the host that came nearest.

    Args:
        misses: (first host by name, how many hosts, why they do not fit).
    """
    hosts: dict[Cause, int] = {}
    nearest: dict[Cause, tuple[int, str, Miss]] = {}
    for name, count, miss in misses:
        hosts[miss.cause] = hosts.get(miss.cause, 0) + count
        known = nearest.get(miss.cause)
        if known is None or (miss.missing, name) < known[:2]:
            nearest[miss.cause] = (miss.missing, name, miss)
    order = list(Cause)
    return tuple(
        CauseCount(cause, count, nearest[cause][1], nearest[cause][2])
        for cause, count in sorted(hosts.items(), key=lambda item: (-item[1], order.index(item[0])))
    )
