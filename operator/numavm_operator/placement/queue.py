"""Whose turn it is: priority, then age; and a host kept for a VM that small ones would starve. Pure.

A large VM needs much room at once, and small VMs take each piece of it as it comes free. So the first in turn that
has been refused for a while gets one host kept: who comes later in turn does not go there, until the VM fits, or a
time limit ends it; then the others have their chance before it may have a host kept again. One host at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")
DEFAULT_PRIORITY: Final = 0
"""Where no class is named and none is the global default; as kube-apiserver has it."""


class Turn(NamedTuple):
    """A place in the queue; the smaller comes first."""

    minus_priority: int
    created: str
    name: str


def turn_of(priority: int, created: str, name: str) -> Turn:
    """Return the place of a VM: higher priority first, then the older one."""
    return Turn(-priority, created, name)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take."""

    before_seconds: float = 30.0
    """Refused for so long, a VM may have a host kept."""
    hold_seconds: float = 600.0
    """How long it is kept."""
    rest_seconds: float = 600.0
    """How long it waits, once that has ended in vain, before it may have one kept again."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A VM that waits for room."""

    turn: Turn
    since: float


@dataclass(frozen=True, slots=True)
class Kept:
    """A host kept for a VM."""

    uid: str
    turn: Turn
    node_name: str
    until: float


@dataclass(frozen=True, slots=True)
class Queue:
    """Who waits for room, and which host is kept for whom."""

    refused: Mapping[str, Refused] = field(default_factory=dict)
    """By uid."""
    kept: Kept | None = None
    resting: Mapping[str, float] = field(default_factory=dict)
    """Until when a VM has no host kept, by uid."""

    def with_refusal(self, uid: str, turn: Turn, now: float) -> Queue:
        """Return the queue in which a VM was refused; how long it waits counts from the first time."""
        since = self.refused[uid].since if uid in self.refused else now
        return replace(self, refused={**self.refused, uid: Refused(turn, since)})

    def without(self, uid: str) -> Queue:
        """Return the queue without a VM: it is placed, or wants no more."""
        if uid not in self.refused and uid not in self.resting:
            return self
        kept = None if self.kept is not None and self.kept.uid == uid else self.kept
        return Queue(_less(self.refused, uid), kept, _less(self.resting, uid))

    def reviewed(
        self, now: float, patience: Patience, host_for: Callable[[str], str | None]
    ) -> Queue:
        """Return the queue with the host that is to be kept now, if any.

        One VM is looked at each time; one that no host could ever take then rests, so that asking stays cheap.

        Args:
            now: In seconds of any clock that only goes forward.
            patience: The time limits.
            host_for: Names the host worth keeping for a VM; None: no host could ever take it.
        """
        queue = self._expired(now, patience)
        if queue.kept is not None:
            return queue
        for uid, waiting in sorted(queue.refused.items(), key=lambda item: item[1].turn):
            if now < waiting.since + patience.before_seconds or now < queue.resting.get(uid, now):
                continue
            host = host_for(uid)
            if host is None:
                rest = {**queue.resting, uid: now + patience.rest_seconds}
                return replace(queue, resting=rest)
            until = now + patience.hold_seconds
            return replace(queue, kept=Kept(uid, waiting.turn, host, until))
        return queue

    def closed_to(self, uid: str, turn: Turn) -> dict[str, str]:
        """Return the host that is kept from a VM, with whom for: later turns stay away, earlier ones may come."""
        kept = self.kept
        if kept is None or kept.uid == uid or turn < kept.turn:
            return {}
        return {kept.node_name: kept.turn.name}

    def kept_for(self, uid: str) -> str | None:
        """Return the host that is kept for a VM; None: none is."""
        return self.kept.node_name if self.kept is not None and self.kept.uid == uid else None

    def next_change(self, now: float, patience: Patience) -> float | None:
        """Return in how many seconds time alone changes something; None: never."""
        if self.kept is not None:
            return max(self.kept.until - now, 0.0)
        due = [
            max(waiting.since + patience.before_seconds, self.resting.get(uid, now)) - now
            for uid, waiting in self.refused.items()
        ]
        return min((seconds for seconds in due if seconds > 0), default=None)

    def _expired(self, now: float, patience: Patience) -> Queue:
        resting = {uid: until for uid, until in self.resting.items() if until > now}
        if self.kept is None or now < self.kept.until:
            return replace(self, resting=resting)
        rest = {**resting, self.kept.uid: now + patience.rest_seconds}
        return replace(self, kept=None, resting=rest)


def _less(items: Mapping[str, T], uid: str) -> dict[str, T]:
    return {key: value for key, value in items.items() if key != uid}
