"""The one line that `Scheduled=False` shows: how many hosts fail for what, and by how much the nearest one does."""

from __future__ import annotations

from typing import Final

from numavm_operator.placement.outcome import CauseCount, Refusal, Undecided
from numavm_operator.placement.wording import phrase, remedy

MAX_LENGTH: Final = 1000
"""Characters; the longest detail that a user or an agent writes is cut so that every cause is named."""
_MAX_DETAIL: Final = 120


def summary(outcome: Refusal | Undecided) -> str:
    """Return the message of a refusal, at most `MAX_LENGTH` characters.

    `0/3 hosts fit: 2 with 3 free dedicated CPUs in its best cell, 4 wanted (nearest: host-b); 1 unschedulable.
    ...`
    """
    parts = [_part(count) for count in outcome.counts]
    match outcome:
        case Undecided(undecided=undecided):
            head = f"0/{outcome.hosts} hosts known to fit, {len(undecided)} not searched to the end"
        case Refusal():
            head = f"0/{outcome.hosts} hosts fit"
    text = f"{head}: {'; '.join(parts)}" if parts else head
    help_ = _first_help(outcome.counts)
    if help_ and len(text) + len(help_) + 2 <= MAX_LENGTH:
        text = f"{text}. {help_}"
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"


def _part(count: CauseCount) -> str:
    words = phrase(count.nearest)
    if len(words) > _MAX_DETAIL:
        words = words[: _MAX_DETAIL - 1] + "…"
    nearest = (
        f" (nearest: {count.nearest_host})" if count.hosts > 1 and count.nearest.wanted else ""
    )
    return f"{count.hosts} {words}{nearest}"


def _first_help(counts: tuple[CauseCount, ...]) -> str:
    """Return what would help on the host that misses by least in what can be counted."""
    countable = [count for count in counts if count.nearest.wanted]
    chosen = countable[0] if countable else (counts[0] if counts else None)
    if chosen is None:
        return ""
    return f"To help {chosen.nearest_host}: {remedy(chosen.nearest)}"
