"""The CPU of every vCPU and of the emulator, on the host and the host cells that were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from numavm_api.cpuset import CpuSet
from numavm_operator.placement.picker import CellPicker
from numavm_operator.placement.problem import Fit
from numavm_operator.placement.request import CpuRule, Request, sibling_groups
from numavm_operator.placement.state import HostState


@dataclass(slots=True)
class PickedCpus:
    """CPUs of a VM with dedicated CPUs; empty for one with shared CPUs."""

    per_vcpu: dict[int, int] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    """All that the VM keeps to itself."""
    emulator: int | None = None

    def pcpus(self, vcpus: CpuSet) -> list[CpuSet]:
        """Return the pCPU of each vCPU, in order; empty for shared ones."""
        return [CpuSet.of(self.per_vcpu[vcpu]) for vcpu in vcpus if vcpu in self.per_vcpu]


def pick_cpus(state: HostState, request: Request, found: Fit) -> PickedCpus:
    """Return which CPUs the VM holds. The counts that `found` was judged by guarantee that they are there."""
    picked = PickedCpus()
    if request.shape.rule is CpuRule.FLOAT:
        return picked
    held = 0
    for use in state.uses.values():
        held |= use.cpus
    used = sorted({cell for cells in found.host_cells for cell in cells})
    pickers = {cell: CellPicker(state.host.cells[cell], held) for cell in used}
    match request.shape.rule:
        case CpuRule.ANYWHERE:
            _anywhere(request, found, pickers, picked)
        case CpuRule.SIBLINGS:
            _on_siblings(request, found, pickers, picked)
        case CpuRule.WHOLE_CORES:
            _whole_cores(request, found, pickers, picked)
    picked.held |= set(picked.per_vcpu.values())
    return picked


def _units_per_cell(request: Request, found: Fit, guest_cell: int) -> Mapping[int, int]:
    """Return how many units of a guest cell come from which host cell."""
    host_cells = found.host_cells[guest_cell]
    if len(host_cells) == 1:
        return {host_cells[0]: request.shape.cells[guest_cell].units}
    return {cell: units for guest, cell, units in found.units if guest == guest_cell}


def _anywhere(
    request: Request, found: Fit, pickers: Mapping[int, CellPicker], picked: PickedCpus
) -> None:
    threads = request.vm.threads_per_core
    for guest_cell, cell in enumerate(request.vm.cells):
        vcpus = list(cell.vcpus)
        for host_cell, units in sorted(_units_per_cell(request, found, guest_cell).items()):
            mine, vcpus = vcpus[:units], vcpus[units:]
            _give(picked, mine, _cores_first(pickers[host_cell], units, threads))
    if request.shape.emulators:
        picked.emulator = pickers[found.overhead_cell].singles(1)[0]
        picked.held.add(picked.emulator)


def _cores_first(picker: CellPicker, vcpus: int, threads: int) -> list[int]:
    """Take whole guest cores on siblings as far as there are such; then single threads."""
    if threads == 1:
        return picker.singles(vcpus)
    on_siblings = [cpu for group in picker.groups(vcpus // threads, threads) for cpu in group]
    return on_siblings + picker.singles(vcpus - len(on_siblings))


def _on_siblings(
    request: Request, found: Fit, pickers: Mapping[int, CellPicker], picked: PickedCpus
) -> None:
    size = request.shape.group_size
    alone: list[tuple[int, int]] = []
    for guest_cell, cell in enumerate(request.vm.cells):
        groups = list(sibling_groups(request.vm, cell))
        if request.shape.cells[guest_cell].singles:
            alone.append((guest_cell, groups.pop()[0]))
        for host_cell, units in sorted(_units_per_cell(request, found, guest_cell).items()):
            mine, groups = groups[:units], groups[units:]
            for vcpus, cpus in zip(mine, pickers[host_cell].groups(units, size), strict=True):
                _give(picked, list(vcpus), cpus)
    chosen = dict(found.singles)
    for guest_cell, vcpu in alone:
        host_cell = chosen.get(guest_cell, found.host_cells[guest_cell][0])
        _give(picked, [vcpu], pickers[host_cell].singles(1, with_siblings=True))
    if request.shape.emulators:
        picked.emulator = pickers[found.overhead_cell].singles(1)[0]
        picked.held.add(picked.emulator)


def _whole_cores(
    request: Request, found: Fit, pickers: Mapping[int, CellPicker], picked: PickedCpus
) -> None:
    """Take per host cell all cores at once: the narrowest ones together are what was counted."""
    wanted: dict[int, list[int | None]] = {}
    for guest_cell, cell in enumerate(request.vm.cells):
        vcpus = list(cell.vcpus)
        for host_cell, units in sorted(_units_per_cell(request, found, guest_cell).items()):
            wanted.setdefault(host_cell, []).extend(vcpus[:units])
            vcpus = vcpus[units:]
    if request.shape.emulators:
        wanted.setdefault(found.overhead_cell, []).append(None)
    for host_cell, threads in wanted.items():
        for vcpu, core in zip(threads, pickers[host_cell].whole_cores(len(threads)), strict=True):
            picked.held |= set(core)
            if vcpu is None:
                picked.emulator = core[0]
            else:
                picked.per_vcpu[vcpu] = core[0]


def _give(picked: PickedCpus, vcpus: list[int], cpus: list[int]) -> None:
    picked.per_vcpu.update(zip(vcpus, cpus, strict=True))
