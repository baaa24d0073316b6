"""Rules on memory modules, their slots, and the ceiling of guest memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_api.cpu import BindingMode
from numavm_api.effective import EffectiveVM, effective
from numavm_api.effective_modules import (
    FILE_BACKED,
    MODULE_UNIT,
    EffectiveModule,
    ModuleKind,
    kind_of,
)
from numavm_api.modules import GROWN_PREFIX, MAX_SLOTS, MemoryDevice
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import BASE_PAGE, KIBIBYTE, MEBIBYTE, Bytes, format_bytes
from numavm_api.rules_cells import NUMA, Rule
from numavm_api.rules_memory import HUGE_PAGE_SIZES, MAX_MEMORY, MEMORY
from numavm_api.violation import Violation

MODULES: Final = "spec.domain.devices.memory"
_OWN: Final = {"host_binding": "hostBinding", "hugepages": "hugepages"}
MIN_LABEL: Final = Bytes(128 * KIBIBYTE)
"""libvirt and QEMU refuse smaller label areas (qemuDomainDefValidateMemory, hw/mem/nvdimm.c)."""


def module_rules() -> tuple[Rule, ...]:
    """Return the rules on memory modules."""
    return (
        _one_kind_each,
        _names_differ,
        _names_are_not_ours,
        _cells_exist,
        _sizes_in_whole_units,
        _virtio_mem_in_blocks,
        _labels_large_enough,
        _alignments_divide_sizes,
        _maximum_in_order,
        _slots_need_a_maximum,
        _modules_fit_below_the_maximum,
        _modules_fit_the_slots,
        _slots_differ,
        _of_their_own_where_that_can_be,
        _own_pages_are_huge,
    )


def _one_kind_each(spec: NumaVMSpec) -> Iterator[Violation]:
    for field, device in _devices(spec):
        if kind_of(device) is None:
            names = ("dimm", "virtio_mem", "nvdimm", "virtio_pmem")
            given = [name for name in names if getattr(device, name) is not None]
            yield Violation(
                field,
                f"'{device.name}' with {' and '.join(given) or 'no kind'}",
                "a memory module is one of dimm, virtioMem, nvdimm and virtioPmem",
                "set exactly one, such as dimm: {}",
            )


def _names_differ(spec: NumaVMSpec) -> Iterator[Violation]:
    seen: set[str] = set()
    for field, device in _devices(spec):
        if device.name in seen:
            yield Violation(
                f"{field}.name", f"'{device.name}'", "an earlier entry has it too", "rename one"
            )
        seen.add(device.name)


def _names_are_not_ours(spec: NumaVMSpec) -> Iterator[Violation]:
    for field, device in _devices(spec):
        if device.name.startswith(GROWN_PREFIX):
            yield Violation(
                f"{field}.name",
                f"'{device.name}'",
                f"names that begin with '{GROWN_PREFIX}' are for modules that NumaVM plugs in by itself",
                "rename it",
            )


def _cells_exist(spec: NumaVMSpec) -> Iterator[Violation]:
    vm = effective(spec)
    derived = vm.derived_cells
    known = list(range(derived.count or 1)) if derived else [cell.id for cell in vm.cells]
    for field, device in _devices(spec):
        if kind_of(device) is ModuleKind.VIRTIO_PMEM:
            if device.cell is not None:
                yield Violation(
                    f"{field}.cell",
                    str(device.cell),
                    "virtio-pmem belongs to no guest cell",
                    "leave cell out",
                )
        elif device.cell is None:
            yield Violation(
                f"{field}.cell",
                "nothing",
                "a memory module belongs to a guest cell",
                f"set it, to one of {', '.join(map(str, known))}",
            )
        elif device.cell not in known:
            yield Violation(
                f"{field}.cell",
                str(device.cell),
                f"the guest's cells are {', '.join(map(str, known))}",
                "name one of these",
            )


def _sizes_in_whole_units(spec: NumaVMSpec) -> Iterator[Violation]:
    for field, module in _modules(spec):
        unit = Bytes(max(module.page_size, MODULE_UNIT))
        if module.size == 0 or module.size % unit:
            yield Violation(
                f"{field}.size",
                format_bytes(module.size),
                f"a memory module is a positive multiple of {format_bytes(unit)}"
                + (", its page size" if unit == module.page_size else ""),
                f"use {format_bytes(_rounded_up(module.size, unit))}",
            )


def _virtio_mem_in_blocks(spec: NumaVMSpec) -> Iterator[Violation]:
    for field, module in _modules(spec):
        if module.block is None or module.requested is None:
            continue
        smallest = max(module.page_size, MODULE_UNIT)
        if module.block < smallest or module.block & (module.block - 1):
            yield Violation(
                f"{field}.virtioMem.block",
                format_bytes(module.block),
                f"a block is a power of two of at least {format_bytes(smallest)}",
                f"leave block out or use {format_bytes(smallest)}",
            )
            continue
        if module.size % module.block:
            yield Violation(
                f"{field}.size",
                format_bytes(module.size),
                f"virtio-mem has whole blocks of {format_bytes(module.block)}",
                f"use {format_bytes(_rounded_up(module.size, module.block))}",
            )
        if module.requested > module.size or module.requested % module.block:
            yield Violation(
                f"{field}.virtioMem.requested",
                format_bytes(module.requested),
                f"it is a multiple of the block {format_bytes(module.block)} and at most size {format_bytes(module.size)}",
                f"use {format_bytes(min(module.size, _rounded_up(module.requested, module.block)))}",
            )


def _labels_large_enough(spec: NumaVMSpec) -> Iterator[Violation]:
    for field, module in _modules(spec):
        if module.label is None:
            continue
        if module.label < MIN_LABEL or module.label >= module.size or module.label % KIBIBYTE:
            yield Violation(
                f"{field}.nvdimm.label",
                format_bytes(module.label),
                f"a label area has whole KiB, at least {format_bytes(MIN_LABEL)}, and is smaller than size "
                f"{format_bytes(module.size)}",
                f"leave label out or use {format_bytes(MIN_LABEL)}",
            )


def _alignments_divide_sizes(spec: NumaVMSpec) -> Iterator[Violation]:
    """QEMU: "backend memory size must be multiple of" the alignment (memory_device_check_addable)."""
    for field, module in _modules(spec):
        align = module.align_size
        if align is None:
            continue
        if align < BASE_PAGE or align & (align - 1) or module.size % align:
            yield Violation(
                f"{field}.nvdimm.alignSize",
                format_bytes(align),
                f"it is a power of two of at least {format_bytes(BASE_PAGE)} that divides size {format_bytes(module.size)}",
                "leave alignSize out, or use the alignment of the host's device, such as 2Mi",
            )


def _maximum_in_order(spec: NumaVMSpec) -> Iterator[Violation]:
    ceiling, boot = spec.domain.memory.max_guest, effective(spec).memory
    if ceiling is None:
        return
    if ceiling < boot or ceiling % MEBIBYTE:
        yield Violation(
            f"{MEMORY}.maxGuest",
            format_bytes(ceiling),
            f"it is a multiple of 1Mi and at least the boot memory {format_bytes(boot)}",
            f"use {format_bytes(_rounded_up(Bytes(max(ceiling, boot)), Bytes(MEBIBYTE)))} or more",
        )
    if ceiling > MAX_MEMORY:
        yield Violation(
            f"{MEMORY}.maxGuest",
            format_bytes(ceiling),
            f"a VM has at most {format_bytes(MAX_MEMORY)}",
            "lower it",
        )


def _slots_need_a_maximum(spec: NumaVMSpec) -> Iterator[Violation]:
    memory = spec.domain.memory
    if memory.slots is not None and memory.max_guest is None:
        yield Violation(
            f"{MEMORY}.slots",
            str(memory.slots),
            f"without {MEMORY}.maxGuest nothing can be plugged into them",
            "set maxGuest, or leave slots out",
        )


def _modules_fit_below_the_maximum(spec: NumaVMSpec) -> Iterator[Violation]:
    vm = effective(spec)
    if not vm.modules:
        return
    modules = Bytes(sum(module.size for module in vm.modules))
    needed = Bytes(vm.memory + modules)
    ceiling = spec.domain.memory.max_guest
    if ceiling is None or ceiling < needed:
        yield Violation(
            f"{MEMORY}.maxGuest",
            "nothing" if ceiling is None else format_bytes(ceiling),
            f"boot memory {format_bytes(vm.memory)} and {MODULES} {format_bytes(modules)} are {format_bytes(needed)}",
            f"set it to {format_bytes(needed)} or more",
        )


def _modules_fit_the_slots(spec: NumaVMSpec) -> Iterator[Violation]:
    vm = effective(spec)
    if spec.domain.memory.max_guest is None:
        return
    if len(vm.modules) > vm.slots:
        yield Violation(
            f"{MEMORY}.slots",
            str(vm.slots),
            f"{MODULES} has {len(vm.modules)} modules, and each takes a slot, virtio-mem and virtio-pmem too",
            f"set it to {len(vm.modules)} or more, at most {MAX_SLOTS}",
        )
    for field, module in _modules(spec):
        if module.slot is not None and module.slot >= vm.slots and len(vm.modules) <= vm.slots:
            yield Violation(
                f"{field}.dimm.slot",
                str(module.slot),
                f"{MEMORY}.slots is {vm.slots}: there are slots 0 to {vm.slots - 1}",
                "use one of these, or raise slots",
            )


def _slots_differ(spec: NumaVMSpec) -> Iterator[Violation]:
    seen: set[int] = set()
    for field, device in _devices(spec):
        slot = device.dimm.slot if device.dimm else None
        if slot is None:
            continue
        if slot in seen:
            yield Violation(
                f"{field}.dimm.slot",
                str(slot),
                "another module is in that slot",
                "use another one, or leave slot out",
            )
        seen.add(slot)


def _of_their_own_where_that_can_be(spec: NumaVMSpec) -> Iterator[Violation]:
    """Files are page cache, wherever it lies; libvirt binds nothing in QEMU under Restrictive (qemuBuildMemoryBackendProps)."""
    vm, numa = effective(spec), spec.domain.cpu.numa
    modes = {cell.id: cell.mode for cell in vm.cells}
    still_open = {cell.id for cell in vm.cells if cell.fallback_page_sizes}
    for field, device in _devices(spec):
        given = [name for name in ("host_binding", "hugepages") if getattr(device, name)]
        own = [_OWN[name] for name in given]
        if not own:
            continue
        where, value = f"{field}.{own[0]}", f"set for '{device.name}'"
        if kind_of(device) in FILE_BACKED:
            limit = (
                "what a file of the host holds in memory is page cache, and bound to no host cell"
            )
            yield Violation(where, value, limit, f"leave {own[0]} out")
        elif numa is None or not numa.cells:
            limit = "a module is set apart from a declared guest cell only"
            yield Violation(where, value, limit, f"declare {NUMA}.cells, or leave {own[0]} out")
        elif device.host_binding and modes.get(device.cell or 0) is BindingMode.RESTRICTIVE:
            limit = (
                f"guest cell {device.cell} is bound Restrictive, by the cgroup of the whole domain"
            )
            yield Violation(where, value, limit, "leave hostBinding out, or use another mode")
        elif not device.hugepages and device.cell in still_open:
            limit = f"the page size of guest cell {device.cell} is open, it has a fallback"
            yield Violation(where, value, limit, f"set {field}.hugepages too")


def _own_pages_are_huge(spec: NumaVMSpec) -> Iterator[Violation]:
    for field, device in _devices(spec):
        size = device.hugepages.page_size if device.hugepages else HUGE_PAGE_SIZES[0]
        if size not in HUGE_PAGE_SIZES:
            yield Violation(
                f"{field}.hugepages.pageSize",
                format_bytes(size),
                "a huge page is a power of two from 2Mi to 16Gi; base pages a module has where its cell has them",
                "name a size that the host has, 2Mi or 1Gi on x86-64, or leave hugepages out",
            )


def _devices(spec: NumaVMSpec) -> Iterator[tuple[str, MemoryDevice]]:
    for index, device in enumerate(spec.domain.devices.memory):
        yield f"{MODULES}[{index}]", device


def _modules(spec: NumaVMSpec) -> Iterator[tuple[str, EffectiveModule]]:
    """Yield (field, module) of those that are of one kind."""
    by_name = _by_name(effective(spec))
    for field, device in _devices(spec):
        if kind_of(device) is not None:
            yield field, by_name[device.name]


def _by_name(vm: EffectiveVM) -> dict[str, EffectiveModule]:
    return {module.name: module for module in vm.modules}


def _rounded_up(amount: Bytes, unit: Bytes) -> Bytes:
    return Bytes(max(1, -(-amount // unit)) * unit)
