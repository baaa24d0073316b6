"""Why a VM is where it is, or nowhere: everything, host by host and cell by cell. Computed only when someone asks."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, Final

from numavm_operator.placement.candidates import ineligible, unsuitable
from numavm_operator.placement.choose import DEFAULT_POLICY, place
from numavm_operator.placement.fit import NoFit, OutOfSteps, Verdict, fit, why_not
from numavm_operator.placement.fleet import Fleet
from numavm_operator.placement.misses import Lack, lacks_of
from numavm_operator.placement.outcome import Cause, Miss, Placed
from numavm_operator.placement.policy import Policy
from numavm_operator.placement.problem import Fit, problem_of
from numavm_operator.placement.request import Request
from numavm_operator.placement.score import score_of
from numavm_operator.placement.spread import closed_off
from numavm_operator.placement.state import HostState
from numavm_operator.placement.summary import summary
from numavm_operator.placement.wording import phrase, remedy

SCORE_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class CellLacks:
    """What one host cell lacks for one guest cell; nothing: it could take it alone."""

    host_cell: int
    guest_cell: int
    lacks: tuple[Lack, ...]


@dataclass(frozen=True, slots=True)
class HostExplanation:
    """One host's answer."""

    node_name: str
    fits: bool
    message: str
    remedy: str = ""
    miss: Miss | None = None
    cells: tuple[CellLacks, ...] = ()
    distance: int | None = None
    compromise: int | None = None
    score: float | None = None
    host_cells: tuple[str, ...] = ()
    """Where it fits: the host cells of each guest cell."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole answer for one VM, as if it were placed now."""

    chosen: str | None
    held: tuple[str, ...]
    """Hosts on which it holds a claim now; these claims do not count against it here."""
    message: str
    hosts: tuple[HostExplanation, ...]
    """The chosen one first, then those that fit, best first, then the others, nearest first."""

    def to_api(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "chosen": self.chosen,
            "held": list(self.held),
            "message": self.message,
            "hosts": [_host_json(host) for host in self.hosts],
        }


def explain(request: Request, fleet: Fleet, policy: Policy = DEFAULT_POLICY) -> Explanation:
    """Return why this VM would go where it goes, host by host; nothing it holds itself stands in its way."""
    held = tuple(name for name in sorted(fleet.states) if request.uid in fleet.claims(name))
    free = fleet.apart()
    for name in held:
        free = free.without_claim(name, request.uid)
    outcome = place(request, free, policy)
    hosts = [_explain_host(state, request, policy) for state in free.states.values()]
    chosen = outcome.node_name if isinstance(outcome, Placed) else None
    hosts.sort(key=lambda host: _nearest_first(host, chosen))
    message = _why(hosts) if isinstance(outcome, Placed) else summary(outcome)
    return Explanation(chosen, held, message, tuple(hosts))


def _explain_host(state: HostState, request: Request, policy: Policy) -> HostExplanation:
    name = state.host.name
    closed = ineligible(state.host, request) or unsuitable(state.host, request.wanted)
    if closed is not None:
        return _missed(name, closed, ())
    away = request.away.get(name)
    rest = state if away is None else closed_off(state, request.wanted, away)
    found = NoFit() if rest is None else fit(rest, request.wanted, policy)
    if rest is not None and isinstance(found, Fit):
        return _fitting(rest, request, policy, found)
    if away is not None and isinstance(fit(state, request.wanted, policy), Fit):
        return _missed(name, Miss(Cause.SPREAD, detail=away.other), ())
    return _not_fitting(state, request, found)


def _not_fitting(state: HostState, request: Request, verdict: Verdict) -> HostExplanation:
    name = state.host.name
    match verdict:
        case Fit() | OutOfSteps():
            return HostExplanation(name, fits=False, message="not searched to the end")
        case Miss() as miss:
            return _missed(name, miss, _cells(state, request))
        case NoFit():
            return _missed(name, why_not(state, request.wanted), _cells(state, request))


def _fitting(state: HostState, request: Request, policy: Policy, found: Fit) -> HostExplanation:
    ids = [cell.id for cell in state.host.cells]
    shape = request.wanted.ways[found.way].shape
    score = score_of(state, shape, found, policy.weights)
    return HostExplanation(
        state.host.name,
        fits=True,
        message=f"fits: distance {found.distance}, left-over score {score:.3f}",
        distance=found.distance,
        compromise=found.compromise,
        score=round(score, SCORE_DIGITS),
        host_cells=tuple(
            ",".join(str(ids[index]) for index in indices) for indices in found.host_cells
        ),
    )


def _missed(name: str, miss: Miss, cells: tuple[CellLacks, ...]) -> HostExplanation:
    return HostExplanation(
        name, fits=False, message=phrase(miss), remedy=remedy(miss), miss=miss, cells=cells
    )


def _cells(state: HostState, request: Request) -> tuple[CellLacks, ...]:
    problem = problem_of(state, request.shape)
    if isinstance(problem, Miss):
        return ()
    return tuple(
        CellLacks(
            state.host.cells[cell].id,
            request.vm.cells[guest].id,
            tuple(lacks_of(problem, cell, request.shape.cells[guest])),
        )
        for guest in problem.open_cells
        for cell in range(len(problem.cells))
        if problem.shape.cells[guest].cell_class is None
        or problem.may_hold(problem.shape.cells[guest], cell)
    )


def _nearest_first(host: HostExplanation, chosen: str | None) -> tuple[Any, ...]:
    order = list(Cause)
    if host.fits:
        return (
            host.node_name != chosen,
            host.compromise,
            host.distance,
            host.score,
            host.node_name,
        )
    far = -order.index(host.miss.cause) if host.miss else 0
    return (True, inf, far, host.miss.missing if host.miss else 0, host.node_name)


def _why(hosts: list[HostExplanation]) -> str:
    """Say what put the first host before the next one that fits."""
    first = hosts[0]
    rest = [host for host in hosts[1:] if host.fits]
    if not rest:
        return f"{first.node_name} is the only host that fits"
    second = rest[0]
    if first.compromise != second.compromise:
        because = "it needs fewer host cells shared or spanned"
    elif first.distance != second.distance:
        because = f"distance {first.distance} against {second.distance}"
    elif first.score != second.score:
        because = f"it leaves less unused beside it (score {first.score} against {second.score})"
    else:
        because = "its name comes first"
    return (
        f"{first.node_name} of {1 + len(rest)} hosts that fit: before {second.node_name}, {because}"
    )


def _host_json(host: HostExplanation) -> dict[str, Any]:
    found: dict[str, Any] = {"node": host.node_name, "fits": host.fits, "message": host.message}
    if host.fits:
        found |= {
            "distance": host.distance,
            "compromise": host.compromise,
            "score": host.score,
            "hostCells": list(host.host_cells),
        }
    if host.miss is not None:
        miss = host.miss
        found |= {
            "cause": miss.cause.value,
            "wanted": miss.wanted,
            "available": miss.available,
            "missing": miss.missing,
            "remedy": host.remedy,
        }
    if host.cells:
        found["cells"] = [_cell_json(cell) for cell in host.cells]
    return found


def _cell_json(cell: CellLacks) -> dict[str, Any]:
    return {
        "hostCell": cell.host_cell,
        "guestCell": cell.guest_cell,
        "lacks": [
            {"cause": lack.cause.value, "wanted": lack.wanted, "available": lack.available}
            for lack in cell.lacks
        ],
    }
