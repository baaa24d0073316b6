"""One request on one host, set up for the search: what the user fixed, what is free to choose, what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from numavm_api.cpu import BindingMode
from numavm_api.quantity import BASE_PAGE, Bytes
from numavm_operator.placement.free import FreeCell
from numavm_operator.placement.host import Host
from numavm_operator.placement.loads import Loads, SpreadCpus
from numavm_operator.placement.outcome import Cause, Miss
from numavm_operator.placement.shape import CellNeed, CpuRule, Shape
from numavm_operator.placement.state import HostState


class Fit(NamedTuple):
    """A map of guest cells to host cells that breaks no rule."""

    host_cells: tuple[tuple[int, ...], ...]
    """Per guest cell, the indices of its host cells."""
    overhead_cell: int
    units: tuple[tuple[int, int, int], ...]
    """(guest cell, host cell, units) where CPUs come from several host cells."""
    singles: tuple[tuple[int, int], ...]
    io_threads: tuple[int, ...]
    """The host cell of each I/O thread with a CPU of its own."""
    by_hand: tuple[int, ...]
    """The CPU of each thread, where the user had a hand in it (`hands`)."""
    compromise: int
    """Guest cells that share a host cell unnamed; host cells beyond the first where no cells were declared."""
    distance: int
    """Over pairs of guest cells (where none were declared: of host cells), there and back."""
    way: int = 0
    """Position in `Wanted.ways` of the way that was taken."""
    settled: tuple[int, int] = (0, 0)
    """What that way costs: steps down the lists of page sizes, devices that are not near."""


class Problem(NamedTuple):
    """What the search works on."""

    state: HostState
    host: Host
    cells: tuple[FreeCell, ...]
    watched: tuple[int, ...]
    shape: Shape
    loads: Loads
    """What the cells the user bound put on their host cells; the search adds to it and takes away again."""
    bound: tuple[tuple[int, ...] | None, ...]
    """Per guest cell: the indices of the nodeset the user gave; None: the search chooses."""
    spread: tuple[SpreadCpus, ...]
    bound_mask: int
    bound_distance: int
    near_bound: tuple[int, ...]
    """Per host cell: the distance of a guest cell there to all bound ones."""

    def may_hold(self, need: CellNeed, cell: int) -> bool:
        """Tell whether an open guest cell can be on a host cell of this kind: of its class, with CPUs if it must."""
        of_class = need.cell_class in {None, self.host.cells[cell].memory_class}
        return of_class and (need.without_cpus or self.cells[cell].has_cpus)

    @property
    def open_cells(self) -> tuple[int, ...]:
        """Guest cells whose host cell the search chooses."""
        return self.shape.open_cells


def problem_of(state: HostState, shape: Shape) -> Problem | Miss:
    """Return the problem, or the miss where the cells that the user bound do not fit by themselves."""
    bound = _nodesets(state.host, shape) if shape.bound else (None,) * len(shape.cells)
    if isinstance(bound, Miss):
        return bound
    loads = Loads(state.cells, shape)
    spread: list[SpreadCpus] = []
    miss = _load_modules(state, loads, shape)
    if miss is not None:
        return miss
    for guest_cell, nodeset in enumerate(bound):
        if nodeset is not None:
            need = shape.cells[guest_cell]
            spread += _load_bound(loads, shape, guest_cell, need, nodeset)
            miss = _overloaded(state, loads, shape, guest_cell, nodeset)
            if miss is not None:
                return miss
    named = [nodeset for nodeset in bound if nodeset is not None]
    return Problem(
        state=state,
        host=state.host,
        cells=state.cells,
        watched=state.watched,
        shape=shape,
        loads=loads,
        bound=bound,
        spread=tuple(spread),
        bound_mask=sum(1 << cell for cell in {cell for nodeset in named for cell in nodeset}),
        bound_distance=_distance_among(state.host, named),
        near_bound=_near(state.host, named),
    )


def _near(host: Host, nodesets: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return per host cell its distance to all of some nodesets."""
    if not nodesets:
        return (0,) * len(host.cells)
    return tuple(
        sum(set_distance(host, (cell,), nodeset) for nodeset in nodesets)
        for cell in range(len(host.cells))
    )


def set_distance(host: Host, ones: Sequence[int], others: Sequence[int]) -> int:
    """Return the largest distance between two sets of host cells, there and back."""
    return max(host.distances[one][other] for one in ones for other in others)


