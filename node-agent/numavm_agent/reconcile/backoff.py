"""How long a VM that keeps ending waits before its next start. Pure, the jitter included.

KubeVirt's rule: 10 s times the square of the count, at most 5 minutes; the first restart is at once, and a run of 5
minutes forgives what was before.
"""

from __future__ import annotations

import hashlib
from typing import Final

STEP_SECONDS: Final = 10.0
CAP_SECONDS: Final = 300.0
FORGIVEN_AFTER_SECONDS: Final = 300.0
CRASH_LOOP_FROM: Final = 3
"""From the third failure in a row on, people read CrashLoopBackOff."""
_JITTER: Final = 0.1


def delay_seconds(failures: int, key: str) -> float:
    """Return how long to wait after the `failures`-th failure in a row; a tenth of it or less is jitter, by `key`."""
    if failures <= 1:
        return 0.0
    base = min(CAP_SECONDS, STEP_SECONDS * (failures - 1) ** 2)
    digest = hashlib.sha256(f"{key}/{failures}".encode()).digest()
    return base * (1 + _JITTER * int.from_bytes(digest[:4]) / 2**32)


def failures_after(failures: int | None, ran_seconds: float) -> int:
    """Return the count of failures in a row, once a run of `ran_seconds` has ended without being asked to."""
    return 1 if ran_seconds >= FORGIVEN_AFTER_SECONDS else (failures or 0) + 1
