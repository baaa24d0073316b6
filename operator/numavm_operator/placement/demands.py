"""From an effective VM to the demands of its shape: how many threads, on what kind of siblings, how many pages.

The VM is a plain one, whose alternatives are settled (`alternatives`). The rules for threads are Nova's
(`hw:cpu_thread_policy`), made definite for guests that name their own threads:

Prefer
    Any free CPUs; a guest core's threads on siblings where there are such.
Require
    A guest core's threads sit on sibling threads of one host core. With one thread per core, consecutive vCPUs
    of a cell pair up and each pair sits on siblings; an odd last one takes any thread of a core that has
    siblings.
Isolate
    Each vCPU has a whole host core, all of whose threads are claimed; the siblings stay empty.
"""

from __future__ import annotations

from typing import Final

from numavm_api.cpu import ThreadPolicy
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveCell, EffectiveHostDevice, EffectiveVM
from numavm_api.host_devices import NumaAffinity
from numavm_api.numavm import CellSharing, LastLevelCache
from numavm_api.quantity import BASE_PAGE, MEBIBYTE, Bytes, pages_of
from numavm_operator.placement.bits import mask_of
from numavm_operator.placement.shape import CellNeed, CpuRule, DeviceNeed, ModuleNeed, Shape

OVERHEAD_BASE: Final = 64 * MEBIBYTE
"""QEMU itself: code, device models, the display, libvirt's monitor buffers."""
OVERHEAD_PER_VCPU: Final = 8 * MEBIBYTE
"""KubeVirt's figure per vCPU (GetMemoryOverhead)."""
PAGE_TABLE_ENTRY: Final = 8
"""Bytes of page table per page: 1/512 of memory in base pages, KubeVirt's figure, and next to nothing in huge pages."""
PAIR: Final = 2


def shape_of(vm: EffectiveVM) -> Shape:
    """Return the shape of a VM without alternatives (`alternatives` has settled them)."""
    rule = _rule_of(vm)
    devices = tuple(_device_need(vm, device) for device in vm.host_devices)
    return Shape(
        cells=tuple(_cell_need(vm, at, rule, devices) for at in range(len(vm.cells))),
        rule=rule,
        group_size=_group_size(vm) if rule is CpuRule.SIBLINGS else 1,
        emulators=int(vm.isolate_emulator_thread and vm.dedicated),
        overhead=overhead_of(vm),
        declared=vm.cells_declared,
        sharing=vm.cell_sharing is CellSharing.ALLOW,
        vcpus=vm.vcpus,
        io_threads=vm.dedicated_io_threads if vm.dedicated else 0,
        whole_caches=vm.last_level_cache is LastLevelCache.WHOLE and vm.dedicated,
        devices=devices,
        modules=_modules_elsewhere(vm),
        emulator_pins=_emulator_pins(vm),
        io_pins=_io_pins(vm),
    )


def overhead_of(vm: EffectiveVM) -> Bytes:
    """Return QEMU's own memory: a base, a part per vCPU, page tables; in whole base pages.

    The parts are those of KubeVirt's GetMemoryOverhead that a bare QEMU has.
    """
    tables = sum(
        pages_of(cell.memory, cell.page_size) * PAGE_TABLE_ENTRY
        + pages_of(plugged_of(vm, cell), cell.page_size) * PAGE_TABLE_ENTRY
        for cell in vm.cells
    ) + sum(
        pages_of(module.claimed, module.page_size) * PAGE_TABLE_ENTRY for module in vm.modules_apart
    )
    total = OVERHEAD_BASE + vm.vcpus * OVERHEAD_PER_VCPU + tables
    return Bytes(pages_of(total, BASE_PAGE) * BASE_PAGE)


def plugged_of(vm: EffectiveVM, cell: EffectiveCell) -> Bytes:
    """Return what a guest cell holds beside its boot memory, in whole pages: modules, and what is reserved.

    What may still be added up to `max_memory` is reserved by each cell's share of the boot memory.
    """
    plugged = pages_of(cell.plugged, cell.page_size) * cell.page_size
    if not vm.reserve_maximum or vm.max_memory is None:
        return Bytes(plugged)
    total = vm.memory
    if total:
        plugged_in_all = sum(one.plugged for one in vm.cells)
        apart = sum(module.claimed for module in vm.modules_apart)
        growth = max(vm.max_memory - total - plugged_in_all - apart, 0)
        share = pages_of(growth * cell.memory, total)
        plugged += pages_of(share, cell.page_size) * cell.page_size
    return Bytes(plugged)


