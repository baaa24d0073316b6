"""Conditions with the time of their last transition carried along. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from numavm_api.conditions import Condition, ConditionStatus, Reason

_MESSAGE_MOST: Final = 4096


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition before it has a time."""

    type: str
    status: ConditionStatus
    reason: Reason
    message: str


def dated(
    findings: Sequence[Finding],
    before: Sequence[Condition],
    *,
    generation: int | None,
    now: str,
) -> list[Condition]:
    """Return the findings as conditions; one whose status is as `before` keeps its time."""
    times = {(one.type, one.status): one.last_transition_time for one in before}
    return [
        Condition(
            type=finding.type,
            status=finding.status,
            reason=str(finding.reason),
            message=finding.message[:_MESSAGE_MOST],
            last_transition_time=times.get((finding.type, finding.status), now),
            observed_generation=generation,
        )
        for finding in findings
    ]
