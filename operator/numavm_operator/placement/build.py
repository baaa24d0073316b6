"""From a fit to the claim that is written: the API's `Placement`."""

from __future__ import annotations

from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveCell
from numavm_api.placement import CpuPlacement, PlacedCell, Placement
from numavm_operator.placement.cpus import PickedCpus, pick_cpus
from numavm_operator.placement.problem import Fit
from numavm_operator.placement.request import Request
from numavm_operator.placement.state import HostState

_SUMMARY_LENGTH = 256


def placement_of(state: HostState, request: Request, found: Fit) -> Placement:
    """Return what the VM holds on this host."""
    ids = [cell.id for cell in state.host.cells]
    picked = pick_cpus(state, request, found)
    cells = [
        _placed_cell(cell, CpuSet(frozenset(ids[index] for index in indices)), picked)
        for cell, indices in zip(request.vm.cells, found.host_cells, strict=True)
    ]
    emulator = CpuSet() if picked.emulator is None else CpuSet.of(picked.emulator)
    return Placement(
        id=request.placement_id,
        epoch=request.epoch,
        request_hash=request.request_hash,
        cpu_placement=CpuPlacement.DEDICATED if request.vm.dedicated else CpuPlacement.SHARED,
        summary=",".join(f"{cell.id}->{cell.host_cells}" for cell in cells)[:_SUMMARY_LENGTH],
        cells=cells,
        dedicated_cpus=CpuSet(frozenset(picked.held)),
        emulator_cpus=emulator,
        overhead=request.shape.overhead,
        overhead_cell=ids[found.overhead_cell],
    )


def _placed_cell(cell: EffectiveCell, host_cells: CpuSet, picked: PickedCpus) -> PlacedCell:
    spans_unasked = cell.host_cells is None and len(host_cells) > 1
    return PlacedCell(
        id=cell.id,
        host_cells=host_cells,
        mode=BindingMode.INTERLEAVE if spans_unasked else cell.mode,
        memory=cell.memory,
        page_size=cell.page_size,
        vcpus=cell.vcpus,
        pcpus=picked.pcpus(cell.vcpus),
        plugged=cell.plugged or None,
    )
