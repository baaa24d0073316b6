"""Sharing out: demands that may be met from several places, places with limits; and wishes that want one thing each.

Flows with a yes or no answer, solved by augmenting paths (Ford and Fulkerson): exact, and small enough here
(16 guest cells, 64 host cells, 512 threads) to need nothing cleverer.
"""

from __future__ import annotations

from collections import Counter
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


def match_all(options: Sequence[Sequence[int]]) -> list[int] | None:
    """Return one option for each, all different, or None: there is no such choice."""
    one_group = dict.fromkeys((option for some in options for option in some), 0)
    return match_within(options, one_group, (len(options),))


def match_within(
    options: Sequence[Sequence[int]], group_of: Mapping[int, int], caps: Sequence[int]
) -> list[int] | None:
    """Return one option for each, all different and no more of a group than its cap; None: there is no such choice.

    Args:
        options: What will do, per wish, the preferred first.
        group_of: The group of each option.
        caps: How many options of each group may be chosen.
    """
    chosen: dict[int, int] = {}
    for start in range(len(options)):
        came_from: dict[int, tuple[int, int]] = {}
        queue, end = [start], None
        for wish in queue:
            end = _open_option(options[wish], group_of, caps, chosen)
            if end is not None:
                _take_over(wish, end, start, came_from, chosen)
                break
            for option in options[wish]:
                for other in _in_the_way(option, group_of, chosen):
                    if other != start and other not in came_from:
                        came_from[other] = (wish, option)
                        queue.append(other)
        if end is None:
            return None
    return [chosen[wish] for wish in range(len(options))]


def _open_option(
    options: Sequence[int],
    group_of: Mapping[int, int],
    caps: Sequence[int],
    chosen: Mapping[int, int],
) -> int | None:
    """Return an option that nobody has, in a group that is not full."""
    held = set(chosen.values())
    counts = Counter(group_of[option] for option in held)
    return next(
        (
            option
            for option in options
            if option not in held and counts[group_of[option]] < caps[group_of[option]]
        ),
        None,
    )


def _in_the_way(option: int, group_of: Mapping[int, int], chosen: Mapping[int, int]) -> list[int]:
    """Return whose moving would free an option: its owner, or else anyone in its group."""
    owner = [wish for wish, held in chosen.items() if held == option]
    return owner or [wish for wish, held in chosen.items() if group_of[held] == group_of[option]]


def _take_over(
    wish: int,
    option: int,
    start: int,
    came_from: Mapping[int, tuple[int, int]],
    chosen: dict[int, int],
) -> None:
    """Give each wish on the path the option that the next one leaves."""
    chosen[wish] = option
    while wish != start:
        wish, option = came_from[wish]
        chosen[wish] = option


def can_match(candidates: Sequence[int], taken: int) -> bool:
    """Tell whether every guest cell can have a host cell of its own.

    Args:
        candidates: Per guest cell, the mask of host cells that can take it.
        taken: Host cells that count no more.
    """
    owner: dict[int, int] = {}

    def find(guest: int, seen: int) -> int:
        """Return -1 where a host cell was found, else the mask of those tried in vain."""
        left = candidates[guest] & ~taken
        while left & ~seen:
            cell = left & ~seen
            cell &= -cell
            seen |= cell
            if cell in owner:
                tried = find(owner[cell], seen)
                if tried != -1:
                    seen |= tried
                    continue
            owner[cell] = guest
            return -1
        return seen

    return all(find(guest, 0) == -1 for guest in range(len(candidates)))
