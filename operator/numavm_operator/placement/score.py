"""What one answer is better for than another once rules and distance are equal: the room it leaves."""

from __future__ import annotations

from collections.abc import Sequence

from numavm_api.quantity import GIBIBYTE, Bytes
from numavm_operator.placement.free import FreeCell
from numavm_operator.placement.policy import Weights
from numavm_operator.placement.problem import Fit
from numavm_operator.placement.shape import Shape
from numavm_operator.placement.state import HostState


def slack_of(cells: Sequence[FreeCell], page_size: Bytes, weights: Weights) -> tuple[float, ...]:
    """Return what each cell has to spare: the search takes the tightest first (best fit)."""
    per_byte = weights.cell_gib / GIBIBYTE
    return tuple(
        [
            weights.cell_cpu * cell.free
            + per_byte * max(cell.memory_left(page_size), 0)
            + weights.cell_device * cell.devices
            for cell in cells
        ]
    )


def score_of(state: HostState, shape: Shape, found: Fit, weights: Weights) -> float:
    """Return what a host has to spare where the VM goes and in all, in the sense of `Weights`.

    What the VM itself takes is the same everywhere and left out.
    """
    cells = state.cells
    used = {cell for nodeset in found.host_cells for cell in nodeset}
    chosen = [cells[cell] for cell in sorted(used)]
    slack = sum(slack_of(chosen, shape.cells[0].page_size, weights)) / len(chosen)
    return slack + host_part(state, len(shape.cells), weights)


def host_part(state: HostState, guest_cells: int, weights: Weights) -> float:
    """Return the part of the score that is the same wherever on the host the VM goes."""
    spared = weights.near_cells * state.host.nearness if guest_cells == 1 else 0.0
    return spared + weights.host_cpu * state.mean_free
