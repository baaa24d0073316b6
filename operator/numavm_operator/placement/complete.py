"""The last step of a map: where QEMU's overhead and emulator go, and which host cell gives which CPUs.

Takes loads whose cells each bear what is on them, and answers whether the VM as a whole fits: the overhead on
one of its host cells, the emulator's own CPU on the same, I/O threads on any of them, CPUs of guest cells on several
host cells shared out, and a CPU left for every emulator that floats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import NamedTuple

from numavm_operator.placement.bits import members
from numavm_operator.placement.flow import Demand, share_out
from numavm_operator.placement.free import FreeCell
from numavm_operator.placement.loads import Budget, Loads, SpreadCpus
from numavm_operator.placement.shape import CpuRule, Shape


class Completion(NamedTuple):
    """What completes a map."""

    overhead_cell: int
    """Index of the host cell with QEMU's overhead and, if it has one, the emulator's CPU."""
    units: tuple[tuple[int, int, int], ...] = ()
    """(guest cell, host cell, units) of guest cells whose CPUs come from several host cells."""
    singles: tuple[tuple[int, int], ...] = ()
    """(guest cell, host cell) of the one vCPU beside the pairs of such a guest cell."""
    io_threads: tuple[int, ...] = ()
    """The host cell of each I/O thread with a CPU of its own."""
    by_hand: tuple[int, ...] = ()
    """Where the user had a hand in it: the CPUs of all threads (`hands`)."""


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
    sets = sets_to_keep(loads, used, watched)
    for overhead_cell in used:
        if not loads.bears(
            overhead_cell, emulators=loads.shape.emulators, overhead=loads.shape.overhead
        ):
            continue
        if not (sets or spread or loads.shape.io_threads):
            return Completion(overhead_cell)
        if spread:
            found = _shared_out(loads, overhead_cell, used, spread, sets, budget)
        else:
            found = _as_it_is(loads, overhead_cell, used, sets, budget)
        if found is not None:
            return found
    return None


def emulator_can_float(cells: Sequence[FreeCell], shape: Shape, used: Iterable[int]) -> bool:
    """Tell whether the emulator needs no thought: it has a CPU of its own, or CPUs here that nobody can take."""
    return _emulator_needs_no_refuge(shape) or any(cells[cell].refuge for cell in used)


def emulator_can_float_anywhere(cells: Sequence[FreeCell], shape: Shape) -> bool:
    """Tell whether the emulator needs no thought on any host cell."""
    return _emulator_needs_no_refuge(shape) or all(cell.refuge for cell in cells)


def _emulator_needs_no_refuge(shape: Shape) -> bool:
    return shape.emulators > 0 or shape.rule is CpuRule.FLOAT


def sets_to_keep(loads: Loads, used: Sequence[int], watched: Sequence[int]) -> list[int]:
    """Return the sets of host cells in each of which a CPU must stay free.

    The VM's own host cells are one where its emulator has only their free CPUs to float over.
    """
    if emulator_can_float(loads.cells, loads.shape, used):
        return [*watched]
    return [*watched, sum(1 << cell for cell in used)]


def _as_it_is(
    loads: Loads,
    overhead_cell: int,
    used: Sequence[int],
    sets: Sequence[int],
    budget: Budget,
) -> Completion | None:
    """Keep a CPU free in each set, and give the I/O threads what the cells have to spare."""
    for keepers in product(*_may_keep(loads, sets)):
        budget.step()
        extra = [
            loads.spare(
                index,
                emulators=loads.shape.emulators if index == overhead_cell else 0,
                kept=int(index in keepers),
            )
            for index in range(len(loads.cells))
        ]
        if any(extra[index] < 0 for index in {*keepers, *used}):
            continue
        threads = [cell for cell in used for _ in range(extra[cell])][: loads.shape.io_threads]
        if len(threads) == loads.shape.io_threads:
            return Completion(overhead_cell, io_threads=tuple(threads))
    return None


def _may_keep(loads: Loads, sets: Sequence[int]) -> list[list[int]]:
    return [[cell for cell in members(mask) if loads.cells[cell].free > 0] for mask in sets]


def _shared_out(
    loads: Loads,
    overhead_cell: int,
    used: Sequence[int],
    spread: Sequence[SpreadCpus],
    sets: Sequence[int],
    budget: Budget,
) -> Completion | None:
    """Try every way to keep a CPU free in each set and to place singles and I/O threads; the rest is a flow."""
    for keepers in product(*_may_keep(loads, sets)):
        for singles in _ways_for_singles(spread):
            for threads in combinations_with_replacement(used, loads.shape.io_threads):
                budget.step()
                aside = _Aside(overhead_cell, frozenset(keepers), singles, threads)
                found = _by_flow(loads, spread, aside)
                if found is not None:
                    return found
    return None


@dataclass(frozen=True, slots=True)
class _Aside:
    """One choice of what stands beside the flow."""

    overhead_cell: int
    keepers: frozenset[int]
    singles: tuple[tuple[int, int], ...]
    io_threads: tuple[int, ...]

    def emulators(self, loads: Loads, index: int) -> int:
        """Return the CPUs of emulator and I/O threads on a cell."""
        own = loads.shape.emulators if index == self.overhead_cell else 0
        return own + self.io_threads.count(index)


def _ways_for_singles(spread: Sequence[SpreadCpus]) -> Iterator[tuple[tuple[int, int], ...]]:
    with_single = [one for one in spread if one.singles]
    for cells in product(*(one.host_cells for one in with_single)):
        guests = (one.guest_cell for one in with_single)
        yield tuple(zip(guests, cells, strict=True))


def _by_flow(loads: Loads, spread: Sequence[SpreadCpus], aside: _Aside) -> Completion | None:
    for _, cell in aside.singles:
        loads.singles[cell] += 1
    limits = {
        index: loads.unit_room(
            index, emulators=aside.emulators(loads, index), kept=int(index in aside.keepers)
        )
        for index in range(len(loads.cells))
    }
    loaded = [
        index
        for index in range(len(loads.cells))
        if loads.units[index] or loads.singles[index] or aside.emulators(loads, index)
    ]
    for _, cell in aside.singles:
        loads.singles[cell] -= 1
    if any(limits[index] < 0 for index in {*loaded, aside.overhead_cell}):
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
    return Completion(aside.overhead_cell, units, aside.singles, aside.io_threads)
