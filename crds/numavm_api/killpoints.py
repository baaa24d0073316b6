"""Named points at which operator and agent can be made to kill themselves, to prove that dying there loses nothing.

Owns the names and the way to arm one. Off unless `NUMAVM_KILL_POINT` is set: a process that nobody armed pays one dictionary
look-up per point. Armed, the process sends itself SIGKILL, so that no handler, buffer or `finally` can tidy up first.

    NUMAVM_KILL_POINT=before-claim-write       the first time the point is reached
    NUMAVM_KILL_POINT=before-claim-write:3     the third time
    NUMAVM_KILL_POINT=seed:17                  a point of this binary and a time of 1 to 5, both drawn from the seed

A process that starts over by exec counts from one again.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

KILL_POINT_VARIABLE: Final = "NUMAVM_KILL_POINT"
_MOST_SEEDED_TIMES: Final = 5


class KillPoint(StrEnum):
    """Where a process can be killed. Operator's first, agent's after."""

    BEFORE_FINALIZER = "before-finalizer"
    """Operator: a new VM is seen, its finalizer is not yet on."""
    AFTER_FINALIZER = "after-finalizer"
    """Operator: the finalizer is on, no claim is written."""
    BEFORE_CLAIM_WRITE = "before-claim-write"
    """Operator: placed and assumed, not written."""
    AFTER_CLAIM_WRITE = "after-claim-write"
    """Operator: the claim is on the server, its own cache does not know."""
    BEFORE_RELEASE = "before-release"
    """Operator: the agent released a claim, it is not yet cleared."""
    AFTER_RELEASE = "after-release"
    """Operator: the claim is cleared, waiting VMs are not yet woken."""
    BEFORE_STATUS_WRITE = "before-status-write"
    """Operator: conditions are computed, not written."""
    BEFORE_FINALIZER_REMOVAL = "before-finalizer-removal"
    """Operator: nothing is held any more, the finalizer is still on."""
    BEFORE_ADMIT = "before-admit"
    """Agent: a claim is seen, not yet judged."""
    BEFORE_DEFINE = "before-define"
    """Agent: admitted and rendered, libvirt has not heard of it."""
    AFTER_CREATE = "after-create"
    """Agent: the domain runs, nothing is reported."""
    BEFORE_VERIFY = "before-verify"
    """Agent: reported as started, threads and pages not yet read."""
    BEFORE_REPORT = "before-report"
    """Agent: the status is computed, not written."""
    BEFORE_DESTROY = "before-destroy"
    """Agent: decided to stop a domain, libvirt has not heard of it."""
    AFTER_DESTROY = "after-destroy"
    """Agent: the domain is gone, its claim is not yet released."""
    BEFORE_OPERATION = "before-operation"
    """Agent: an amended claim is admitted, the domain does not know of it."""
    OPERATION_RECORDED = "operation-recorded"
    """Agent: the domain's metadata hold both claims, nothing has moved."""
    PLUG_RECORDED = "plug-recorded"
    """Agent: the domain's metadata say what is plugged in, libvirt has not heard of it."""
    UNPLUG_RECORDED = "unplug-recorded"
    """Agent: the domain's metadata say what the guest is asked for, the guest has not heard of it."""
    BALLOON_RECORDED = "balloon-recorded"
    """Agent: the domain's metadata say what its balloon is to be, libvirt has not heard of it."""
    GROUPS_WIDENED = "groups-widened"
    """Agent: the domain may take memory of old and new host cells, its pages are where they were."""
    PAGES_MOVING = "pages-moving"
    """Agent: a batch of pages has moved, others have not."""
    PAGES_MOVED = "pages-moved"
    """Agent: every page was moved once, threads are where they were."""
    THREADS_MOVED = "threads-moved"
    """Agent: pages and threads have moved, the old host cells are still open to the domain."""
    GROUPS_NARROWED = "groups-narrowed"
    """Agent: only the new host cells are open, nothing is verified yet."""
    BEFORE_COMMIT = "before-commit"
    """Agent: verified, the domain's metadata still hold both claims."""
    AFTER_COMMIT = "after-commit"
    """Agent: the domain holds the new claim only, nothing is reported."""


OPERATOR_POINTS: Final = (
    KillPoint.BEFORE_FINALIZER,
    KillPoint.AFTER_FINALIZER,
    KillPoint.BEFORE_CLAIM_WRITE,
    KillPoint.AFTER_CLAIM_WRITE,
    KillPoint.BEFORE_RELEASE,
    KillPoint.AFTER_RELEASE,
    KillPoint.BEFORE_STATUS_WRITE,
    KillPoint.BEFORE_FINALIZER_REMOVAL,
)
OPERATION_POINTS: Final = (
    KillPoint.BEFORE_OPERATION,
    KillPoint.OPERATION_RECORDED,
    KillPoint.GROUPS_WIDENED,
    KillPoint.PAGES_MOVING,
    KillPoint.PAGES_MOVED,
    KillPoint.THREADS_MOVED,
    KillPoint.GROUPS_NARROWED,
    KillPoint.BEFORE_COMMIT,
    KillPoint.AFTER_COMMIT,
)
"""Those of the agent that only a move of a running domain reaches, in their order."""
HOT_POINTS: Final = (
    KillPoint.PLUG_RECORDED,
    KillPoint.UNPLUG_RECORDED,
    KillPoint.BALLOON_RECORDED,
)
"""Those of the agent that only vCPUs, memory modules and the balloon of a running domain reach."""
AGENT_POINTS: Final = tuple(point for point in KillPoint if point not in OPERATOR_POINTS)


def kill_self() -> None:
    """End this process at once, as the kernel's OOM killer would."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(slots=True)
class KillSwitch:
    """Counts how often each point is reached, and kills at the armed one."""

    point: KillPoint | None = None
    """None: not armed."""
    time: int = 1
    """At the how-manieth time the point is reached."""
    kill: Callable[[], None] = kill_self
    _reached: Counter[KillPoint] = field(default_factory=Counter)

    @classmethod
    def armed(cls, text: str | None, points: Collection[KillPoint]) -> KillSwitch:
        """Return the switch that `text` (the variable's value) arms among a binary's own points; None or "" arms nothing.

        Raises:
            ValueError: no point of this binary has that name, or the number is no positive whole number.
        """
        if not text:
            return cls()
        name, _, number = text.partition(":")
        if number and not number.isdecimal():
            raise ValueError(f"{KILL_POINT_VARIABLE}={text}: '{number}' is no whole number")
        if name == "seed":
            draw = random.Random(int(number or 0))  # noqa: S311 - a reproducible choice, no secret
            return cls(draw.choice(sorted(points)), draw.randint(1, _MOST_SEEDED_TIMES))
        if name not in {str(point) for point in points}:
            known = ", ".join(sorted(points))
            raise ValueError(
                f"{KILL_POINT_VARIABLE}={text}: no point '{name}' here; known: {known}"
            )
        time = int(number or 1)
        if time < 1:
            raise ValueError(f"{KILL_POINT_VARIABLE}={text}: the time counts from 1")
        return cls(KillPoint(name), time)

    def reach(self, point: KillPoint) -> None:
        """Say that `point` is reached; does not return where it is the armed one and its time has come."""
        if point is not self.point:
            return
        self._reached[point] += 1
        if self._reached[point] == self.time:
            self.kill()
