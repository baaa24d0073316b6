"""Threads for what takes time, one job per VM at a time; the loop never waits for them.

Daemon threads on purpose: when the agent ends, a start under way is libvirt's to finish, and the next agent's to find.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from numavm_api.errors import NumaVMError

Outcome = TypeVar("Outcome")


class JobKind(StrEnum):
    """What a job does."""

    START = "Start"
    SETTLE = "Settle"
    STOP = "Stop"
    CHANGE = "Change"


@dataclass(frozen=True, slots=True)
class Done(Generic[Outcome]):
    """A job that ended."""

    uid: str
    kind: JobKind
    outcome: Outcome | NumaVMError


@dataclass(frozen=True, slots=True)
class _Job(Generic[Outcome]):
    uid: str
    kind: JobKind
    work: Callable[[], Outcome]


class Workers(Generic[Outcome]):
    """A fixed number of threads; `wake` is called whenever a job ends."""

    def __init__(self, threads: int, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._jobs: queue.SimpleQueue[_Job[Outcome]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Done[Outcome]] = queue.SimpleQueue()
        self._busy: dict[str, JobKind] = {}
        for number in range(threads):
            threading.Thread(target=self._run, name=f"worker-{number}", daemon=True).start()

    def submit(self, uid: str, kind: JobKind, work: Callable[[], Outcome]) -> None:
        """Have `work` done; only the loop's thread calls this, and only for a VM that is not busy."""
        self._busy[uid] = kind
        self._jobs.put(_Job(uid, kind, work))

    def doing(self, uid: str) -> JobKind | None:
        """Return what is being done for a VM; until the loop has taken the outcome, it counts as being done."""
        return self._busy.get(uid)

    def take_done(self) -> list[Done[Outcome]]:
        """Return the jobs that ended since the last call."""
        taken: list[Done[Outcome]] = []
        while True:
            try:
                done = self._done.get_nowait()
            except queue.Empty:
                return taken
            self._busy.pop(done.uid, None)
            taken.append(done)

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            outcome = _outcome_of(job)
            self._done.put(Done(job.uid, job.kind, outcome))
            self._wake()


def _outcome_of(job: _Job[Outcome]) -> Outcome | NumaVMError:
    try:
        return job.work()
    except NumaVMError as error:
        return error
    except Exception as error:  # noqa: BLE001 - the edge of a thread: it must not die
        return UnexpectedError(job.kind, error)


class UnexpectedError(NumaVMError):
    """A mistake in the agent itself; the job is tried again by the loop."""

    def __init__(self, kind: JobKind, error: Exception) -> None:
        super().__init__(f"{kind}: {type(error).__name__}: {error}")
        self.__cause__ = error