def booking(
    mode: BindingMode, memory: Bytes, page_size: Bytes, nodeset: Sequence[int]
) -> list[tuple[int, Bytes]]:
    """Return what memory books on the host cells of its nodeset (design, "Booking")."""
    if len(nodeset) == 1:
        return [(nodeset[0], memory)]
    match mode:
        case BindingMode.INTERLEAVE:
            pages = memory // page_size
            share = Bytes(-(-pages // len(nodeset)) * page_size)
            return [(cell, share) for cell in nodeset]
        case BindingMode.STRICT | BindingMode.RESTRICTIVE:
            return [(cell, memory) for cell in nodeset]
        case BindingMode.PREFERRED:
            return [(nodeset[0], memory)]


def _load_modules(state: HostState, loads: Loads, shape: Shape) -> Miss | None:
    """Put the modules that the user bound by themselves on their host cells; return the first that does not fit."""
    for module in shape.modules:
        indices = [state.host.index_of(cell) for cell in module.host_cells]
        known = tuple(index for index in indices if index is not None)
        if len(known) < len(indices):
            unknown = list(module.host_cells)[indices.index(None)]
            return Miss(Cause.UNKNOWN_CELL, guest_cell=module.guest_cell, detail=str(unknown))
        for cell, amount in booking(module.mode, module.memory, module.page_size, known):
            loads.book(cell, module.page_size, amount)
            if not loads.bears(cell):
                return Miss(
                    *_memory_short(loads, cell),
                    guest_cell=module.guest_cell,
                    host_cell=state.host.cells[cell].id,
                    page_size=module.page_size,
                )
    return None


def _nodesets(host: Host, shape: Shape) -> tuple[tuple[int, ...] | None, ...] | Miss:
    nodesets: list[tuple[int, ...] | None] = []
    for guest_cell, need in enumerate(shape.cells):
        if need.host_cells is None:
            nodesets.append(None)
            continue
        indices = []
        for cell_id in need.host_cells:
            index = host.index_of(cell_id)
            if index is None:
                return Miss(Cause.UNKNOWN_CELL, guest_cell=guest_cell, detail=str(cell_id))
            if need.cell_class not in {None, host.cells[index].memory_class}:
                detail = f"{need.cell_class} on host cell {cell_id}"
                return Miss(Cause.HOST_CELL_CLASS, guest_cell=guest_cell, detail=detail)
            indices.append(index)
        nodesets.append(tuple(indices))
    return tuple(nodesets)


def _load_bound(
    loads: Loads, shape: Shape, guest_cell: int, need: CellNeed, nodeset: tuple[int, ...]
) -> list[SpreadCpus]:
    """Put a bound cell on its host cells; return what of it can still go this way or that."""
    for size, memory in ((need.page_size, need.memory), *need.beside):
        for cell, amount in booking(need.mode, memory, size, nodeset):
            loads.book(cell, size, amount)
    if len(nodeset) > 1 and shape.rule is not CpuRule.FLOAT:
        return [SpreadCpus(guest_cell, nodeset, need.units, need.singles)]
    over = [cell for cell in nodeset if loads.cells[cell].has_cpus] or nodeset
    for cell in over:
        loads.units[cell] += -(-need.units // len(over))
        loads.singles[cell] += need.singles
    return []


def _overloaded(
    state: HostState, loads: Loads, shape: Shape, guest_cell: int, nodeset: tuple[int, ...]
) -> Miss | None:
    for cell in nodeset:
        if not loads.bears(cell):
            return Miss(
                cause_at(loads, cell),
                *numbers_at(loads, cell),
                guest_cell=guest_cell,
                host_cell=state.host.cells[cell].id,
                page_size=shape.cells[guest_cell].page_size,
            )
    return None


def cause_at(loads: Loads, cell: int) -> Cause:
    """Return what a host cell lacks for its load."""
    if loads.unit_room(cell) < 0:
        return cpu_cause(loads.shape)
    return _memory_short(loads, cell)[0]


def numbers_at(loads: Loads, cell: int) -> tuple[int, int]:
    """Return what the load of a host cell wants of the thing it lacks, and what there is."""
    if loads.unit_room(cell) < 0:
        shape = loads.shape
        capacity = capacity_of(shape, loads.cells[cell], 0, 0)
        wanted = loads.units[cell]
        return (wanted, capacity) if wanted > capacity else (loads.singles[cell], 0)
    return _memory_short(loads, cell)[1:]


def capacity_of(shape: Shape, free: FreeCell, singles: int, emulators: int) -> int:
    """Return how many units of a shape fit a cell beside singles and emulators; -1: not even these."""
    return free.unit_capacity(
        shape.rule, shape.group_size, singles, emulators, whole_caches=shape.whole_caches
    )


def cpu_cause(shape: Shape) -> Cause:
    """Return the cause that speaks of the CPUs that a shape takes."""
    if shape.whole_caches:
        return Cause.WHOLE_CACHES
    match shape.rule:
        case CpuRule.FLOAT:
            return Cause.SHARED_CPUS
        case CpuRule.ANYWHERE:
            return Cause.DEDICATED_CPUS
        case CpuRule.SIBLINGS:
            return Cause.SIBLING_THREADS
        case CpuRule.WHOLE_CORES:
            return Cause.WHOLE_CORES


def _memory_short(loads: Loads, cell: int) -> tuple[Cause, int, int]:
    for size, amount in sorted(loads.memory[cell].items()):
        left = loads.cells[cell].memory_left(size)
        if amount > left:
            return memory_cause(size), amount, left
    return Cause.MEMORY, 0, 0


def memory_cause(page_size: int) -> Cause:
    """Return the cause that speaks of memory in pages of this size."""
    return Cause.MEMORY if page_size == BASE_PAGE else Cause.HUGE_PAGES


def _distance_among(host: Host, nodesets: Sequence[tuple[int, ...]]) -> int:
    return sum(
        set_distance(host, nodesets[one], nodesets[other])
        for one in range(len(nodesets))
        for other in range(one)
    )
