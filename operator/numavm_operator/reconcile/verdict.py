"""What a condition says, before it has a time."""

from __future__ import annotations

from dataclasses import dataclass

from numavm_api.conditions import ConditionStatus, Reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """Status, reason and message of one condition."""

    status: ConditionStatus
    reason: Reason
    message: str


def reason_named(text: str) -> Reason | None:
    """Return the reason of this name; None where only a newer version has it."""
    try:
        return Reason(text)
    except ValueError:
        return None
