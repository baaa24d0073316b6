"""The spec with every default filled in: what placement, rendering, verification and status read.

Owns the cross-field defaults (design: "Cross-field defaults are effective values"). Pure; a spec that `validate` accepts
always has an effective form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from numavm_api.cpu import BindingMode, GuestCell, GuestNuma, HugePages, ThreadPolicy
from numavm_api.cpuset import CpuSet
from numavm_api.effective_iothreads import EffectiveIoThreads, effective_io_threads
from numavm_api.effective_modules import (
    EffectiveModule,
    effective_modules,
    effective_slots,
    plugged_into,
)
from numavm_api.host_devices import HostDevice, NumaAffinity
from numavm_api.memory import Allocation, BackingSource, MemoryAccess
from numavm_api.numavm import CellSharing, NumaVMSpec
from numavm_api.quantity import BASE_PAGE, Bytes

NO_MEMORY: Final = Bytes(0)


@dataclass(frozen=True, slots=True)
class EffectiveCell:
    """A guest cell with its defaults."""

    id: int
    vcpus: CpuSet
    memory: Bytes
    page_size: Bytes
    """`BASE_PAGE` means no huge pages."""
    mode: BindingMode
    host_cells: CpuSet | None
    """The nodeset the user bound it to; None: the scheduler chooses."""
    plugged: Bytes = NO_MEMORY
    """Memory of modules plugged into the cell, beside its boot memory; in pages of the cell's size."""


@dataclass(frozen=True, slots=True)
class EffectiveHostDevice:
    """A PCI device of the host that the VM asks for."""

    name: str
    addresses: frozenset[str]
    """PCI addresses that will do (`0000:3b:00.0`), one of which is claimed; empty: those that `selector` names."""
    selector: tuple[str, str] | None
    """Vendor and product id, `("8086", "10d3")`: any device of these that the host permits."""
    cell: int | None
    """The guest cell it belongs to; None: any of them."""
    affinity: NumaAffinity


@dataclass(frozen=True, slots=True)
class DerivedCells:
    """Guest cells that mirror the placement's host cells (`guestMappingPassthrough`)."""

    count: int | None
    """None: the fewest that fit."""


@dataclass(frozen=True, slots=True)
class EffectiveBacking:
    """What backs guest memory, with its defaults."""

    source: BackingSource
    access: MemoryAccess
    allocation: Allocation


