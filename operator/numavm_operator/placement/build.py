"""From a fit to the claim that is written: the API's `Placement`."""

from __future__ import annotations

from collections.abc import Sequence

from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveCell, EffectiveVM
from numavm_api.placement import (
    CpuPlacement,
    PlacedCell,
    PlacedDevice,
    PlacedModule,
    Placement,
)
from numavm_operator.placement.cpus import PickedCpus, pick_cpus
from numavm_operator.placement.demands import held_vcpus, plugged_of
from numavm_operator.placement.devices import NO_CELL, assign_devices
from numavm_operator.placement.problem import Fit
from numavm_operator.placement.request import Request
from numavm_operator.placement.shape import Shape
from numavm_operator.placement.state import HostState

_SUMMARY_LENGTH = 256


def placement_of(state: HostState, request: Request, found: Fit) -> Placement:
    """Return what the VM holds on this host."""
    vm, shape = request.plain[found.way], request.wanted.ways[found.way].shape
    ids = [cell.id for cell in state.host.cells]
    picked = pick_cpus(state, vm, shape, found)
    cells = [
        _placed_cell(vm, cell, CpuSet(frozenset(ids[index] for index in indices)), picked)
        for cell, indices in zip(vm.cells, found.host_cells, strict=True)
    ]
    emulator = CpuSet() if picked.emulator is None else CpuSet.single(picked.emulator)
    return Placement(
        id=request.placement_id,
        epoch=request.epoch,
        request_hash=request.request_hash,
        cpu_placement=CpuPlacement.DEDICATED if vm.dedicated else CpuPlacement.SHARED,
        summary=",".join(f"{cell.id}->{cell.host_cells}" for cell in cells)[:_SUMMARY_LENGTH],
        cells=cells,
        dedicated_cpus=CpuSet(frozenset(picked.held)),
        emulator_cpus=emulator,
        io_thread_cpus=[CpuSet.single(cpu) for cpu in picked.io_threads],
        devices=_devices(state, vm, shape, found),
        modules=_modules(vm, cells),
        overhead=shape.overhead,
        overhead_cell=ids[found.overhead_cell],
    )


def _placed_cell(
    vm: EffectiveVM, cell: EffectiveCell, host_cells: CpuSet, picked: PickedCpus
) -> PlacedCell:
    spans_unasked = cell.host_cells is None and len(host_cells) > 1
    held = held_vcpus(vm, cell)
    return PlacedCell(
        id=cell.id,
        host_cells=host_cells,
        mode=BindingMode.INTERLEAVE if spans_unasked else cell.mode,
        memory=cell.memory,
        page_size=cell.page_size,
        vcpus=cell.vcpus,
        pcpus=picked.pcpus(cell.vcpus) if vm.dedicated else [],
        plugged=plugged_of(vm, cell) or None,
        held_vcpus=None if held == cell.vcpus else held,
    )


def _modules(vm: EffectiveVM, cells: Sequence[PlacedCell]) -> list[PlacedModule]:
    placed = {cell.id: cell for cell in cells}
    return [
        PlacedModule(
            name=module.name,
            cell=cell.id,
            host_cells=cell.host_cells if module.host_cells is None else module.host_cells,
            mode=cell.mode,
            memory=module.claimed,
            page_size=module.page_size,
        )
        for module in vm.modules_apart
        if module.cell is not None and (cell := placed.get(module.cell)) is not None
    ]


def _devices(state: HostState, vm: EffectiveVM, shape: Shape, found: Fit) -> list[PlacedDevice]:
    if not shape.devices:
        return []
    chosen = assign_devices(state.host, state.devices, shape.devices, found.host_cells)
    return [
        PlacedDevice(
            name=wish.name,
            address=device.address,
            host_cell=device.host_cell if device.host_cell >= 0 else NO_CELL,
            cell=wish.cell,
        )
        for wish, device in zip(vm.host_devices, chosen or (), strict=True)
    ]
