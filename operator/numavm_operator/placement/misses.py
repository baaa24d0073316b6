"""Why a host does not fit: the nearest miss, in numbers. Asked only after the search has said no."""

from __future__ import annotations

from typing import NamedTuple

from numavm_api.quantity import BASE_PAGE
from numavm_operator.placement.named_misses import io_miss, named_miss, together_by_name
from numavm_operator.placement.outcome import Cause, Miss
from numavm_operator.placement.problem import Problem, capacity_of, cpu_cause, memory_cause
from numavm_operator.placement.shape import CellNeed, Shape


class Lack(NamedTuple):
    """One thing that one host cell has too little of."""

    cause: Cause
    wanted: int
    available: int

    @property
    def share(self) -> float:
        """The part of what is wanted that is missing."""
        return (self.wanted - self.available) / self.wanted


def miss_of(problem: Problem) -> Miss:
    """Return the nearest miss of a request that the search found no place for."""
    for guest_cell, same in zip(problem.open_cells, problem.shape.same_as_before, strict=True):
        miss = None if same else _fits_nowhere(problem, guest_cell)
        if miss is not None:
            return miss
    by_name = None if problem.shape.counts_only else named_miss(problem)
    return by_name or _no_host_cell_for_overhead(problem) or _together(problem)


def lacks_of(problem: Problem, cell: int, need: CellNeed) -> list[Lack]:
    """Return everything that a host cell lacks for one guest cell beside what is bound there already."""
    loads, shape, free = problem.loads, problem.shape, problem.cells[cell]
    units = loads.units[cell] + need.units
    lacks = []
    capacity = capacity_of(shape, free, loads.singles[cell] + need.singles, 0)
    if units > capacity:
        lacks.append(_cpu_lack(shape, units, capacity))
    for size, amount in loads.memory_with(cell, need):
        left = max(free.memory_left(size), 0)
        if amount > left:
            lacks.append(Lack(memory_cause(size), amount, left))
    if not lacks and len(shape.cells) == 1:
        lacks += _lacks_for_emulator(problem, cell, need)
    return lacks


def _lacks_for_emulator(problem: Problem, cell: int, need: CellNeed) -> list[Lack]:
    """Return what the one host cell of a VM lacks for emulator and overhead on top."""
    shape, free = problem.shape, problem.cells[cell]
    lacks = []
    capacity = capacity_of(shape, free, need.singles, 0)
    with_emulator = capacity_of(shape, free, need.singles, shape.emulators)
    if need.units > with_emulator:
        lacks.append(Lack(cpu_cause(shape), need.units + 1, min(capacity, need.units)))
    base = shape.overhead + (need.memory if need.page_size == BASE_PAGE else 0)
    left = max(free.memory_left(BASE_PAGE), 0)
    if base > left:
        lacks.append(Lack(Cause.QEMU_OVERHEAD, base, left))
    return lacks


def _cpu_lack(shape: Shape, units: int, capacity: int) -> Lack:
    """Return the CPUs that are missing, in the units of the rule; the takeable ones count, not the promised ones.

    Args:
        shape: Of the VM.
        units: What the guest cell and those that are bound there want together.
        capacity: How many there are; negative: not even the vCPUs beside them fit.
    """
    available = max(capacity, 0)
    if units > available:
        return Lack(cpu_cause(shape), units, available)
    return Lack(cpu_cause(shape), units + 1, units)