@dataclass(frozen=True, slots=True)
class EffectiveVM:
    """A VM with its defaults."""

    vcpus: int
    threads_per_core: int
    cells: tuple[EffectiveCell, ...]
    """In the order of their ids."""
    cells_declared: bool
    """False: the user named no cells; the one cell here may span host cells."""
    dedicated: bool
    thread_policy: ThreadPolicy
    isolate_emulator_thread: bool
    cell_sharing: CellSharing
    backing: EffectiveBacking
    online_vcpus: CpuSet | None = None
    """vCPUs powered on at boot; None: all."""
    vcpu_candidates: Mapping[int, CpuSet] = field(default_factory=dict)
    """Per vCPU the pCPUs that the user allows; vCPUs left out are the scheduler's choice."""
    emulator_candidates: CpuSet | None = None
    """pCPUs that the user allows the emulator's threads."""
    dedicated_io_threads: int = 0
    """I/O threads that hold a pCPU each, beside any cell of the VM."""
    host_devices: tuple[EffectiveHostDevice, ...] = ()
    derived_cells: DerivedCells | None = None
    """Not None: `cells` is one cell with everything, to be split as the placement says."""
    reserve_maximum: bool = False
    """Whether the hot-add ceiling is booked: vCPUs that are not online, and `max_memory`."""
    max_memory: Bytes | None = None
    slots: int = 0
    """How many modules the guest can have."""
    modules: tuple[EffectiveModule, ...] = ()
    """Memory modules, by name."""
    balloon_target: Bytes | None = None
    """Memory the guest keeps at boot; None: all of it, or there is no balloon."""
    io_threads: EffectiveIoThreads = field(default_factory=EffectiveIoThreads)

    @property
    def memory(self) -> Bytes:
        """Boot memory of the whole guest."""
        return Bytes(sum(cell.memory for cell in self.cells))

    @property
    def memory_with_modules(self) -> Bytes:
        """Boot memory, and what its modules add to it: of virtio-mem what is requested, of a file nothing."""
        return Bytes(self.memory + sum(module.claimed for module in self.modules))

    def cores_of(self, cell: EffectiveCell) -> tuple[CpuSet, ...]:
        """Return the guest cores of a cell, each with the vCPUs that are its threads.

        vCPU n is thread n % threads of core n // threads: the order in which QEMU numbers CPUs.
        """
        threads = self.threads_per_core
        numbers = sorted({vcpu // threads for vcpu in cell.vcpus})
        return tuple(
            CpuSet(frozenset(range(core * threads, (core + 1) * threads))) & cell.vcpus
            for core in numbers
        )


def effective(spec: NumaVMSpec) -> EffectiveVM:
    """Return `spec` with every default filled in.

    Memory left out everywhere counts as 0 bytes here; `validate` refuses such a spec.
    """
    cpu = spec.domain.cpu
    numa = cpu.numa
    cells = _declared_cells(spec, numa) if numa else (_whole_guest_cell(spec),)
    modules = _modules(spec, cells)
    cells = tuple(replace(cell, plugged=plugged_into(modules, cell.id)) for cell in cells)
    io_threads = effective_io_threads(spec.domain.io_threads, spec.domain.devices.disks)
    ceiling = spec.domain.memory.max_guest
    return EffectiveVM(
        vcpus=cpu.vcpus,
        threads_per_core=cpu.threads,
        cells=cells,
        cells_declared=numa is not None,
        dedicated=cpu.dedicated_cpu_placement,
        thread_policy=cpu.thread_policy,
        isolate_emulator_thread=cpu.isolate_emulator_thread,
        cell_sharing=spec.placement.cell_sharing,
        backing=_backing(spec, cells),
        dedicated_io_threads=len(io_threads.threads) if io_threads.dedicated else 0,
        host_devices=tuple(
            _host_device(device)
            for device in sorted(spec.domain.devices.host_devices, key=lambda one: one.name)
        ),
        max_memory=ceiling,
        slots=effective_slots(spec.domain.memory.slots, has_maximum=ceiling is not None),
        modules=modules,
        balloon_target=spec.domain.memory.balloon.target if spec.domain.memory.balloon else None,
        io_threads=io_threads,
    )


def _modules(spec: NumaVMSpec, cells: tuple[EffectiveCell, ...]) -> tuple[EffectiveModule, ...]:
    page_sizes = {cell.id: cell.page_size for cell in cells}
    return effective_modules(spec.domain.devices.memory, page_sizes, BASE_PAGE)


def _host_device(device: HostDevice) -> EffectiveHostDevice:
    address, selector = device.source.address, device.source.selector
    return EffectiveHostDevice(
        name=device.name,
        addresses=frozenset({address} if address else ()),
        selector=(selector.vendor, selector.device) if selector else None,
        cell=device.cell,
        affinity=device.numa_affinity,
    )


def _declared_cells(spec: NumaVMSpec, numa: GuestNuma) -> tuple[EffectiveCell, ...]:
    in_order = sorted(numa.cells, key=lambda cell: cell.id)
    return tuple(_declared_cell(spec, numa, cell) for cell in in_order)


def _declared_cell(spec: NumaVMSpec, numa: GuestNuma, cell: GuestCell) -> EffectiveCell:
    own, whole = cell.host_binding, numa.host_binding
    mode = (own and own.mode) or (whole and whole.mode) or BindingMode.STRICT
    nodesets = [
        binding.host_cells for binding in (own, whole) if binding and binding.host_cells is not None
    ]
    return EffectiveCell(
        id=cell.id,
        vcpus=cell.cpus,
        memory=cell.memory,
        page_size=_page_size(cell.hugepages or spec.domain.memory.hugepages),
        mode=mode,
        host_cells=_intersection(nodesets),
    )


def _intersection(nodesets: list[CpuSet]) -> CpuSet | None:
    """Constraints intersect (design: "Who wins"); an empty one is for `validate` to refuse."""
    if not nodesets:
        return None
    result = nodesets[0]
    for nodeset in nodesets[1:]:
        result = result & nodeset
    return result


def _whole_guest_cell(spec: NumaVMSpec) -> EffectiveCell:
    return EffectiveCell(
        id=0,
        vcpus=CpuSet(frozenset(range(spec.domain.cpu.vcpus))),
        memory=spec.domain.memory.guest or Bytes(0),
        page_size=_page_size(spec.domain.memory.hugepages),
        mode=BindingMode.PREFERRED,
        host_cells=None,
    )


def _page_size(hugepages: HugePages | None) -> Bytes:
    return hugepages.page_size if hugepages else BASE_PAGE


def _backing(spec: NumaVMSpec, cells: tuple[EffectiveCell, ...]) -> EffectiveBacking:
    backing = spec.domain.memory.backing
    huge = any(cell.page_size > BASE_PAGE for cell in cells)
    needs_memfd = huge or backing.access is MemoryAccess.SHARED
    default = BackingSource.MEMFD if needs_memfd else BackingSource.ANONYMOUS
    return EffectiveBacking(
        source=backing.source or default, access=backing.access, allocation=backing.allocation
    )
