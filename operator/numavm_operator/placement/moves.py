"""Which guest cells of a running VM its claim no longer serves: spec against claim, and what the guest has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numavm_api.cpuset import CpuSet
from numavm_api.derived import as_it_is_split
from numavm_api.effective import EffectiveCell, EffectiveVM
from numavm_api.growth import is_in_whole_units
from numavm_api.placement import PlacedCell, Placement
from numavm_api.quantity import Bytes


@dataclass(frozen=True, slots=True)
class InUse:
    """What a running guest has by its agent's word, none of it about to change."""

    vcpus: CpuSet
    """Those that are on."""
    beside: Mapping[int, Bytes]
    """Guest cell -> memory beside what it booted with."""


def moved_cells(
    claim: Placement, vm: EffectiveVM, in_use: InUse | None = None
) -> dict[int, CpuSet]:
    """Return guest cell -> host cells, of those that the spec wants elsewhere than the claim has them.

    Either it binds the cell to other host cells, or it allows a vCPU other pCPUs than the one it has, or it wants vCPUs
    or memory modules for which the claim has no room: then room is sought on the host cells where the cell is. A cell
    that the spec does not bind is where it should be, and so are cells that the placement derived: they may only grow.

    Args:
        claim: What the VM holds.
        vm: What the spec wants.
        in_use: What the guest has; where the claim holds more than that and the spec does not want it, it is let go.
            None: nobody knows, and nothing is.
    """
    split = as_it_is_split(vm, claim)
    if split is None:
        return {}
    placed = {cell.id: cell for cell in claim.cells}
    moves: dict[int, CpuSet] = {}
    for cell in split.cells:
        if cell.id not in placed:
            continue
        here = placed[cell.id].host_cells
        there = here if cell.host_cells is None else cell.host_cells
        elsewhere = there != here or is_pinned_elsewhere(placed[cell.id], vm)
        grows = wished_beside(placed[cell.id], cell, vm) > (placed[cell.id].plugged or 0)
        grows = grows or _holds_too_much(claim, placed[cell.id], cell, vm, in_use)
        if elsewhere or grows or added_vcpus(claim, placed[cell.id], vm):
            moves[cell.id] = there
    return moves


def _holds_too_much(
    claim: Placement,
    placed: PlacedCell,
    cell: EffectiveCell,
    vm: EffectiveVM,
    in_use: InUse | None,
) -> bool:
    if in_use is None or vm.reserve_maximum:
        return False
    needed = max(wished_beside(placed, cell, vm), in_use.beside.get(cell.id, 0))
    every = CpuSet.union_of(one.vcpus for one in claim.cells)
    on = vm.boot_vcpus | in_use.vcpus
    spare = placed.room - on if len(every) == vm.vcpus else CpuSet()
    return (placed.plugged or 0) > needed or bool(spare)


def wished_beside(placed: PlacedCell, cell: EffectiveCell, vm: EffectiveVM) -> Bytes:
    """Return the memory that a running cell is to have beside what it booted with.

    Its modules; and boot memory that was raised since, where the guest has room to get the difference as a module.
    """
    raised = cell.memory - placed.memory
    if raised <= 0 or vm.max_memory is None or not is_in_whole_units(raised, cell.page_size):
        return cell.plugged
    return Bytes(raised + cell.plugged)


def memory_moves(claim: Placement, moves: Mapping[int, CpuSet]) -> bool:
    """Tell whether any of the moves takes a cell's memory to other host cells, and not just its CPUs."""
    placed = {cell.id: cell.host_cells for cell in claim.cells}
    return any(placed.get(cell) != host_cells for cell, host_cells in moves.items())


def is_pinned_elsewhere(placed: PlacedCell, vm: EffectiveVM) -> bool:
    """Tell whether a vCPU has a pCPU that its user does not allow it."""
    return any(
        not pcpus <= vm.vcpu_candidates[vcpu]
        for vcpu, pcpus in zip(placed.vcpus, placed.pcpus, strict=False)
        if vcpu in vm.vcpu_candidates
    )


def added_vcpus(claim: Placement, cell: PlacedCell, vm: EffectiveVM) -> CpuSet:
    """Return the vCPUs of a running cell that the spec wants on by now and the claim has no room for.

    Where the guest's maximum is another one, nothing can be added before a restart.
    """
    every = CpuSet.union_of(placed.vcpus for placed in claim.cells)
    if len(every) != vm.vcpus:
        return CpuSet()
    return (cell.vcpus & vm.boot_vcpus) - cell.room