def held_vcpus(vm: EffectiveVM, cell: EffectiveCell) -> CpuSet:
    """Return the vCPUs of a cell that need room: those on at boot, with reserveMaximum all.

    Where siblings matter, a guest core is whole or not at all.
    """
    if vm.reserve_maximum or vm.online_vcpus is None:
        return cell.vcpus
    online = cell.vcpus & vm.online_vcpus
    if vm.thread_policy is not ThreadPolicy.REQUIRE or not vm.dedicated:
        return online
    return CpuSet.union_of(core for core in vm.cores_of(cell) if core & online)


def sibling_groups(vm: EffectiveVM, cell: EffectiveCell) -> tuple[tuple[int, ...], ...]:
    """Return the vCPUs that need room in the groups that belong on siblings, in order of their numbers.

    With several threads per core these are the guest's cores; else pairs of neighbours, the last one alone
    where the number is odd.
    """
    numbers = tuple(held_vcpus(vm, cell))
    size = _group_size(vm)
    return tuple(numbers[at : at + size] for at in range(0, len(numbers), size))


def _rule_of(vm: EffectiveVM) -> CpuRule:
    if not vm.dedicated:
        return CpuRule.FLOAT
    match vm.thread_policy:
        case ThreadPolicy.PREFER:
            return CpuRule.ANYWHERE
        case ThreadPolicy.REQUIRE:
            return CpuRule.SIBLINGS
        case ThreadPolicy.ISOLATE:
            return CpuRule.WHOLE_CORES


def _group_size(vm: EffectiveVM) -> int:
    return max(PAIR, vm.threads_per_core)


def _cell_need(
    vm: EffectiveVM, at: int, rule: CpuRule, devices: tuple[DeviceNeed, ...]
) -> CellNeed:
    cell = vm.cells[at]
    held = held_vcpus(vm, cell)
    groups, singles = (
        divmod(len(held), _group_size(vm)) if rule is CpuRule.SIBLINGS else (len(held), 0)
    )
    pages = pages_of(cell.memory, cell.page_size)
    return CellNeed(
        units=groups,
        singles=singles,
        vcpus=len(held),
        memory=Bytes(pages * cell.page_size + plugged_of(vm, cell)),
        page_size=cell.page_size,
        mode=cell.mode,
        host_cells=cell.host_cells,
        among=cell.among,
        cell_class=cell.cell_class,
        without_cpus=cell.cell_class is not None and vm.goes_without_cpus(cell),
        pins=_pins(vm, held),
        beside=_in_own_pages(vm, cell),
        devices=tuple(
            device
            for device in devices
            if device.guest_cell == at and device.affinity is not NumaAffinity.NONE
        ),
    )


def _in_own_pages(vm: EffectiveVM, cell: EffectiveCell) -> tuple[tuple[Bytes, Bytes], ...]:
    """Return (page size, memory) of a cell's modules in pages of their own that lie where the cell does."""
    return tuple(
        (module.page_size, module.claimed)
        for module in vm.modules_apart
        if module.cell == cell.id and module.host_cells is None
    )


def _modules_elsewhere(vm: EffectiveVM) -> tuple[ModuleNeed, ...]:
    positions = {cell.id: at for at, cell in enumerate(vm.cells)}
    return tuple(
        ModuleNeed(
            positions[module.cell or 0],
            module.host_cells,
            vm.cells[positions[module.cell or 0]].mode,
            Bytes(pages_of(module.claimed, module.page_size) * module.page_size),
            module.page_size,
        )
        for module in vm.modules_apart
        if module.host_cells is not None
    )


def _pins(vm: EffectiveVM, held: CpuSet) -> tuple[int | None, ...]:
    if not (vm.vcpu_candidates and any(vcpu in vm.vcpu_candidates for vcpu in held)):
        return ()
    return tuple(
        mask_of(vm.vcpu_candidates[vcpu]) if vcpu in vm.vcpu_candidates else None for vcpu in held
    )


def _io_pins(vm: EffectiveVM) -> tuple[int | None, ...]:
    """Return what the user allows each I/O thread that holds a CPU, in the order of their ids."""
    pins = [vm.io_thread_candidates.get(one) for one in vm.io_threads.ids]
    if not (vm.dedicated and vm.dedicated_io_threads and any(pins)):
        return ()
    return tuple(None if pin is None else mask_of(pin) for pin in pins)


def _emulator_pins(vm: EffectiveVM) -> int | None:
    return None if vm.emulator_candidates is None else mask_of(vm.emulator_candidates)


def _device_need(vm: EffectiveVM, device: EffectiveHostDevice) -> DeviceNeed:
    positions = {cell.id: at for at, cell in enumerate(vm.cells)}
    return DeviceNeed(
        device.addresses,
        device.selector,
        device.affinity,
        None if device.cell is None else positions[device.cell],
    )
