"""Python's cyclic garbage collector, kept from holding up the event loop.

A full collection looks at every object that is kept: with ten thousand VMs that takes hundreds of milliseconds, and
finds nothing, for what is kept are frozen values without cycles. So what a full collection has left is frozen, which
means that none looks at it again: each costs what came since the last one. What is frozen is still freed when nobody
refers to it any more (gc.freeze() in Python's manual).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_OLDEST: Final = 2
"""The generation of a full collection."""
_LOOK_AGAIN: Final = 1000
"""After so many full collections one looks at everything again.

What was in use when it was frozen may have become garbage in cycles since: a dozen objects each time.
"""


@contextmanager
def survivors_frozen(look_again: int = _LOOK_AGAIN) -> Iterator[None]:
    """Have what is there now, and what a full collection leaves, frozen meanwhile."""
    count = 0

    def collected(phase: str, info: dict[str, int]) -> None:
        nonlocal count
        if phase != "stop" or info["generation"] != _OLDEST:
            return
        count += 1
        if count % look_again == 0:
            gc.unfreeze()  # for the next one
        else:
            gc.freeze()

    gc.freeze()
    gc.callbacks.append(collected)
    try:
        yield
    finally:
        gc.callbacks.remove(collected)
        gc.unfreeze()
