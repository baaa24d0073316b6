"""The last step of a map: where QEMU's overhead and emulator go, and which host cell gives which CPUs.

Takes loads whose cells each bear what is on them, and answers whether the VM as a whole fits: the overhead on
one of its host cells, the emulator's own CPU on the same, CPUs of guest cells on several host cells shared out,
and a CPU left for every emulator that floats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from numavm_operator.placement.bits import members
from numavm_operator.placement.flow import Demand, share_out
from numavm_operator.placement.free import FreeCell
from numavm_operator.placement.loads import Budget, Loads, SpreadCpus
from numavm_operator.placement.request import CpuRule, Shape


@dataclass(frozen=True, slots=True)
class Completion:
    """What completes a map."""

    overhead_cell: int
    """Index of the host cell with QEMU's overhead and, if it has one, the emulator's CPU."""
    units: tuple[tuple[int, int, int], ...] = ()
    """(guest cell, host cell, units) of guest cells whose CPUs come from several host cells."""
    singles: tuple[tuple[int, int], ...] = ()
    """(guest cell, host cell) of the one vCPU beside the pairs of such a guest cell."""


def complete(
    loads: Loads,
    used: Sequence[int],
    spread: Sequence[SpreadCpus],
    watched: Sequence[int],
    budget: Budget,
) -> Completion | None:
    """Return what completes the map, or None: nothing does.

    Args:
        loads: What each host cell bears already.
        used: Host cells of the VM, those preferred for the emulator first.
        spread: vCPUs that are not on `loads` yet.
        watched: Masks of host cells in each of which a CPU must stay free.
        budget: Counts the ways tried.
    """
    sets = [*watched, *_own_watch(loads, used)]
    for overhead_cell in used:
        if not loads.bears(
            overhead_cell, emulators=loads.shape.emulators, overhead=loads.shape.overhead
        ):
            continue
        found = (
            _shared_out(loads, overhead_cell, spread, sets, budget)
            if spread
            else _as_it_is(loads, overhead_cell, sets)
        )
        if found is not None:
            return found
    return None


def emulator_can_float(cells: Sequence[FreeCell], shape: Shape, used: Iterable[int]) -> bool:
    """Tell whether the emulator needs no thought: it has a CPU of its own, or CPUs here that nobody can take."""
    if shape.emulators or shape.rule is CpuRule.FLOAT:
        return True
    return any(cells[cell].refuge for cell in used)


def _own_watch(loads: Loads, used: Sequence[int]) -> list[int]:
    """Return the VM's own host cells where its emulator has only their free CPUs to float over."""
    if emulator_can_float(loads.cells, loads.shape, used):
        return []
    return [sum(1 << cell for cell in used)]


def _as_it_is(loads: Loads, overhead_cell: int, sets: Sequence[int]) -> Completion | None:
    if not sets:
        return Completion(overhead_cell)
    left = [
        cell.free - loads.taken(index, loads.shape.emulators if index == overhead_cell else 0)
        for index, cell in enumerate(loads.cells)
    ]
    if all(any(left[index] > 0 for index in members(mask)) for mask in sets):
        return Completion(overhead_cell)
    return None


def _shared_out(
    loads: Loads,
    overhead_cell: int,
    spread: Sequence[SpreadCpus],
    sets: Sequence[int],
    budget: Budget,
) -> Completion | None:
    """Try every way to keep a CPU free in each set and to place the singles; the rest is a flow."""
    may_keep = [[cell for cell in members(mask) if loads.cells[cell].free > 0] for mask in sets]
    for keepers in product(*may_keep):
        for singles in _ways_for_singles(spread):
            budget.step()
            found = _by_flow(loads, overhead_cell, spread, frozenset(keepers), singles)
            if found is not None:
                return found
    return None


def _ways_for_singles(spread: Sequence[SpreadCpus]) -> Iterator[tuple[tuple[int, int], ...]]:
    with_single = [one for one in spread if one.singles]
    for cells in product(*(one.host_cells for one in with_single)):
        guests = (one.guest_cell for one in with_single)
        yield tuple(zip(guests, cells, strict=True))


def _by_flow(
    loads: Loads,
    overhead_cell: int,
    spread: Sequence[SpreadCpus],
    keepers: frozenset[int],
    singles: tuple[tuple[int, int], ...],
) -> Completion | None:
    for _, cell in singles:
        loads.singles[cell] += 1
    limits = {
        index: loads.unit_room(
            index,
            emulators=loads.shape.emulators if index == overhead_cell else 0,
            kept=1 if index in keepers else 0,
        )
        for index in range(len(loads.cells))
    }
    loaded = [
        index
        for index in range(len(loads.cells))
        if loads.units[index] or loads.singles[index] or index == overhead_cell
    ]
    for _, cell in singles:
        loads.singles[cell] -= 1
    if any(limits[index] < 0 for index in loaded):
        return None
    demands = [Demand(one.units, one.host_cells) for one in spread]
    shares = share_out(demands, limits)
    if shares is None:
        return None
    units = tuple(
        (one.guest_cell, cell, amount)
        for one, share in zip(spread, shares, strict=True)
        for cell, amount in share.items()
        if amount
    )
    return Completion(overhead_cell, units, singles)
