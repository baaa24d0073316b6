"""Raised boot memory of a running guest, said as memory modules; and back. Pure.

A running guest's boot memory cannot change. Where the spec raises it, a module of the difference is plugged into the
guest cell instead, under a name that no user's module may have. The next boot takes the spec as it is: there the
module is boot memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from numavm_api.derived import grown_cells_of, split_over
from numavm_api.effective import EffectiveCell, EffectiveVM, effective
from numavm_api.effective_modules import MODULE_UNIT
from numavm_api.memory import HotplugMethod
from numavm_api.modules import GROWN_PREFIX, Dimm, MemoryDevice, VirtioMem
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import Bytes
from numavm_api.vm_status import ModuleStatus, NumaVMStatus

__all__ = [
    "GROWN_PREFIX",
    "as_boot_memory",
    "as_modules",
    "grown_cells",
    "is_in_whole_units",
    "same_room",
]

_WHOLE: Final = 0
"""The cell by which the memory of a guest is said that names no cells."""


@dataclass(frozen=True, slots=True)
class _Cell:
    id: int
    boot: Bytes
    """What it booted with."""
    wanted: Bytes
    page_size: Bytes


def is_in_whole_units(amount: int, page_size: Bytes) -> bool:
    """Tell whether a module can have that size."""
    return amount % max(MODULE_UNIT, page_size) == 0


def as_modules(running: NumaVMSpec, wanted: NumaVMSpec) -> NumaVMSpec:
    """Return `wanted` with what it raises of a running guest's boot memory as modules.

    A cell whose boot memory cannot be raised while it runs keeps what `wanted` says, and waits for a restart: it falls
    below what it booted with, the difference is no whole module, or the guest has no room or slot for one. Derived
    cells have their memory by one number: they follow together, or wait together. How many there are must be said in
    both specs (`derived.settled`).
    """
    boot: dict[int, Bytes] = {}
    now = effective(running)
    modules = {cell.id: [*grown_into(running, cell.id)] for cell in _split(now).cells}
    has = list(modules.values())
    method = wanted.domain.memory.hotplug.method if wanted.domain.memory.hotplug else None
    raised = list(_raised(running, wanted))
    for cell in raised:
        plugged = grown_into(running, cell.id)
        found = _modules(plugged, Bytes(cell.wanted - cell.boot), cell, method)
        if found is not None:
            boot[cell.id], modules[cell.id] = cell.boot, found
    if now.derived_cells is not None:
        follow = len(boot) == len(raised) > 0
        boot = {_WHOLE: now.memory} if follow else {}
        modules = modules if follow else dict(zip(modules, has, strict=True))
    others = wanted.domain.devices.memory
    wishes = [*others, *chain.from_iterable(modules.values())]
    if len(wishes) > max(now.slots, len(others) + sum(map(len, has))):
        boot, wishes = {}, [*others, *chain.from_iterable(has)]
    return _with(wanted, boot, wishes) if boot or wishes != others else wanted


def as_boot_memory(running: NumaVMSpec) -> NumaVMSpec:
    """Return a running guest's spec as its user said it: what was plugged in for raised boot memory is boot memory."""
    vm = effective(running)
    grown = [one for one in running.domain.devices.memory if is_grown(one)]
    if not grown:
        return running
    boot = {
        cell.id: Bytes(cell.memory + _amount(one for one in grown if _is_of(vm, cell, one.cell)))
        for cell in vm.cells
    }
    others = [one for one in running.domain.devices.memory if not is_grown(one)]
    return _with(running, boot, others)


def as_it_runs(stored: NumaVMSpec, status: NumaVMStatus) -> NumaVMSpec:
    """Return the spec of a running guest by what the status says of its modules: its boot memory, and what came after."""
    grown = [
        one for one in (status.memory.devices if status.memory else []) if _is_grown_name(one.name)
    ]
    vm = effective(stored)
    boot = {
        cell.id: Bytes(
            cell.memory
            - sum(
                one.size if one.requested is None else one.requested
                for one in grown
                if _is_of(vm, cell, one.cell)
            )
        )
        for cell in vm.cells
        if any(_is_of(vm, cell, one.cell) for one in grown)
    }
    if not boot or min(boot.values()) <= 0:
        return stored
    modules = [_as_device(one) for one in grown]
    return _with(stored, boot, [*stored.domain.devices.memory, *modules])


def _as_device(module: ModuleStatus) -> MemoryDevice:
    virtio = VirtioMem(requested=module.requested) if module.requested is not None else None
    return MemoryDevice(
        name=module.name,
        cell=module.cell,
        size=module.size,
        virtio_mem=virtio,
        dimm=Dimm() if virtio is None else None,
    )


def grown_cells(running: NumaVMSpec, wanted: NumaVMSpec) -> frozenset[int]:
    """Return the guest cells whose boot memory follows `wanted` without a restart; 0 stands for all derived ones."""
    now, raised = effective(running), list(_raised(running, wanted))
    rebased = {cell.id: cell.memory for cell in effective(as_modules(running, wanted)).cells}
    if now.derived_cells is not None:
        follow = raised and rebased[_WHOLE] == now.memory
        return frozenset({_WHOLE} if follow else ())
    return frozenset(cell.id for cell in raised if rebased.get(cell.id) == cell.boot)


