"""How the agent gets on, for probes and metrics: how its loop last turned, when its watch last heard, what runs.

Written by the loop and the watch, read by the endpoint's threads: each field is one value, replaced whole.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from numavm_agent.ports import Clock
from numavm_api.placement import Placement
from numavm_api.vm_status import NumaStatus

HUNG_SECONDS: Final = 120.0
"""A turn that takes longer hangs: a restart of the agent touches no guest."""
STALE_PERIODS: Final = 6
"""So many periods without a good turn, and the agent is of no use."""


class TurnResult(StrEnum):
    """How a turn of the loop went."""

    OK = "ok"
    API_UNAVAILABLE = "api_unavailable"
    LIBVIRT_UNAVAILABLE = "libvirt_unavailable"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class GuestNow:
    """A domain of NumaVM's, as the loop last saw it."""

    namespace: str
    name: str
    uuid: str
    pid: int | None
    placement: Placement
    numa: NumaStatus | None
    """What the kernel confirmed last; None: not read since this agent started."""


@dataclass(slots=True)
class Pulse:
    """The agent's signs of life."""

    clock: Clock
    period_seconds: float
    guests: tuple[GuestNow, ...] = ()
    heard_at: float | None = None
    """When the watch was last known to be alive, in seconds since boot."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _turns: dict[TurnResult, int] = field(default_factory=dict)
    _turned_at: float | None = None
    _good_at: float | None = None
    _last: TurnResult | None = None
    _began_at: float | None = None

    def began(self) -> float:
        """Note that a turn begins; return when, in seconds since boot."""
        self._began_at = self.clock.boottime()
        return self._began_at

    def turned(self, result: TurnResult) -> None:
        """Note that a turn has ended."""
        with self._lock:
            self._turned_at = self.clock.boottime()
            self._last = result
            self._turns[result] = self._turns.get(result, 0) + 1
            if result is TurnResult.OK:
                self._good_at = self._turned_at

    def runs(self, guests: Iterable[GuestNow]) -> None:
        """Note what runs."""
        self.guests = tuple(guests)

    def heard(self) -> None:
        """Note that the watch is alive."""
        self.heard_at = self.clock.boottime()

    def turns(self) -> dict[TurnResult, int]:
        """Return how many turns went how."""
        with self._lock:
            return {result: self._turns.get(result, 0) for result in TurnResult}

    def watch_age_seconds(self) -> float | None:
        """Return how long ago the watch was last known to be alive; None: never."""
        at = self.heard_at
        return None if at is None else self.clock.boottime() - at

    def hangs(self) -> str | None:
        """Say why the process should be started anew; None: it should not."""
        began, turned = self._began_at, self._turned_at
        if began is None or (turned is not None and turned >= began):
            return None  # between two turns
        age = self.clock.boottime() - began
        return f"a turn of the loop has taken {age:.0f} s so far" if age > HUNG_SECONDS else None

    def problem(self) -> str | None:
        """Say why the agent is of no use now; None where it is."""
        with self._lock:
            good, last = self._good_at, self._last
        if good is None:
            return f"no turn of the loop went well yet; the last: {last or 'none'}"
        age = self.clock.boottime() - good
        if age > STALE_PERIODS * self.period_seconds:
            return f"the last good turn of the loop was {age:.0f} s ago; the last: {last}"
        return None
