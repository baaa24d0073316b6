"""What decisions found out about hosts, kept as long as it is true.

Fleets form a history: each step names the one host that it changed. A `Ranking` holds, for one shape of
request, every host's answer and a heap of those that fit; it catches up with a fleet by computing only the
hosts that changed since. A fleet that is not the newest of its history can still be asked and stepped from:
that begins a history of its own. Nothing here changes any answer; it only saves computing it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from numavm_operator.placement.candidates import emulated, unsuitable
from numavm_operator.placement.fit import NoFit, OutOfSteps, Verdict, fit, why_not
from numavm_operator.placement.outcome import Miss
from numavm_operator.placement.policy import Policy
from numavm_operator.placement.problem import Fit
from numavm_operator.placement.request import Wanted
from numavm_operator.placement.score import score_of
from numavm_operator.placement.state import FitKey, HostState

MAX_HOST_ANSWERS: Final = 200_000
"""Answers kept over all shapes, about 300 bytes each; the shapes not asked for longest go first."""
MAX_JOURNAL: Final = 100_000
ALIKE_PER_HOST: Final = 4
"""Remembered answers per host of the fleet before a shape's memory of states is emptied."""

Rank = tuple[bool, int, int, int, int, int, int, float]
"""Emulated, compromise, page sizes fallen back, devices astray, distance, soft taints, node affinity, what is left:
the order in which answers are preferred."""
HARD_RANKS: Final = 7
"""Up to here the former host has to be as good as the best."""
States = Mapping[str, HostState]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one host answered."""

    state: HostState
    verdict: Verdict
    rank: Rank | None
    """None: it does not fit."""


@dataclass(slots=True)
class Ranking:
    """Every host's answer to one shape of request."""

    wanted: Wanted
    policy: Policy
    position: int = -1
    """How much of the journal is in; -1: nothing yet."""
    answers: dict[str, Answer] = field(default_factory=dict)
    _heap: list[tuple[Rank, str]] = field(default_factory=list)
    _alike: dict[FitKey, Verdict] = field(default_factory=dict)
    _misses: dict[FitKey, Miss] = field(default_factory=dict)

    def fill(self, states: States) -> None:
        """Ask every host."""
        self.answers.clear()
        self._heap.clear()
        for name in states:
            self.refresh(name, states)

    def refresh(self, name: str, states: States) -> None:
        """Ask one host that changed, came or went."""
        state = states.get(name)
        if state is None:
            self.answers.pop(name, None)
            return
        known = self.answers.get(name)
        if known is not None and known.state is state:
            return
        answer = self._ask(state, len(states))
        self.answers[name] = answer
        if answer.rank is not None:
            heappush(self._heap, (answer.rank, name))

    def best(self, excluded: Container[str]) -> tuple[Rank, str] | None:
        """Return the best host that fits and is not excluded; those passed over stay in the heap."""
        passed_over: dict[str, Rank] = {}
        found = None
        while self._heap and found is None:
            rank, name = heappop(self._heap)
            answer = self.answers.get(name)
            if answer is None or answer.rank != rank or name in passed_over:
                continue
            passed_over[name] = rank
            if name not in excluded:
                found = (rank, name)
        for name, rank in passed_over.items():
            heappush(self._heap, (rank, name))
        return found

    def miss_on(self, name: str) -> Miss | None:
        """Return why a host does not fit; None: nobody knows, the budget was used up."""
        answer = self.answers[name]
        match answer.verdict:
            case Miss() as miss:
                return miss
            case NoFit():
                key = answer.state.fit_key(self.wanted.shape)
                if key not in self._misses:
                    self._misses[key] = why_not(answer.state, self.wanted)
                return self._misses[key]
            case OutOfSteps() | Fit():
                return None

    def _ask(self, state: HostState, hosts: int) -> Answer:
        closed = unsuitable(state.host, self.wanted)
        if closed is not None:
            return Answer(state, closed, None)
        key = state.fit_key(self.wanted.shape)
        verdict = self._alike.get(key)
        if verdict is None:
            verdict = fit(state, self.wanted, self.policy)
            if len(self._alike) > ALIKE_PER_HOST * hosts:
                self._alike.clear()
                self._misses.clear()
            self._alike[key] = verdict
        match verdict:
            case Fit():
                return Answer(state, verdict, self._rank(state, verdict))
            case Miss() | NoFit() | OutOfSteps():
                return Answer(state, verdict, None)

    def _rank(self, state: HostState, found: Fit) -> Rank:
        shape = self.wanted.ways[found.way].shape
        return (
            emulated(state.host, self.wanted.host),
            found.compromise,
            *found.settled,
            found.distance,
            *self.wanted.host.nodes.dislike(state.host.node),
            score_of(state, shape, found, self.policy.weights),
        )


@dataclass(slots=True)
class History:
    """A line of fleets, each one step after the other."""

    journal: list[str] = field(default_factory=list)
    """The host that each step changed."""
    rankings: OrderedDict[tuple[Policy, Wanted], Ranking] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True)
class Lineage:
    """A fleet's place in its history."""

    history: History
    at: int

    @classmethod
    def new(cls) -> Lineage:
        """Return the beginning of a history."""
        return cls(History(), 0)

    def after(self, changed_host: str) -> Lineage:
        """Return the place of the fleet that differs from this one in one host."""
        journal = self.history.journal
        if len(journal) != self.at or len(journal) >= MAX_JOURNAL:
            return Lineage.new()
        journal.append(changed_host)
        return Lineage(self.history, self.at + 1)

    def ranking(self, wanted: Wanted, policy: Policy, states: States) -> Ranking:
        """Return every host's answer, asking only those that changed since this shape was last asked for."""
        rankings = self.history.rankings
        key = (policy, wanted)
        ranking = rankings.get(key)
        if ranking is None or ranking.position > self.at:
            ranking = Ranking(wanted, policy)
            ranking.fill(states)
        else:
            for name in set(self.history.journal[ranking.position : self.at]):
                ranking.refresh(name, states)
        ranking.position = self.at
        if self.at == len(self.history.journal):
            rankings[key] = ranking
            rankings.move_to_end(key)
            self._forget(len(states))
        return ranking

    def _forget(self, hosts: int) -> None:
        rankings = self.history.rankings
        while len(rankings) > 1 and len(rankings) * hosts > MAX_HOST_ANSWERS:
            rankings.popitem(last=False)