def _fits_nowhere(problem: Problem, guest_cell: int) -> Miss | None:
    """Return the nearest miss of a guest cell that no host cell can take even alone."""
    need, sharing = problem.shape.cells[guest_cell], problem.shape.sharing
    nearest: tuple[float, int, Lack] | None = None
    for cell in range(len(problem.cells)):
        if not problem.may_hold(need, cell) or (problem.bound_mask >> cell & 1 and not sharing):
            continue
        lacks = lacks_of(problem, cell, need)
        if not lacks:
            return None
        shares = [lack.share for lack in lacks]
        far = sum(shares)
        if nearest is None or far < nearest[0]:
            nearest = (far, cell, lacks[shares.index(max(shares))])
    if nearest is None and need.cell_class is not None:
        return Miss(
            Cause.HOST_CELL_CLASS,
            guest_cell=guest_cell,
            detail=f"a free host cell of class {need.cell_class}",
        )
    if nearest is None:
        return Miss(Cause.HOST_CELLS, 1, 0, guest_cell=guest_cell)
    _, cell, lack = nearest
    return Miss(
        lack.cause,
        lack.wanted,
        lack.available,
        guest_cell=guest_cell,
        host_cell=problem.host.cells[cell].id,
        page_size=need.page_size,
    )


def _no_host_cell_for_overhead(problem: Problem) -> Miss | None:
    overhead = problem.shape.overhead
    most = max((cell.memory_left(BASE_PAGE) for cell in problem.cells), default=0)
    if most >= overhead:
        return None
    return Miss(Cause.QEMU_OVERHEAD, overhead, max(most, 0), page_size=BASE_PAGE)


def _together(problem: Problem) -> Miss:
    """Return the miss of guest cells that fit one by one, but not all at once."""
    wanted = len(problem.open_cells)
    at_once = _most_at_once(problem)
    if at_once < wanted:
        return Miss(Cause.HOST_CELLS, wanted, at_once)
    by_name = io_miss(problem)
    if by_name is not None:
        return by_name
    if problem.spread:
        return Miss(cpu_cause(problem.shape), *_spread_numbers(problem))
    overhead = problem.shape.overhead
    most = _most_left_beside_guest(problem)
    if most < overhead:
        return Miss(Cause.QEMU_OVERHEAD, overhead, max(most, 0), page_size=BASE_PAGE)
    return together_by_name(problem) or Miss(Cause.EMULATOR_CPUS, 1, 0)


def _most_left_beside_guest(problem: Problem) -> int:
    """Return the most base memory that a host cell has left beside a guest cell that it can take."""
    loads, needs = problem.loads, problem.shape.cells
    most = 0
    for guest in problem.open_cells:
        own = needs[guest].memory if needs[guest].page_size == BASE_PAGE else 0
        for cell, free in enumerate(problem.cells):
            with loads.carrying([(cell, needs[guest])]):
                if free.has_cpus and loads.bears(cell):
                    most = max(most, free.memory_left(BASE_PAGE) - own)
    return most


def _spread_numbers(problem: Problem) -> tuple[int, int]:
    shape = problem.shape
    cells = {cell for one in problem.spread for cell in one.host_cells}
    wanted = sum(one.units + one.singles for one in problem.spread)
    room = sum(max(capacity_of(shape, problem.cells[cell], 0, 0), 0) for cell in cells)
    return wanted, min(room, wanted - 1)


def _most_at_once(problem: Problem) -> int:
    """Return how many open guest cells a greedy walk puts on different host cells, or on shared ones where allowed."""
    loads, needs = problem.loads, problem.shape.cells
    used = problem.bound_mask
    done: list[tuple[int, CellNeed]] = []
    start = 0
    for guest, same in zip(problem.open_cells, problem.shape.same_as_before, strict=True):
        start = start if same else 0  # what had no room for one has none for another of the kind
        for cell in range(start, len(problem.cells)):
            start = cell
            if not problem.may_hold(needs[guest], cell) or (
                used >> cell & 1 and not problem.shape.sharing
            ):
                continue
            loads.add(cell, needs[guest])
            if loads.bears(cell):
                done.append((cell, needs[guest]))
                used |= 1 << cell
                break
            loads.add(cell, needs[guest], -1)
        else:
            start = len(problem.cells)
    for cell, need in done:
        loads.add(cell, need, -1)
    return len(done)
