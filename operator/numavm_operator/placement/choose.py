"""The decision: the best host for a request, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable

from numavm_operator.placement.build import placement_of
from numavm_operator.placement.candidates import ineligible, unsuitable
from numavm_operator.placement.fit import fit
from numavm_operator.placement.fleet import Fleet
from numavm_operator.placement.groups import Sight
from numavm_operator.placement.host import FitKey
from numavm_operator.placement.memory import HARD_RANKS, Ranking
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
from numavm_operator.placement.request import Request
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
    name = _best(ranking, request)
    answer = None if name is None else ranking.answer_of(name)
    if name is None or answer is None or not isinstance(answer.verdict, Fit):
        return _refused(ranking, request, fleet)
    found = answer.verdict
    return Placed(
        node_name=name,
        placement=placement_of(fleet.states[name], request, found),
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


def _best(ranking: Ranking, request: Request) -> str | None:
    out = request.excluded.keys() | request.kept.keys()
    if request.tied_to is not None:
        tied = ranking.answer_of(request.tied_to)
        fits = tied is not None and tied.rank is not None and request.tied_to not in out
        return request.tied_to if fits else None
    best = ranking.best(out)
    if best is None or request.former_host is None or request.former_host in out:
        return None if best is None else best[1]
    former = ranking.answer_of(request.former_host)
    if former is None or former.rank is None:
        return best[1]
    as_good = former.rank[:HARD_RANKS] <= best[0][:HARD_RANKS]
    return request.former_host if as_good else best[1]


def _refused(ranking: Ranking, request: Request, fleet: Fleet) -> Refusal | Undecided:
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
    return request.excluded.keys() | request.kept.keys()


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
