"""A VM that named no cells, spread over several host cells: what each of them takes."""

from __future__ import annotations

from dataclasses import dataclass

from numavm_api.cpu import BindingMode
from numavm_api.quantity import Bytes
from numavm_operator.placement.loads import SpreadCpus
from numavm_operator.placement.problem import Problem, capacity_of
from numavm_operator.placement.shape import CellNeed, CpuRule


@dataclass(frozen=True, slots=True)
class Part:
    """What each of the host cells takes for itself, and what they give together."""

    need: CellNeed
    """Memory, and of shared vCPUs an equal share."""
    units: int
    """Of dedicated CPUs: how many units all cells give together."""
    singles: int
    gives: tuple[int, ...]
    """How many units each host cell could give."""

    @property
    def wanted(self) -> int:
        """The units that all cells give together."""
        return self.units

    def spread_over(self, cells: tuple[int, ...]) -> tuple[SpreadCpus, ...]:
        """Return the dedicated CPUs as a demand on all of these cells; none for shared vCPUs."""
        if not (self.units or self.singles):
            return ()
        return (SpreadCpus(0, tuple(sorted(cells)), self.units, self.singles),)


def parts_of(problem: Problem, size: int) -> Part:
    """Return the parts of the one guest cell on `size` host cells: equal shares of memory in whole pages."""
    shape = problem.shape
    whole = shape.cells[0]
    pages = whole.memory // whole.page_size
    share = Bytes(-(-pages // size) * whole.page_size)
    need = whole._replace(mode=BindingMode.INTERLEAVE, memory=share)
    if shape.rule is CpuRule.FLOAT:
        return Part(need._replace(units=-(-whole.units // size)), 0, 0, ())
    gives = tuple(max(capacity_of(shape, cell, 0, 0), 0) for cell in problem.cells)
    return Part(need._replace(units=0, singles=0), whole.units, whole.singles, gives)
