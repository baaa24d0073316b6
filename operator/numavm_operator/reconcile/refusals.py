"""What agents have refused, and how long a host is left out for it. Pure.

A refusing agent has brought its NumaHost up to date first, so a changed NumaHost is a reason to try
again at once: the cause may be gone, or is now visible to the placement. Not quite at once where it
refuses again and again: each attempt changes the report.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from numavm_api.conditions import ClaimRefusalReason
from numavm_api.vm_status import DomainRefusal, Refusal
from numavm_operator.timestamps import parse_timestamp, timestamp

FIRST_SECONDS: Final = 30.0
LONGEST_SECONDS: Final = 300.0
LEAST_SECONDS: Final = 2.0
"""From the second refusal in a row on, doubling.

How long a host is left out though its report has changed.
"""
_LONGEST_LEAST_SECONDS: Final = 30.0

NOT_THE_HOSTS_FAULT: Final = frozenset(
    {ClaimRefusalReason.STALE_EPOCH, ClaimRefusalReason.SPEC_CHANGED}
)
"""Refusals that speak of the claim, not of the host: the VM is just placed again."""


def recorded(
    refusals: Iterable[Refusal],
    refused: DomainRefusal,
    *,
    node_name: str,
    host_version: str,
    now: datetime,
) -> list[Refusal]:
    """Return the refusals with one more: the newest per host, others kept.

    One that is not the host's fault is not kept.
    """
    before = list(refusals)
    if refused.reason in NOT_THE_HOSTS_FAULT:
        return before
    former = [one for one in before if one.node_name == node_name]
    new = Refusal(
        node_name=node_name,
        placement_id=refused.placement_id,
        reason=refused.reason,
        message=refused.message,
        host_resource_version=host_version,
        time=timestamp(now),
        count=former[0].count + 1 if former else 1,
    )
    return sorted([*(one for one in before if one not in former), new], key=_by_host)


@dataclass(frozen=True, slots=True)
class Excluded:
    """A host that is left out for now."""

    why: str
    seconds_left: float


def excluded(refusal: Refusal, *, host_version: str | None, now: datetime) -> Excluded | None:
    """Return why and for how long a host is left out, or None where it may be tried again.

    Args:
        refusal: The newest of this host.
        host_version: The NumaHost's resourceVersion now; None where there is none.
        now: The time of day.
    """
    refused_at = parse_timestamp(refusal.time) or now
    unchanged = host_version == refusal.host_resource_version
    seconds = _doubled(FIRST_SECONDS, refusal.count - 1, LONGEST_SECONDS)
    if not unchanged:
        in_a_row = refusal.count - 2
        seconds = (
            _doubled(LEAST_SECONDS, in_a_row, _LONGEST_LEAST_SECONDS) if in_a_row >= 0 else 0.0
        )
    left = (refused_at + timedelta(seconds=seconds) - now).total_seconds()
    if left <= 0:
        return None
    return Excluded(f"{refusal.reason}: {refusal.message}", left)


def _doubled(first: float, times: int, longest: float) -> float:
    return min(longest, first * 2.0 ** min(times, 16))


def _by_host(refusal: Refusal) -> str:
    return refusal.node_name
