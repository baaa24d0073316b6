"""CPUs that the user had a hand in: one distinct pCPU for each thread, out of those that are allowed.

The counts of `free` say nothing about CPUs by name, so here they are chosen one by one, with the same rules: threads
on siblings, whole cores, whole caches, what each host cell may give, and a CPU left for every emulator that floats.
Where each thread wants a single CPU this is a flow, and exact; else a search within the budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product

from numavm_operator.placement.bits import members
from numavm_operator.placement.flow import match_all, match_within
from numavm_operator.placement.host import Cell, Core
from numavm_operator.placement.loads import Budget
from numavm_operator.placement.problem import Problem
from numavm_operator.placement.shape import CellNeed, CpuRule

ANY: int = -1
"""The mask of every CPU."""


@dataclass(frozen=True, slots=True)
class Option:
    """CPUs that would be held, and the one of each thread."""

    mask: int
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Table:
    """What there is to choose from."""

    problem: Problem
    free: tuple[int, ...]
    """Per host cell, the mask of CPUs that may be taken."""
    caps: tuple[int, ...]
    """Per host cell, how many."""


def by_hand(
    problem: Problem,
    host_cells: Sequence[Sequence[int]],
    overhead_cell: int,
    sets: Sequence[int],
    budget: Budget,
) -> tuple[int, ...] | None:
    """Return the CPU of each thread, or None: there are none that keep every rule.

    In the order of guest cells and their vCPUs, then the emulator, then I/O threads; empty for vCPUs that float.

    Args:
        problem: The VM and the host.
        host_cells: Per guest cell the indices of its host cells.
        overhead_cell: Where the emulator is.
        sets: Masks of host cells in each of which a CPU must stay free.
        budget: Counts the ways tried.
    """
    if problem.shape.rule is CpuRule.FLOAT:
        return () if _float_where_allowed(problem, host_cells) else None
    used = sorted({cell for cells in host_cells for cell in cells})
    for kept in _kept_for_emulator(problem, used):
        free = tuple(
            _takeable(problem, cell, index) & ~held_by_hand(problem, kept)
            for index, cell in enumerate(problem.host.cells)
        )
        may_keep = [[at for at in members(mask) if problem.cells[at].free > 0] for mask in sets]
        for keepers in product(*may_keep):
            budget.step()
            caps = tuple(
                min(cell.takeable, cell.free - 1) if at in keepers else cell.takeable
                for at, cell in enumerate(problem.cells)
            )
            table = _Table(problem, free, caps)
            wishes = list(_wishes(table, host_cells, overhead_cell, used))
            chosen = _choose(table, wishes, budget)
            if chosen is not None:
                return tuple(cpu for option in chosen for cpu in option.cpus)
    return None


def _float_where_allowed(problem: Problem, host_cells: Sequence[Sequence[int]]) -> bool:
    """Tell whether every vCPU, and the emulator, has a shared CPU among those allowed."""
    near = [_shared(problem, cells) for cells in host_cells]
    vcpus = all(
        pin is None or pin & room
        for need, room in zip(problem.shape.cells, near, strict=True)
        for pin in need.pins
    )
    pins = problem.shape.emulator_pins
    used = sorted({cell for cells in host_cells for cell in cells})
    return vcpus and (pins is None or bool(pins & _room(problem, used)))


def _shared(problem: Problem, cells: Sequence[int]) -> int:
    mask = 0
    for at in cells:
        cell = problem.host.cells[at]
        mask |= cell.dedicated if problem.host.shared_follows else cell.shared
    return mask & ~problem.state.held_cpus


def _room(problem: Problem, cells: Sequence[int]) -> int:
    """Return the CPUs over which emulator threads can float: shared ones, and the host's own."""
    mask = _shared(problem, cells)
    for at in cells:
        cell = problem.host.cells[at]
        mask |= (cell.housekeeping | cell.dedicated) & ~problem.state.held_cpus
    return mask


def _kept_for_emulator(problem: Problem, used: Sequence[int]) -> Iterator[int]:
    """Yield every way to leave a CPU to an emulator that floats where its user allows: masks of what is kept."""
    pins = problem.shape.emulator_pins
    if pins is None or problem.shape.emulators:
        yield 0
        return
    room = pins & _room(problem, used)
    takeable = 0
    for at in used:
        takeable |= _takeable(problem, problem.host.cells[at], at)
    if room & ~takeable:
        yield 0
        return
    for cpu in members(room):
        yield 1 << cpu


def _takeable(problem: Problem, cell: Cell, index: int) -> int:
    free = cell.dedicated & ~problem.state.held_cpus
    if not problem.shape.whole_caches:
        return free
    return sum(mask for mask in caches_of(problem.host.cells[index]) if mask & free == mask)


