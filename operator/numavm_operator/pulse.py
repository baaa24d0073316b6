"""Whether a leader is of use: how fresh its lists are, whether its watches show what lists show, whether it gets on.

Owns the judgement behind `/readyz`. A watch may be silent because nothing happens or because it is dead: a full list
tells which. Leases change every few seconds; where a list finds that they did while their watch showed nothing at all,
the watch is dead. A kopf task that ends takes the process with it, and needs no judgement here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from numavm_operator.clock import Clock
from numavm_operator.picture import Kind

LONGEST_WAIT_SECONDS: Final = 120.0
"""A NumaVM that waits longer for a worker shows that none gets on."""
LOOP_SECONDS: Final = 30.0
"""A loop that runs every second and did not for so long has hung."""


@dataclass(slots=True)
class Pulse:
    """Changed by the event loop only; read by anyone."""

    clock: Clock
    resync_seconds: float
    listed_at: float | None = None
    judged_at: float | None = None
    _seen: dict[Kind, float] = field(default_factory=dict)
    _silent: set[Kind] = field(default_factory=set)

    def saw(self, kind: Kind) -> None:
        """Note that a watch has shown something."""
        self._seen[kind] = self.clock.seconds()
        self._silent.discard(kind)

    def listed(self, news: Mapping[Kind, bool]) -> None:
        """Note a full list.

        Args:
            news: Of each kind, whether the list had what its watch had not shown.
        """
        before = self.listed_at
        if before is not None:
            for kind, is_news in news.items():
                if is_news and self._seen.get(kind, before) <= before:
                    self._silent.add(kind)
        self.listed_at = self.clock.seconds()

    def judged(self) -> None:
        """Note that the loop which judges hosts has run."""
        self.judged_at = self.clock.seconds()

    def ages(self) -> dict[Kind, float]:
        """Return how long ago each watch last showed something; those that never did are left out."""
        now = self.clock.seconds()
        return {kind: now - at for kind, at in self._seen.copy().items()}

    def problem(self, oldest_seconds: float) -> str | None:
        """Say why this leader is of no use now; None where it is.

        Args:
            oldest_seconds: How long the NumaVM that waits longest for a worker has waited.
        """
        if self.listed_at is None:
            return "the first list is not complete"
        now = self.clock.seconds()
        age = now - self.listed_at
        if age > 3 * self.resync_seconds:
            return f"the last full list is {age:.0f} s old"
        if self._silent:
            kinds = ", ".join(sorted(self._silent))
            return f"the watch of {kinds} shows nothing of what a full list showed"
        if self.judged_at is not None and now - self.judged_at > LOOP_SECONDS:
            return f"hosts were last judged {now - self.judged_at:.0f} s ago"
        if oldest_seconds > LONGEST_WAIT_SECONDS:
            return f"a NumaVM has waited {oldest_seconds:.0f} s for a worker"
        return None
