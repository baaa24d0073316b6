"""The knobs of the placement: named weights and the budget of the search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from numavm_operator.host_choice import HostChoice


@dataclass(frozen=True, slots=True)
class Weights:
    """What room left behind costs, once hard rules and distance are equal; the smallest sum wins.

    Small rests first is best fit; the part for the whole host keeps other hosts whole for large VMs. The defaults
    accepted most on the mixes of `tests/bench` (best fit alone: 3 % fewer vCPUs).
    """

    cell_cpu: float = 1.0
    """Per CPU free in the host cells that the VM gets (mean over them)."""
    cell_gib: float = 0.002
    """Per GiB free there, of the page size that the VM takes."""
    cell_device: float = 64.0
    """Per free host device there: such cells are spared for VMs that ask for devices."""
    near_cells: float = 5.0
    """Times how near the host's two nearest cells are (0 to 1), where a VM has one guest cell only: hosts whose cells
    are near each other are spared for VMs that have several."""
    host_cpu: float = 0.15
    """Per CPU free in a cell of the host (mean over its cells)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How the placement decides. A value, so that the same input gives the same answer."""

    weights: Weights = Weights()
    search_steps: int = 20_000
    """Nodes of the search per host before it answers Undecided."""
    improve_steps: int = 120
    """Nodes spent per host on shortening distances once some answer is known."""


SPREAD: Final = Policy(Weights(cell_cpu=-1.0, cell_gib=0.0, near_cells=0.0, host_cpu=-1.0))
"""The emptiest host and its emptiest cells instead: VMs have quiet neighbours, and large ones find less room."""

POLICIES: Final[Mapping[HostChoice, Policy]] = {
    HostChoice.PACK: Policy(),
    HostChoice.SPREAD: SPREAD,
}
