"""The CPU of every vCPU, of the emulator and of I/O threads, on the host and the host cells that were chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveVM
from numavm_operator.placement.bits import members
from numavm_operator.placement.caches import cache_sets, cheapest
from numavm_operator.placement.demands import held_vcpus, sibling_groups
from numavm_operator.placement.hands import caches_of
from numavm_operator.placement.picker import CellPicker
from numavm_operator.placement.problem import Fit
from numavm_operator.placement.shape import CpuRule, Shape
from numavm_operator.placement.state import HostState

_NO_CPU: Final = CpuSet()


@dataclass(slots=True)
class PickedCpus:
    """CPUs of a VM with dedicated CPUs; empty for one with shared CPUs."""

    per_vcpu: dict[int, int] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    """All that the VM keeps to itself."""
    emulator: int | None = None
    io_threads: list[int] = field(default_factory=list)

    def pcpus(self, vcpus: CpuSet) -> list[CpuSet]:
        """Return the pCPU of each vCPU, in order; the empty set for one that holds none."""
        own = self.per_vcpu
        return [CpuSet.single(own[vcpu]) if vcpu in own else _NO_CPU for vcpu in vcpus]

    @property
    def threads(self) -> set[int]:
        """Every CPU that a thread runs on."""
        emulator = [] if self.emulator is None else [self.emulator]
        return {*self.per_vcpu.values(), *emulator, *self.io_threads}


class _Pick(NamedTuple):
    """What the picking goes by."""

    vm: EffectiveVM
    shape: Shape
    found: Fit
    pickers: Mapping[int, CellPicker]

    def units_per_cell(self, guest_cell: int) -> list[tuple[int, int]]:
        """Return how many units of a guest cell come from which host cell."""
        host_cells = self.found.host_cells[guest_cell]
        if len(host_cells) == 1:
            return [(host_cells[0], self.shape.cells[guest_cell].units)]
        return sorted(
            (cell, units) for guest, cell, units in self.found.units if guest == guest_cell
        )


def pick_cpus(state: HostState, vm: EffectiveVM, shape: Shape, found: Fit) -> PickedCpus:
    """Return which CPUs the VM holds. The counts that `found` was judged by guarantee that they are there."""
    picked = PickedCpus()
    if shape.rule is CpuRule.FLOAT:
        return picked
    if found.by_hand:
        _as_the_user_said(vm, shape, found, picked)
    else:
        pick = _Pick(vm, shape, found, _pickers(state, shape, found))
        match shape.rule:
            case CpuRule.ANYWHERE:
                _anywhere(pick, picked)
            case CpuRule.SIBLINGS:
                _on_siblings(pick, picked)
            case CpuRule.WHOLE_CORES:
                _whole_cores(pick, picked)
    picked.held |= picked.threads
    _fill_up(state, shape, found, picked)
    return picked


def _pickers(state: HostState, shape: Shape, found: Fit) -> dict[int, CellPicker]:
    """Return what hands out CPUs per host cell; where caches are taken whole, only those of the cheapest caches."""
    used = sorted({cell for cells in found.host_cells for cell in cells})
    pickers = {}
    for at in used:
        held = state.held_cpus
        if shape.whole_caches:
            held |= state.host.cells[at].online & ~_cheapest_caches(state, shape, found, at)
        pickers[at] = CellPicker(state.host.cells[at], held)
    return pickers


def _cheapest_caches(state: HostState, shape: Shape, found: Fit, at: int) -> int:
    """Return the CPUs of the caches that bear what the VM puts on a host cell."""
    units, singles, emulators = _load_of(shape, found, at)
    sets = cache_sets(state.cells[at].cores.caches)
    bearing = cheapest(sets, shape.rule, shape.group_size, units, singles, emulators)
    wanted = {} if bearing is None else dict(bearing.kinds)
    cell, mask = state.host.cells[at], 0
    free = cell.dedicated & ~state.held_cpus
    for cache in caches_of(cell):
        widths = sorted(core.width for core in cell.cores if core.threads & cache)
        if cache & free == cache and wanted.get(tuple(widths), 0):
            wanted[tuple(widths)] -= 1
            mask |= cache
    return mask


def _load_of(shape: Shape, found: Fit, at: int) -> tuple[int, int, int]:
    """Return the units, singles, and emulator and I/O threads that a fit puts on a host cell."""
    units = sum(amount for _, cell, amount in found.units if cell == at)
    singles = sum(cell == at for _, cell in found.singles)
    for need, cells in zip(shape.cells, found.host_cells, strict=True):
        if cells == (at,):
            units += need.units
            singles += need.singles
    emulators = shape.emulators if found.overhead_cell == at else 0
    return units, singles, emulators + found.io_threads.count(at)


def _fill_up(state: HostState, shape: Shape, found: Fit, picked: PickedCpus) -> None:
    """Hold what goes with the CPUs of threads: siblings with Isolate, caches where they are taken whole."""
    if not (shape.whole_caches or shape.rule is CpuRule.WHOLE_CORES):
        return
    for at in {cell for cells in found.host_cells for cell in cells}:
        cell = state.host.cells[at]
        cores = [core.threads for core in cell.cores]
        for mask in caches_of(cell) if shape.whole_caches else cores:
            cpus = set(members(mask))
            if cpus & picked.threads:
                picked.held |= cpus


def _as_the_user_said(vm: EffectiveVM, shape: Shape, found: Fit, picked: PickedCpus) -> None:
    cpus = iter(found.by_hand)
    for cell in vm.cells:
        for vcpu in held_vcpus(vm, cell):
            picked.per_vcpu[vcpu] = next(cpus)
    if shape.emulators:
        picked.emulator = next(cpus)
    picked.io_threads = list(cpus)


def _anywhere(pick: _Pick, picked: PickedCpus) -> None:
    threads = pick.vm.threads_per_core
    for guest_cell, cell in enumerate(pick.vm.cells):
        vcpus = list(held_vcpus(pick.vm, cell))
        for host_cell, units in pick.units_per_cell(guest_cell):
            mine, vcpus = vcpus[:units], vcpus[units:]
            _give(picked, mine, _cores_first(pick.pickers[host_cell], units, threads))
    _beside(pick, picked)


def _cores_first(picker: CellPicker, vcpus: int, threads: int) -> list[int]:
    """Take whole guest cores on siblings as far as there are such; then single threads."""
    if threads == 1:
        return picker.singles(vcpus)
    on_siblings = [cpu for group in picker.groups(vcpus // threads, threads) for cpu in group]
    return on_siblings + picker.singles(vcpus - len(on_siblings))


def _on_siblings(pick: _Pick, picked: PickedCpus) -> None:
    size = pick.shape.group_size
    alone: list[tuple[int, int]] = []
    for guest_cell, cell in enumerate(pick.vm.cells):
        groups = list(sibling_groups(pick.vm, cell))
        if pick.shape.cells[guest_cell].singles:
            alone.append((guest_cell, groups.pop()[0]))
        for host_cell, units in pick.units_per_cell(guest_cell):
            mine, groups = groups[:units], groups[units:]
            for vcpus, cpus in zip(mine, pick.pickers[host_cell].groups(units, size), strict=True):
                _give(picked, vcpus, cpus)
    chosen = dict(pick.found.singles)
    for guest_cell, vcpu in alone:
        host_cell = chosen.get(guest_cell, pick.found.host_cells[guest_cell][0])
        _give(picked, [vcpu], pick.pickers[host_cell].singles(1, with_siblings=True))
    _beside(pick, picked)


def _beside(pick: _Pick, picked: PickedCpus) -> None:
    """Give the emulator and I/O threads single CPUs."""
    if pick.shape.emulators:
        picked.emulator = pick.pickers[pick.found.overhead_cell].singles(1)[0]
    picked.io_threads = [pick.pickers[cell].singles(1)[0] for cell in pick.found.io_threads]


def _whole_cores(pick: _Pick, picked: PickedCpus) -> None:
    """Take per host cell all cores at once: the narrowest ones together are what was counted."""
    cores = {
        cell: iter(pick.pickers[cell].whole_cores(count))
        for cell, count in _cores_per_cell(pick).items()
    }
    for guest_cell, cell in enumerate(pick.vm.cells):
        vcpus = iter(held_vcpus(pick.vm, cell))
        for host_cell, units in pick.units_per_cell(guest_cell):
            for _ in range(units):
                picked.per_vcpu[next(vcpus)] = next(cores[host_cell])[0]
    if pick.shape.emulators:
        picked.emulator = next(cores[pick.found.overhead_cell])[0]
    picked.io_threads = [next(cores[cell])[0] for cell in pick.found.io_threads]


def _cores_per_cell(pick: _Pick) -> dict[int, int]:
    counts: dict[int, int] = {}
    for cell, units in _all_units(pick):
        counts[cell] = counts.get(cell, 0) + units
    return counts


def _all_units(pick: _Pick) -> Iterator[tuple[int, int]]:
    for guest_cell in range(len(pick.vm.cells)):
        yield from pick.units_per_cell(guest_cell)
    if pick.shape.emulators:
        yield pick.found.overhead_cell, 1
    for cell in pick.found.io_threads:
        yield cell, 1


def _give(picked: PickedCpus, vcpus: Sequence[int], cpus: Sequence[int]) -> None:
    picked.per_vcpu.update(zip(vcpus, cpus, strict=True))
