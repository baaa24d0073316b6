"""The port `Clock` on the kernel's clocks."""

from __future__ import annotations

import time


class SystemClock:
    """CLOCK_REALTIME and CLOCK_BOOTTIME."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def boottime(self) -> float:
        """Return seconds since the host booted, time asleep included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
