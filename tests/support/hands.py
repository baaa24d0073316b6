"""A clock that the test turns."""

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass
class Hands:
    """Both of the operator's clocks; the time of day stands still."""

    at: float = 1000.0

    def seconds(self) -> float:
        """Return what the test has set."""
        return self.at

    def now(self) -> datetime:
        """Return a fixed time of day."""
        return datetime(2026, 1, 1, tzinfo=UTC)
