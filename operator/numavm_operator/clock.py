"""The operator's clocks.

One that only moves forward, for deadlines, and one for people.

Deadlines use CLOCK_BOOTTIME, which unlike CLOCK_MONOTONIC goes on while the machine is suspended
(clock_gettime(2)): a leader that slept with its laptop must know that its time is over.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def seconds(self) -> float:
        """Return seconds since some fixed point; never runs backwards, goes on during suspend."""
        ...

    def now(self) -> datetime:
        """Return the time of day, UTC."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def seconds(self) -> float:
        """Return seconds since boot."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> datetime:
        """Return the time of day, UTC."""
        return datetime.now(UTC)
