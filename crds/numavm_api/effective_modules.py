"""Memory modules with their defaults. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from numavm_api.backing import Switch
from numavm_api.cpuset import CpuSet
from numavm_api.modules import DEFAULT_SLOTS, MAX_SLOTS, MemoryDevice
from numavm_api.quantity import MEBIBYTE, Bytes

MODULE_UNIT: Final = Bytes(2 * MEBIBYTE)
"""libvirt rounds a module's size up to this, silently (qemuDomainMemoryDeviceAlignSize)."""


class ModuleKind(StrEnum):
    """libvirt's memory device models."""

    DIMM = "dimm"
    VIRTIO_MEM = "virtio-mem"
    NVDIMM = "nvdimm"
    VIRTIO_PMEM = "virtio-pmem"


FILE_BACKED: Final = frozenset({ModuleKind.NVDIMM, ModuleKind.VIRTIO_PMEM})
IN_SLOTS: Final = frozenset({ModuleKind.DIMM, ModuleKind.NVDIMM})
ON_PCI: Final = frozenset({ModuleKind.VIRTIO_MEM, ModuleKind.VIRTIO_PMEM})


@dataclass(frozen=True, slots=True)
class EffectiveModule:
    """A memory module with its defaults."""

    name: str
    kind: ModuleKind
    cell: int | None
    """None: of no guest cell (virtio-pmem)."""
    size: Bytes
    page_size: Bytes
    """That of its cell, or its own."""
    slot: int | None = None
    """Slot of the dimm bus; None: it takes none."""
    requested: Bytes | None = None
    block: Bytes | None = None
    path: str | None = None
    label: Bytes | None = None
    align_size: Bytes | None = None
    pmem: bool = False
    read_only: bool = False
    host_cells: CpuSet | None = None
    """The nodeset the user bound it to; None: the host cells of its guest cell."""
    has_own_pages: bool = False
    """Its page size is not its cell's, or the cell's is still open."""

    @property
    def is_apart(self) -> bool:
        """Whether its memory is claimed by itself, and not as a part of its guest cell's."""
        return self.host_cells is not None or self.has_own_pages

    @property
    def claimed(self) -> Bytes:
        """Memory of the host that it may hold: of virtio-mem what is requested; of a file nothing."""
        if self.kind in FILE_BACKED:
            return Bytes(0)
        return self.size if self.requested is None else self.requested


def effective_modules(
    devices: Sequence[MemoryDevice],
    page_sizes: Mapping[int, Sequence[Bytes]],
    base_page: Bytes,
) -> tuple[EffectiveModule, ...]:
    """Return the modules by name, with slots and blocks filled in.

    Args:
        devices: `spec.domain.devices.memory`.
        page_sizes: Guest cell -> sizes that its pages may have, the one it would have first.
        base_page: Page size where a module has no cell.
    """
    in_order = sorted(devices, key=lambda device: device.name)
    slots = _slots(in_order)
    return tuple(
        _module(device, slots.get(device.name), page_sizes.get(device.cell or 0, (base_page,)))
        for device in in_order
    )


def kind_of(device: MemoryDevice) -> ModuleKind | None:
    """Return what a module is; None: nothing, or two things at once, which `validate` refuses."""
    given = {
        ModuleKind.DIMM: device.dimm,
        ModuleKind.VIRTIO_MEM: device.virtio_mem,
        ModuleKind.NVDIMM: device.nvdimm,
        ModuleKind.VIRTIO_PMEM: device.virtio_pmem,
    }
    kinds = [kind for kind, part in given.items() if part is not None]
    return kinds[0] if len(kinds) == 1 else None


def effective_slots(slots: int | None, *, has_maximum: bool) -> int:
    """Return the number of slots: the default only where there is room to plug into."""
    if slots is not None:
        return slots
    return DEFAULT_SLOTS if has_maximum else 0


def plugged_into(modules: Iterable[EffectiveModule], cell: int | None) -> Bytes:
    """Return the memory that modules of one guest cell may hold where the cell is, in its pages; None: of any cell."""
    return Bytes(
        sum(
            module.claimed
            for module in modules
            if not module.is_apart and cell in (None, module.cell)
        )
    )


def _slots(devices: Sequence[MemoryDevice]) -> dict[str, int]:
    """Return the slot of each module that takes one: the user's, else the lowest that is free."""
    taking = [device for device in devices if kind_of(device) in IN_SLOTS]
    given = {
        device.name: device.dimm.slot
        for device in taking
        if device.dimm is not None and device.dimm.slot is not None
    }
    free = (slot for slot in range(MAX_SLOTS + len(taking)) if slot not in given.values())
    return {
        device.name: given[device.name] if device.name in given else next(free) for device in taking
    }


def _module(device: MemoryDevice, slot: int | None, sizes: Sequence[Bytes]) -> EffectiveModule:
    page_size = device.hugepages.page_size if device.hugepages else sizes[0]
    virtio, nvdimm = device.virtio_mem, device.nvdimm
    path = nvdimm.path if nvdimm else device.virtio_pmem.path if device.virtio_pmem else None
    block = (virtio.block or max(MODULE_UNIT, page_size)) if virtio else None
    return EffectiveModule(
        name=device.name,
        kind=kind_of(device) or ModuleKind.DIMM,
        cell=device.cell,
        size=device.size,
        page_size=page_size,
        slot=slot,
        requested=virtio.requested if virtio else None,
        block=block,
        path=path,
        label=nvdimm.label if nvdimm else None,
        align_size=nvdimm.align_size if nvdimm else None,
        pmem=nvdimm is not None and nvdimm.pmem is Switch.ENABLED,
        read_only=nvdimm is not None and nvdimm.read_only is Switch.ENABLED,
        host_cells=device.host_binding.host_cells if device.host_binding else None,
        has_own_pages=device.hugepages is not None and tuple(sizes) != (page_size,),
    )
