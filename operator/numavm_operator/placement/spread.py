"""VMs kept apart: a host, or some cells of it, that a VM does not come to because of whom it finds there."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from numavm_api.quantity import NO_BYTES
from numavm_operator.placement.free import FreeCell
from numavm_operator.placement.request import Away, Wanted
from numavm_operator.placement.state import HostState, VMUse

_SPREAD_UID: Final = ""
"""Holds the CPUs of closed cells; no VM has this uid."""


def closed_off(state: HostState, wanted: Wanted, away: Away) -> HostState | None:
    """Return the host without the cells to keep away from; None: the user bound the VM to one of them.

    What is free there stays free for the emulators of others, but is nothing that the VM can take.
    """
    closed = frozenset() if away.cells is None else away.cells
    bound = [cell.host_cells for cell in wanted.shape.cells if cell.host_cells is not None]
    bound += [module.host_cells for way in wanted.ways for module in way.shape.modules]
    if any(nodeset.members & closed for nodeset in bound):
        return None
    cpus = 0
    for cell in state.host.cells:
        cpus |= cell.dedicated if cell.id in closed else 0
    cells = tuple(
        _closed(free) if cell.id in closed else free
        for cell, free in zip(state.host.cells, state.cells, strict=True)
    )
    held = VMUse(cpus, {}, {}, frozenset(), frozenset())
    return replace(state, cells=cells, uses={**state.uses, _SPREAD_UID: held})


def _closed(cell: FreeCell) -> FreeCell:
    """Return a cell of which nothing can be taken."""
    return replace(
        cell,
        has_cpus=False,
        takeable=0,
        shared_room=0,
        mask=0,
        memory=tuple((size, NO_BYTES) for size, _ in cell.memory),
    )
