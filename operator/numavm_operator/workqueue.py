"""A queue of keys to look at: each at most once in it, and at most once in hand.

Owns the rules of Kubernetes' workqueue (client-go util/workqueue): a key added while it waits is
not added twice; added while a worker has it in hand, it comes back after; a failed key comes back
with exponential backoff and jitter, which success ends.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 60.0


class WorkQueue(Generic[Key]):
    """Keys waiting for a worker."""

    def __init__(self, jitter: random.Random | None = None) -> None:
        self._waiting: deque[Key] = deque()
        self._since: dict[Key, float] = {}
        self._queued: set[Key] = set()
        self._in_hand: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._arrived = asyncio.Event()
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads retries, no secret

    def __len__(self) -> int:
        return len(self._waiting)

    def oldest_seconds(self) -> float:
        """Return how long the key that waits longest has waited; 0 where none waits. Any thread may ask."""
        since = self._since.copy().values()
        return time.monotonic() - min(since) if since else 0.0

    def add(self, key: Key) -> None:
        """Have `key` looked at as soon as a worker is free."""
        if key in self._in_hand:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._waiting.append(key)
            self._since[key] = time.monotonic()
            self._arrived.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Have `key` looked at in so many seconds; of several such wishes the soonest counts."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= due:
                return
            pending.cancel()
        self._timers[key] = loop.call_at(due, self._due, key)

    async def take(self) -> Key:
        """Wait for the next key and take it in hand; give it back with `done` or `failed`."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        key = self._waiting.popleft()
        self._queued.discard(key)
        self._since.pop(key, None)
        self._in_hand.add(key)
        return key

    def done(self, key: Key) -> None:
        """Give back a key that was looked at with success."""
        self._failures.pop(key, None)
        self._give_back(key)

    def failed(self, key: Key) -> float:
        """Give back a key to be tried again; return in how many seconds it will be."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 16))
        seconds = longest * self._jitter.uniform(0.5, 1.0)
        self._give_back(key)
        self.add_after(key, seconds)
        return seconds

    def close(self) -> None:
        """Drop every timer."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _give_back(self, key: Key) -> None:
        self._in_hand.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
