"""Waiting for a condition with a deadline; a failure shows what was seen."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

_POLL_SECONDS = 0.1


def wait_for(
    observe: Callable[[], Seen],
    *,
    until: Callable[[Seen], bool] = bool,
    deadline_seconds: float = 30.0,
    describe: str,
    poll_seconds: float = _POLL_SECONDS,
) -> Seen:
    """Observe until ``until`` holds and return what was then seen.

    An exception of ``observe`` fails the test at once; catch there what is expected while waiting.

    Raises:
        AssertionError: The deadline passed; the text has ``describe`` and the last thing seen.
    """
    end = time.monotonic() + deadline_seconds
    while not until(seen := observe()):
        if time.monotonic() > end:
            raise AssertionError(
                f"not within {deadline_seconds:g} s: {describe}; last seen: {seen!r}"
            )
        time.sleep(poll_seconds)
    return seen
