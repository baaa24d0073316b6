"""A VM as a placement made it: the cells it derived, the page sizes it fell back to.

What a spec leaves to the placement is read from there, by the agent that runs it and by all that check it. Pure.
"""

from __future__ import annotations

from dataclasses import replace

from numavm_api.backing import BackingSource, MemoryAccess
from numavm_api.effective import DerivedCells, EffectiveCell, EffectiveVM
from numavm_api.effective_modules import plugged_into
from numavm_api.placement import PlacedCell, Placement
from numavm_api.quantity import BASE_PAGE


def resolved(vm: EffectiveVM, placement: Placement) -> EffectiveVM:
    """Return `vm` with the cells and page sizes that `placement` chose where the spec left them to it."""
    placed = sorted(placement.cells, key=lambda cell: cell.id)
    if vm.derived_cells is not None:
        cells = [_derived(vm, cell) for cell in placed]
    else:
        sizes = {cell.id: cell.page_size for cell in placed}
        cells = [
            replace(cell, page_size=sizes[cell.id])
            if sizes.get(cell.id) in cell.fallback_page_sizes
            else cell
            for cell in vm.cells
        ]
    return replace(vm, cells=tuple(_taken_once(vm, cell) for cell in cells))


def _taken_once(vm: EffectiveVM, cell: EffectiveCell) -> EffectiveCell:
    """Return the cell with base pages of a memfd shared: a private mapping takes each twice (measured)."""
    in_base_pages = cell.page_size == BASE_PAGE
    if in_base_pages and vm.backing.source is BackingSource.MEMFD:
        return replace(cell, access=MemoryAccess.SHARED)
    return cell


def with_kept_cells(vm: EffectiveVM, kept: int | None) -> EffectiveVM:
    """Return `vm` with as many derived cells as its first placement gave it, where the spec leaves their number open.

    Cells are split in one way only, by their number; so the guest keeps its topology over restarts, wherever it goes.

    Args:
        vm: The VM.
        kept: `status.derivedCells`.
    """
    if vm.derived_cells is None or vm.derived_cells.count is not None:
        return vm
    return replace(vm, derived_cells=DerivedCells(kept))


def _derived(vm: EffectiveVM, placed: PlacedCell) -> EffectiveCell:
    return replace(
        vm.cells[0],
        id=placed.id,
        vcpus=placed.vcpus,
        memory=placed.memory,
        page_size=placed.page_size,
        mode=placed.mode,
        plugged=plugged_into(vm.modules, placed.id),
    )