def caches_of(cell: Cell) -> tuple[int, ...]:
    """Return the CPUs of each last-level cache of a cell."""
    caches: dict[int, int] = {}
    for core in cell.cores:
        caches[core.last_level_cache] = caches.get(core.last_level_cache, 0) | core.threads
    return tuple(caches.values())


def _wishes(
    table: _Table, host_cells: Sequence[Sequence[int]], overhead_cell: int, used: Sequence[int]
) -> Iterator[list[Option]]:
    shape = table.problem.shape
    for need, cells in zip(shape.cells, host_cells, strict=True):
        yield from _wishes_of_cell(table, need, cells)
    alone = CpuRule.WHOLE_CORES if shape.rule is CpuRule.WHOLE_CORES else CpuRule.ANYWHERE
    if shape.emulators:
        pins = ANY if shape.emulator_pins is None else shape.emulator_pins
        yield _options(table, alone, (pins,), [overhead_cell])
    for pin in shape.io_pins or (None,) * shape.io_threads:
        yield _options(table, alone, (ANY if pin is None else pin,), used)


def _wishes_of_cell(table: _Table, need: CellNeed, cells: Sequence[int]) -> Iterator[list[Option]]:
    shape = table.problem.shape
    pins = [ANY if pin is None else pin for pin in need.pins or (None,) * need.vcpus]
    for at in range(0, len(pins), shape.group_size):
        group = tuple(pins[at : at + shape.group_size])
        yield _options(table, shape.rule, group, cells)


def _options(
    table: _Table, rule: CpuRule, pins: tuple[int, ...], cells: Sequence[int]
) -> list[Option]:
    """Return what threads with these pins could take together, leftovers of cores first."""
    options = []
    for at in cells:
        free = table.free[at]
        for core in table.problem.host.cells[at].cores:
            whole = core.threads & free == core.threads
            found = _of_core(core, rule, core.threads & free, pins)
            options += [(whole, option.mask & -option.mask, option) for option in found]
    return [option for *_, option in sorted(options, key=lambda one: one[:2])]


def _of_core(core: Core, rule: CpuRule, free: int, pins: tuple[int, ...]) -> Iterator[Option]:
    if rule is CpuRule.WHOLE_CORES:
        allowed = core.threads & pins[0]
        if free == core.threads and allowed:
            yield Option(core.threads, (members(allowed)[0],))
        return
    if rule is CpuRule.SIBLINGS and core.width == 1:
        return
    seen = set()
    for cpus in permutations(members(free), len(pins)):
        mask = sum(1 << cpu for cpu in cpus)
        if mask not in seen and all(pin >> cpu & 1 for pin, cpu in zip(pins, cpus, strict=True)):
            seen.add(mask)
            yield Option(mask, cpus)


def _choose(table: _Table, wishes: list[list[Option]], budget: Budget) -> list[Option] | None:
    """Return an option for each wish, disjoint and within what the cells give."""
    lowest = [[members(option.mask)[0] for option in wish] for wish in wishes]
    if match_all(lowest) is None:
        return None
    single = all(option.mask.bit_count() == 1 for wish in wishes for option in wish)
    if single and not table.problem.shape.whole_caches:
        cell_of = {cpu: at for at, mask in enumerate(table.free) for cpu in members(mask)}
        cpus = match_within(lowest, cell_of, table.caps)
        return None if cpus is None else [Option(1 << cpu, (cpu,)) for cpu in cpus]
    chosen: dict[int, Option] = {}
    found = _descend(table, wishes, chosen, 0, budget)
    return [chosen[at] for at in range(len(wishes))] if found else None


def _descend(
    table: _Table,
    wishes: list[list[Option]],
    chosen: dict[int, Option],
    taken: int,
    budget: Budget,
) -> bool:
    """Give the wish with the fewest options left one, and go on with the others."""
    budget.step()
    if not within_caps(table.problem, taken, table.caps):
        return False
    left = {
        at: [option for option in wish if not option.mask & taken]
        for at, wish in enumerate(wishes)
        if at not in chosen
    }
    if not left:
        return True
    at = min(left, key=lambda wish: len(left[wish]))
    for option in left[at]:
        chosen[at] = option
        if _descend(table, wishes, chosen, taken | option.mask, budget):
            return True
        del chosen[at]
    return False


def within_caps(problem: Problem, taken: int, caps: Sequence[int]) -> bool:
    """Tell whether what is held, caches whole where asked for, is within what each cell may give."""
    held = held_by_hand(problem, taken)
    return all(
        (held & cell.online).bit_count() <= cap
        for cell, cap in zip(problem.host.cells, caps, strict=True)
    )


def held_by_hand(problem: Problem, taken: int) -> int:
    """Return all that is held where these CPUs are taken: with whole caches, these."""
    if not problem.shape.whole_caches:
        return taken
    return sum(mask for cell in problem.host.cells for mask in caches_of(cell) if mask & taken)
