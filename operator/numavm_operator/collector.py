"""Python's cyclic garbage collector, kept from holding up the event loop.

A full collection looks at every object that is kept: with ten thousand VMs that takes hundreds of milliseconds, and
finds nothing, for what is kept are frozen values without cycles. So what has been taken in is frozen, which means that
collections no longer look at it; it is still freed when nobody refers to it any more (gc.freeze() in Python's manual).
"""

from __future__ import annotations

import gc
from typing import Final

_MORE: Final = 1.25
_AT_LEAST: Final = 200
"""So much has to come before what is kept is frozen again: each time a little garbage may be frozen with it."""


class Collector:
    """The collector, told what is kept."""

    def __init__(self) -> None:
        self._frozen_at = 0

    def freeze_if_grown(self, kept: int) -> bool:
        """Freeze what is kept where it has become much more, or less, since that was last done; tell whether it was.

        Args:
            kept: How many objects of the API server are known.
        """
        grown = kept >= self._frozen_at * _MORE + _AT_LEAST
        shrunk = kept * _MORE + _AT_LEAST < self._frozen_at
        if not grown and not shrunk:
            return False
        if shrunk:
            gc.unfreeze()
            gc.collect()  # also of what was frozen
        gc.freeze()
        self._frozen_at = kept
        return True
