"""Every host's answer to one shape of request, as far as somebody had to know.

A `Ranking` holds the answers of groups of hosts that are alike and a heap of them; it catches up with a fleet by
looking at the groups that came since. A group stands in the heap with a bound that its answer cannot beat, and is
searched only when its turn comes.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple, TypeVar

from numavm_operator.placement.bounds import Bounds
from numavm_operator.placement.candidates import emulated, unsuitable
from numavm_operator.placement.fit import NoFit, OutOfSteps, Verdict, fit, why_not
from numavm_operator.placement.groups import Group, Grouping
from numavm_operator.placement.host import Host
from numavm_operator.placement.outcome import Miss
from numavm_operator.placement.policy import Policy
from numavm_operator.placement.problem import Fit
from numavm_operator.placement.request import Wanted
from numavm_operator.placement.score import score_of
from numavm_operator.placement.state import HostState

Fact = TypeVar("Fact")

Rank = tuple[bool, int, int, int, int, int, int, float]
"""Emulated, compromise, page sizes fallen back, devices astray, distance, soft taints, node affinity, what is left:
the order in which answers are preferred."""
HARD_RANKS: Final = 7
"""Up to here the former host has to be as good as the best."""


class Answer(NamedTuple):
    """What the hosts of one group answer."""

    verdict: Verdict
    rank: Rank | None
    """None: they do not fit."""


_DOES_NOT_FIT: Final = Answer(NoFit(), None)


class Kind(NamedTuple):
    """What is the same for all hosts of a kind."""

    closed: Miss | None
    emulated: bool
    dislike: tuple[int, int]


@dataclass(slots=True)
class Ranking:
    """Every host's answer to one shape of request, as far as somebody had to know."""

    wanted: Wanted
    policy: Policy
    grouping: Grouping
    _read: int = 0
    """How much of `grouping.came` is in."""
    _forgot: int = field(init=False)
    """How much of `grouping.forgot` is in."""
    _heap: list[tuple[Rank, int]] = field(default_factory=list)
    """Rank, or a bound of it, and number of the group."""
    _waiting: set[int] = field(default_factory=set)
    """Groups in the heap."""
    _answers: dict[int, Answer] = field(default_factory=dict)
    _kinds: dict[int, Kind] = field(default_factory=dict)
    _misses: dict[int, Miss] = field(default_factory=dict)
    _bounds: Bounds = field(init=False)

    def __post_init__(self) -> None:
        self._forgot = self.grouping.forgot
        self._bounds = Bounds(self.wanted, self.policy.weights)

    def catch_up(self) -> None:
        """Queue the groups that came to have hosts."""
        if self._forgot != self.grouping.forgot:
            self._forget()
        came, answers, waiting = self.grouping.came, self._answers, self._waiting
        for at in range(self._read, len(came)):
            group = came[at]
            number = group.number
            if group.names and number not in waiting:
                answer = answers.get(number)
                rank = self._at_best(group) if answer is None else answer.rank
                if rank is not None:
                    heappush(self._heap, (rank, number))
                    waiting.add(number)
        self._read = len(came)

    def best(self, out: Container[str]) -> tuple[Rank, str] | None:
        """Return the best host that fits and is not `out`; of equals, the first by name."""
        seen: list[tuple[Rank, int]] = []
        found: tuple[Rank, str] | None = None
        while self._heap and (found is None or self._heap[0][0] <= found[0]):
            entry = heappop(self._heap)
            rank, number = entry
            group = self.grouping.groups[number]
            if not group.names:
                self._waiting.discard(number)
            elif number not in self._answers:
                self._search(group)
            else:
                seen.append(entry)
                name = group.first(out)
                if name is not None and (found is None or name < found[1]):
                    found = (rank, name)
        for entry in seen:
            heappush(self._heap, entry)
        return found

    def answer_of(self, name: str) -> Answer | None:
        """Return what one host answers; None: there is no such host."""
        group = self.grouping.of_host.get(name)
        return None if group is None else self._answer(group)

    def answer_on(self, state: HostState) -> Answer:
        """Return what a host would answer in a state that is none of its own; it is not remembered."""
        return self._ask(state, self._kind(state.host))

    def misses(self) -> Iterator[tuple[Group, Miss | None]]:
        """Yield why the hosts of each group do not fit; None: nobody knows, the budget was used up."""
        for group in set(self.grouping.of_host.values()):
            yield group, self._miss_of(group)

    def _miss_of(self, group: Group) -> Miss | None:
        match self._answer(group).verdict:
            case Miss() as miss:
                return miss
            case NoFit():
                known = self._misses.get(group.number)
                if known is None:
                    known = self._misses[group.number] = why_not(group.state, self.wanted)
                return known
            case OutOfSteps() | Fit():
                return None

    def _forget(self) -> None:
        """Forget what was found out about groups that the grouping has forgotten, and read anew who came."""
        groups = self.grouping.groups
        self._heap = [entry for entry in self._heap if entry[1] in groups]
        heapify(self._heap)
        self._waiting &= groups.keys()
        self._answers = _of_those(groups, self._answers)
        self._misses = _of_those(groups, self._misses)
        self._kinds = _of_those({group.kind for group in groups.values()}, self._kinds)
        self._read, self._forgot = 0, self.grouping.forgot

    def _search(self, group: Group) -> None:
        """Put a group that stood in the heap with its bound back with its rank, if it fits."""
        rank = self._answer(group).rank
        if rank is None:
            self._waiting.discard(group.number)
        else:
            heappush(self._heap, (rank, group.number))

    def _at_best(self, group: Group) -> Rank | None:
        """Return a rank that the group cannot beat; None: it cannot fit, and that is its answer."""
        kind = self._kind_of(group)
        if kind.closed is not None:
            self._answers[group.number] = Answer(kind.closed, None)
            return None
        least = self._bounds.least(group.state)
        if least is None:
            self._answers[group.number] = _DOES_NOT_FIT
            return None
        compromise, distance, score = least
        taints, nodes = kind.dislike
        return kind.emulated, compromise, 0, 0, distance, taints, nodes, score

    def _answer(self, group: Group) -> Answer:
        known = self._answers.get(group.number)
        if known is None:
            known = self._answers[group.number] = self._ask(group.state, self._kind_of(group))
        return known

    def _ask(self, state: HostState, kind: Kind) -> Answer:
        if kind.closed is not None:
            return Answer(kind.closed, None)
        found = fit(state, self.wanted, self.policy)
        if not isinstance(found, Fit):
            return Answer(found, None)
        shape = self.wanted.ways[found.way].shape
        score = score_of(state, shape, found, self.policy.weights)
        settled = (found.compromise, *found.settled, found.distance)
        return Answer(found, (kind.emulated, *settled, *kind.dislike, score))

    def _kind_of(self, group: Group) -> Kind:
        known = self._kinds.get(group.kind)
        if known is None:
            known = self._kinds[group.kind] = self._kind(group.state.host)
        return known

    def _kind(self, host: Host) -> Kind:
        needs = self.wanted.host
        closed = unsuitable(host, self.wanted)
        return Kind(closed, emulated(host, needs), needs.nodes.dislike(host.node))


def _of_those(numbers: Container[int], known: Mapping[int, Fact]) -> dict[int, Fact]:
    return {number: fact for number, fact in known.items() if number in numbers}
