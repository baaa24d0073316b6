"""The operations that the agent records in a domain's metadata before it begins them, and how they read.

A stop remembers when it began, by the host's boot clock, and why: the guest's time to shut down is the same whoever
reads it, also after an agent was killed. A start needs no record: whoever first sees a running domain settles it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from numavm_agent.domain.metadata import Operation

STOP: Final = "Stop"
ASK_AGAIN_SECONDS: Final = 10.0
"""A guest that was still booting did not hear the first ACPI request."""


class StopCause(StrEnum):
    """Why NumaVM stops a domain."""

    NOT_WANTED = "NotWanted"
    """Halted, finished or deleted."""
    RESTART = "Restart"
    """Its restart token changed."""
    FENCED = "Fenced"
    """The host was declared dead, and the VM is no longer its."""


@dataclass(frozen=True, slots=True)
class StopUnderWay:
    """A stop that began."""

    cause: StopCause
    began: float
    """Seconds since boot."""


def stop_operation(cause: StopCause, *, began: float) -> Operation:
    """Return the record of a stop that begins at `began` seconds since boot."""
    return Operation(
        kind=STOP, before="Running", after=f"Shutoff:{cause}", step=f"Acpi@{began:.3f}"
    )


def is_stop(operation: Operation | None) -> bool:
    """Tell whether a stop has begun."""
    return operation is not None and operation.kind == STOP


def read_stop(operation: Operation) -> StopUnderWay:
    """Return what a stop's record says; where it is damaged, a stop that began with the host: its time is over."""
    _, _, cause = operation.after.partition(":")
    _, _, began = operation.step.partition("@")
    try:
        return StopUnderWay(StopCause(cause), float(began))
    except ValueError:
        return StopUnderWay(StopCause.NOT_WANTED, 0.0)


class StopStep(StrEnum):
    """How a stop goes on."""

    WAIT = "Wait"
    ASK_AGAIN = "AskAgain"
    CUT_POWER = "CutPower"


def next_stop_step(
    stop: StopUnderWay, *, grace_seconds: float, now: float, last_asked: float | None
) -> StopStep:
    """Return how a stop goes on at `now` seconds since boot; `last_asked` None: this agent has not asked yet."""
    if now >= stop.began + grace_seconds:
        return StopStep.CUT_POWER
    if last_asked is None or now >= last_asked + ASK_AGAIN_SECONDS:
        return StopStep.ASK_AGAIN
    return StopStep.WAIT
