"""Which host cells can take which guest cell, looked at one by one: what the search chooses from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from numavm_operator.placement.bits import members
from numavm_operator.placement.devices import assign_devices
from numavm_operator.placement.free import FreeCell
from numavm_operator.placement.problem import Problem
from numavm_operator.placement.shape import CellDemand, CellNeed, CpuRule, Shape


class Openings(NamedTuple):
    """Per guest cell in the order of the search: masks of host cells that can take it."""

    alone: tuple[int, ...]
    hosts_emulator: tuple[int, ...]
    """With emulator and overhead."""


def openings_at_a_glance(cells: Sequence[FreeCell], shape: Shape) -> Openings:
    """Return who can go where, for a shape of which counts say it all and no cell is bound."""
    found: list[tuple[int, int]] = []
    for guest, same in zip(shape.open_cells, shape.same_as_before, strict=True):
        found.append(found[-1] if same else fitting_cells(cells, shape.demands[guest], 0))
    return Openings(tuple([alone for alone, _ in found]), tuple([full for _, full in found]))


def openings_of(problem: Problem, order: tuple[int, ...]) -> Openings | None:
    """Return who can go where; None where some guest cell can go nowhere."""
    shape = problem.shape
    alone: list[int] = []
    full: list[int] = []
    for position, guest in enumerate(order):
        if shape.same_as_before[position]:
            alone.append(alone[-1])
            full.append(full[-1])
            continue
        need = shape.cells[guest]
        masks = fitting_cells(
            problem.cells,
            shape.demands[guest],
            problem.bound_mask,
            without_cpus=need.without_cpus,
        )
        named = by_name(problem, guest) if not shape.counts_only else -1
        if not masks[0] & named:
            return None
        alone.append(masks[0] & named)
        full.append(masks[1] & named)
    return Openings(tuple(alone), tuple(full))


def fitting_cells(
    cells: Sequence[FreeCell],
    demands: tuple[CellDemand, CellDemand],
    bound: int,
    *,
    without_cpus: bool = False,
) -> tuple[int, int]:
    """Return the host cells that can take a demand, those where cells were bound left out.

    Args:
        cells: What is left of each host cell.
        demands: Of the guest cell, alone and with emulator and overhead.
        bound: Mask of the host cells that count no more.
        without_cpus: Host cells without CPUs count too.
    """
    bare, full = demands
    alone = with_emulator = 0
    for cell, free in enumerate(cells):
        if (free.has_cpus or without_cpus) and not bound >> cell & 1 and free.takes(bare):
            alone |= 1 << cell
            if free.takes(full):
                with_emulator |= 1 << cell
    return alone, with_emulator


def by_name(problem: Problem, guest: int) -> int:
    """Return the host cells that have what an open guest cell asks for by name: CPUs, devices, the cell itself."""
    need = problem.shape.cells[guest]
    mask = 0
    for cell in range(len(problem.cells)):
        named = _named(problem, need, cell) and _has_pins(problem, need, cell)
        if named and _bears_modules(problem, need, cell):
            mask |= 1 << cell
    return mask


def _named(problem: Problem, need: CellNeed, cell: int) -> bool:
    if need.cell_class is not None and not problem.may_hold(need, cell):
        return False
    if need.among is not None and problem.host.cells[cell].id not in need.among:
        return False
    if not need.devices:
        return True
    at = need.devices[0].guest_cell or 0
    host_cells = [(cell,)] * (at + 1)
    free = problem.state.devices
    return assign_devices(problem.host, free, need.devices, host_cells) is not None


def _bears_modules(problem: Problem, need: CellNeed, cell: int) -> bool:
    """Tell whether the cell bears the guest cell beside modules that the user bound there."""
    if not problem.shape.modules:
        return True
    with problem.loads.carrying([(cell, need)]):
        return problem.loads.bears(cell)


def _has_pins(problem: Problem, need: CellNeed, cell: int) -> bool:
    if not need.pins or problem.shape.rule is CpuRule.FLOAT:
        return True
    free = problem.host.cells[cell].dedicated & ~problem.state.held_cpus
    return all(pin is None or pin & free for pin in need.pins)


def spare_for_io(problem: Problem, openings: Openings) -> tuple[int, ...]:
    """Return per host cell how many I/O threads it could bear beside the least demanding of the open guest cells."""
    loads = problem.loads
    needs = {problem.shape.cells[guest] for guest in problem.open_cells}
    spare = [0] * len(problem.cells)
    mask = 0
    for alone in openings.alone:
        mask |= alone
    for cell in members(mask):
        for need in needs:
            with loads.carrying([(cell, need)]):
                spare[cell] = max(spare[cell], loads.spare(cell))
    return tuple(spare)
