"""Waiting for something to happen, with a deadline."""

import time
from collections.abc import Iterator

_POLL_SECONDS = 0.1


def polls(seconds: float) -> Iterator[None]:
    """Yield at short intervals until ``seconds`` have passed, at least once."""
    deadline = time.monotonic() + seconds
    yield
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        yield