def _is_of(vm: EffectiveVM, cell: EffectiveCell, module_cell: int | None) -> bool:
    """Tell whether a module belongs to a cell of the spec: where cells are derived, there is one with everything."""
    return vm.derived_cells is not None or module_cell == cell.id


def _split(vm: EffectiveVM) -> EffectiveVM:
    """Return the VM with the cells that its guest has, as far as the spec says how many."""
    count = vm.derived_cells.count if vm.derived_cells is not None else None
    return vm if count is None else split_over(vm, count)


def is_grown(device: MemoryDevice) -> bool:
    """Tell whether a module was plugged in for raised boot memory."""
    return _is_grown_name(device.name)


def _is_grown_name(name: str) -> bool:
    return name.startswith(GROWN_PREFIX)


def grown_into(spec: NumaVMSpec, cell: int) -> tuple[MemoryDevice, ...]:
    """Return the modules that a cell got for raised boot memory, the oldest first."""
    found = [one for one in spec.domain.devices.memory if is_grown(one) and one.cell == cell]
    return tuple(sorted(found, key=_number))


def _raised(running: NumaVMSpec, wanted: NumaVMSpec) -> Iterable[_Cell]:
    """Yield the cells of the same guest that are to have more than they booted with, or had."""
    now, then = effective(running), effective(wanted)
    if not same_room(now, then) or now.derived_cells != then.derived_cells:
        return
    cells = _split(now).cells
    wishes = _wishes(cells, then)
    for cell in cells:
        wish = wishes.get(cell.id)
        if wish is None or wish < cell.memory:
            continue
        if wish > cell.memory or grown_into(running, cell.id):
            yield _Cell(cell.id, cell.memory, wish, cell.page_size)


def _wishes(cells: Sequence[EffectiveCell], then: EffectiveVM) -> Mapping[int, Bytes]:
    """Return guest cell -> the memory that it is to have."""
    if then.derived_cells is None:
        return {cell.id: cell.memory for cell in then.cells}
    if then.derived_cells.count is None:
        return {}
    return grown_cells_of(cells, then.memory) or {}


def same_room(now: EffectiveVM, then: EffectiveVM) -> bool:
    """Tell whether a guest has room for modules, and as much of it under another spec."""
    return now.max_memory is not None and (now.max_memory, now.slots) == (
        then.max_memory,
        then.slots,
    )


def _modules(
    plugged: Sequence[MemoryDevice], need: Bytes, cell: _Cell, method: HotplugMethod | None
) -> list[MemoryDevice] | None:
    """Return the modules that make up `need`; None: there are none that do."""
    kept: list[MemoryDevice] = []
    left = int(need)
    for device in plugged:
        if device.virtio_mem is not None:
            part = min(left, int(device.size))
            virtio = device.virtio_mem.model_copy(update={"requested": Bytes(part)})
            kept.append(device.model_copy(update={"virtio_mem": virtio}))
        elif device.size <= left:
            part = int(device.size)
            kept.append(device)
        else:
            part = 0
        left -= part
    if not is_in_whole_units(need, cell.page_size) or (left and len(kept) < len(plugged)):
        return None
    if left:
        number = 1 + max(map(_number, plugged), default=0)
        kept.append(_module(f"{GROWN_PREFIX}{cell.id}-{number}", cell.id, Bytes(left), method))
    return kept


def _module(name: str, cell: int, size: Bytes, method: HotplugMethod | None) -> MemoryDevice:
    if method is HotplugMethod.VIRTIO_MEM:
        virtio = VirtioMem(requested=size)
        return MemoryDevice(name=name, cell=cell, size=size, virtio_mem=virtio)
    return MemoryDevice(name=name, cell=cell, size=size, dimm=Dimm())


def _number(device: MemoryDevice) -> int:
    return int(device.name.rpartition("-")[2])


def _amount(devices: Iterable[MemoryDevice]) -> int:
    return sum(one.virtio_mem.requested if one.virtio_mem else one.size for one in devices)


def _with(
    spec: NumaVMSpec, boot: Mapping[int, Bytes], devices: Sequence[MemoryDevice]
) -> NumaVMSpec:
    """Return the spec with other boot memory of some cells, and other modules."""
    domain = spec.domain
    numa = domain.cpu.numa
    cpu = domain.cpu
    if numa is not None and numa.cells:
        cells = [
            cell.model_copy(update={"memory": boot.get(cell.id, cell.memory)})
            for cell in numa.cells
        ]
        cpu = cpu.model_copy(update={"numa": numa.model_copy(update={"cells": cells})})
        total = Bytes(sum(cell.memory for cell in cells))
    else:
        total = boot.get(_WHOLE, domain.memory.guest or Bytes(0))
    guest = None if domain.memory.guest is None else total
    update = {
        "cpu": cpu,
        "memory": domain.memory.model_copy(update={"guest": guest}),
        "devices": domain.devices.model_copy(update={"memory": list(devices)}),
    }
    return spec.model_copy(update={"domain": domain.model_copy(update=update)})
