"""Sharing out: demands that may be met from several places, places with limits.

A transport problem with a yes or no answer, solved by augmenting paths (Ford and Fulkerson): exact, and small
enough here (16 guest cells, 64 host cells) to need nothing cleverer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Demand:
    """An amount that is wanted from some places together."""

    amount: int
    places: tuple[int, ...]


def share_out(demands: Sequence[Demand], limits: Mapping[int, int]) -> list[dict[int, int]] | None:
    """Return per demand how much comes from which place, as evenly as a first pass allows; None: impossible.

    Args:
        demands: What is wanted.
        limits: What each place can give.
    """
    room = {place: max(limit, 0) for place, limit in limits.items()}
    given: list[dict[int, int]] = [_evenly(demand, room) for demand in demands]
    for index, demand in enumerate(demands):
        while sum(given[index].values()) < demand.amount:
            missing = demand.amount - sum(given[index].values())
            if not _augment(index, missing, demands, given, room):
                return None
    return given


def _evenly(demand: Demand, room: dict[int, int]) -> dict[int, int]:
    """Take equal parts, the smallest places first, so that what one lacks the others give."""
    given: dict[int, int] = {}
    left = demand.amount
    places = sorted(demand.places, key=lambda place: (room[place], place))
    for position, place in enumerate(places):
        part = min(-(-left // (len(places) - position)), room[place])
        given[place] = part
        room[place] -= part
        left -= part
    return given


def _augment(
    start: int,
    missing: int,
    demands: Sequence[Demand],
    given: list[dict[int, int]],
    room: dict[int, int],
) -> bool:
    """Find a chain of shifts from demand `start` to a place with room, and carry it out."""
    came_from: dict[int, tuple[int, int]] = {}
    queue = [start]
    seen = {start}
    for demand in queue:
        for place in demands[demand].places:
            if place in came_from:
                continue
            came_from[place] = (demand, place)
            if room[place] > 0:
                _shift(start, place, missing, came_from, given, room)
                return True
            for other, parts in enumerate(given):
                if other not in seen and parts.get(place, 0) > 0:
                    seen.add(other)
                    came_from[-1 - other] = (demand, place)
                    queue.append(other)
    return False


def _shift(
    start: int,
    end: int,
    missing: int,
    came_from: Mapping[int, tuple[int, int]],
    given: list[dict[int, int]],
    room: dict[int, int],
) -> None:
    chain = [(came_from[end][0], end)]
    while chain[-1][0] != start:
        previous, place = came_from[-1 - chain[-1][0]]
        chain.append((previous, place))
    amount = min(missing, room[end])
    for (displaced, _), (_, place) in pairwise(chain):
        amount = min(amount, given[displaced][place])
    room[end] -= amount
    for position, (demand, place) in enumerate(chain):
        given[demand][place] = given[demand].get(place, 0) + amount
        if position + 1 < len(chain):
            given[demand][chain[position + 1][1]] -= amount
