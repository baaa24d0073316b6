"""What decisions found out about hosts, kept as long as it is true.

Fleets form a history: each step names the one host that it changed. For each shape of request the history holds a
`Ranking`, which catches up with a fleet when it is asked. A fleet that is not the newest of its history can still be
asked and stepped from: that begins a history of its own. Nothing here changes any answer; it only saves computing it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from numavm_operator.placement.groups import Grouping, Sight, States
from numavm_operator.placement.host import FitKey
from numavm_operator.placement.policy import Policy
from numavm_operator.placement.ranking import Ranking
from numavm_operator.placement.request import Wanted

MAX_HOST_ANSWERS: Final = 200_000
"""Answers kept over all shapes, about 300 bytes each; the shapes not asked for longest go first."""
MAX_JOURNAL: Final = 100_000


@dataclass(slots=True)
class History:
    """A line of fleets, each one step after the other."""

    journal: list[str] = field(default_factory=list)
    """The host that each step changed."""
    groupings: dict[Sight, Grouping] = field(default_factory=dict)
    """By what their requests see."""
    rankings: OrderedDict[FitKey, Ranking] = field(default_factory=OrderedDict)
    """By policy and what is wanted; those asked for last stand last."""


class Lineage(NamedTuple):
    """A fleet's place in its history."""

    history: History
    at: int

    @classmethod
    def new(cls) -> Lineage:
        """Return the beginning of a history."""
        return cls(History(), 0)

    @classmethod
    def of_nothing(cls) -> Lineage:
        """Return the beginning of the history of a fleet without hosts, whose groups are known."""
        return cls(History(groupings={Sight(): Grouping(Sight())}), 0)

    def after(self, changed_host: str, states: States) -> Lineage:
        """Return the place of the fleet that differs from this one in one host.

        Groups are brought up to date at once, so that no decision has to begin with it.
        """
        journal = self.history.journal
        if len(journal) != self.at or len(journal) >= MAX_JOURNAL:
            return Lineage.new()
        journal.append(changed_host)
        for grouping in self.history.groupings.values():
            if grouping.position == self.at:
                grouping.refresh(changed_host, states)
                grouping.position = self.at + 1
                if grouping.overgrown:
                    grouping.forget_empty()
        return Lineage(self.history, self.at + 1)

    def ranking(self, wanted: Wanted, policy: Policy, states: States) -> Ranking:
        """Return every host's answer, looking only at hosts that changed since."""
        rankings = self.history.rankings
        key = FitKey.of((policy, wanted))
        known = rankings.get(key)
        sight = Sight.of(wanted) if known is None else known.grouping.sight
        grouping = self._grouping(sight, states)
        if known is not None and known.grouping is grouping:
            rankings.move_to_end(key)
            known.catch_up()
            return known
        ranking = Ranking(wanted, policy, grouping)
        ranking.catch_up()
        if self.at == len(self.history.journal):
            rankings[key] = ranking
            rankings.move_to_end(key)
            self._forget(len(states))
        return ranking

    def _grouping(self, sight: Sight, states: States) -> Grouping:
        """Return the groups of this fleet: those of its history brought up to date, or, of an older one, its own."""
        known = self.history.groupings.get(sight)
        if known is not None and known.position <= self.at:
            for name in set(self.history.journal[known.position : self.at]):
                known.refresh(name, states)
            known.position = self.at
            return known
        grouping = Grouping.of(states, sight, self.at)
        if known is None:
            self.history.groupings[sight] = grouping
        return grouping

    def _forget(self, hosts: int) -> None:
        rankings = self.history.rankings
        while len(rankings) > 1 and len(rankings) * hosts > MAX_HOST_ANSWERS:
            rankings.popitem(last=False)
