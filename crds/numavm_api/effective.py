"""The spec with every default filled in: what placement, rendering, verification and status read.

Owns the cross-field defaults (design: "Cross-field defaults are effective values"). Pure; a spec that `validate` accepts
always has an effective form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from numavm_api.backing import Allocation, BackingSource, MemoryAccess, Switch
from numavm_api.cpu import (
    MAX_CELLS,
    BindingMode,
    CellDistances,
    GuestCell,
    GuestNuma,
    HugePages,
    ThreadPolicy,
)
from numavm_api.cpuset import CpuSet
from numavm_api.effective_cpus import (
    EffectiveRealtime,
    effective_distances,
    effective_realtime,
    io_thread_candidates,
    vcpu_candidates,
)
from numavm_api.effective_iothreads import EffectiveIoThreads, effective_io_threads
from numavm_api.effective_modules import (
    EffectiveModule,
    effective_modules,
    effective_slots,
    plugged_into,
)
from numavm_api.hmat import HostCellClass, MemorySideCache
from numavm_api.host_devices import HostDevice, NumaAffinity
from numavm_api.numavm import CellSharing, LastLevelCache, NumaVMSpec
from numavm_api.quantity import BASE_PAGE, NO_BYTES, Bytes


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
    among: CpuSet | None = None
    """Host cells one of which the scheduler chooses, for a cell that is derived within a nodeset; None: any."""
    fallback_page_sizes: tuple[Bytes, ...] = ()
    """Page sizes that will do where `page_size` is not to be had, in the order of preference."""
    access: MemoryAccess = MemoryAccess.PRIVATE
    discard: bool = False
    caches: tuple[MemorySideCache, ...] = ()
    """Memory-side caches, by level."""
    cell_class: HostCellClass | None = None
    """Class that its host cells must have; None: any, and those without CPUs only by name."""
    plugged: Bytes = NO_BYTES
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
    allocation_threads: int | None = None
    """None: as many as the guest's size is worth."""
    same_page_merging: bool = False
    core_dump: bool = True
    locked: bool = False
    """Asked for, or implied by realtime."""
    discard: bool = False


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
    io_thread_candidates: Mapping[int, CpuSet] = field(default_factory=dict)
    """Per I/O thread the pCPUs that the user allows; those left out are the scheduler's choice, or float."""
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
    distances: Mapping[tuple[int, int], int] | None = None
    """(cell, other cell) -> distance for every pair; None: nobody named any, the guest sees 10 and 20."""
    distances_from_host: bool = False
    """Whether the distances are those of the placement's host cells, as for derived cells always."""
    realtime: EffectiveRealtime | None = None
    last_level_cache: LastLevelCache = LastLevelCache.PREFER
    has_balloon: bool = False
    """The guest can give memory back: what was resident at its start need not stay so."""

    @property
    def boot_vcpus(self) -> CpuSet:
        """VCPUs powered on at boot."""
        return (
            CpuSet(frozenset(range(self.vcpus))) if self.online_vcpus is None else self.online_vcpus
        )

    @property
    def memory(self) -> Bytes:
        """Boot memory of the whole guest."""
        return Bytes(sum(cell.memory for cell in self.cells))

    @property
    def modules_apart(self) -> tuple[EffectiveModule, ...]:
        """Modules on host cells or in pages of their own."""
        return tuple(module for module in self.modules if module.is_apart)

    @property
    def memory_with_modules(self) -> Bytes:
        """Boot memory, and what its modules add to it: of virtio-mem what is requested, of a file nothing."""
        return Bytes(self.memory + sum(module.claimed for module in self.modules))

    def goes_without_cpus(self, cell: EffectiveCell) -> bool:
        """Tell whether a cell's pages can be had on host cells without CPUs.

        QEMU takes pages at start by threads on the CPUs of the host cells that they are bound to ("The nodes select no
        CPUs", measured); Restrictive binds nothing in its eyes.
        """
        on_demand = self.backing.allocation is Allocation.ON_DEMAND
        return on_demand or cell.mode is BindingMode.RESTRICTIVE

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
    derived = numa.guest_mapping_passthrough if numa else None
    cells = _declared_cells(spec, numa) if numa and numa.cells else (_whole_guest_cell(spec),)
    modules = _modules(spec, cells, is_split=derived is not None)
    cells = tuple(
        replace(cell, plugged=plugged_into(modules, None if derived else cell.id)) for cell in cells
    )
    io_threads = effective_io_threads(spec.domain.io_threads, spec.domain.devices.disks)
    ceiling = spec.domain.memory.max_guest
    return EffectiveVM(
        vcpus=cpu.max_vcpus,
        threads_per_core=cpu.threads,
        cells=cells,
        cells_declared=numa is not None,
        dedicated=cpu.dedicated_cpu_placement,
        thread_policy=cpu.thread_policy,
        isolate_emulator_thread=cpu.isolate_emulator_thread,
        cell_sharing=spec.placement.cell_sharing,
        backing=_backing(spec, cells, modules),
        reserve_maximum=spec.placement.reserve_maximum,
        last_level_cache=spec.placement.last_level_cache,
        online_vcpus=cpu.boot_vcpus if len(cpu.boot_vcpus) < cpu.max_vcpus else None,
        vcpu_candidates=vcpu_candidates(cpu),
        io_thread_candidates=io_thread_candidates(cpu),
        emulator_candidates=cpu.pinning.emulator if cpu.pinning else None,
        derived_cells=DerivedCells(derived.cells) if derived else None,
        distances=effective_distances(numa.cells) if numa else None,
        distances_from_host=numa is not None
        and (derived is not None or numa.distances is CellDistances.FROM_HOST),
        realtime=effective_realtime(cpu),
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
        has_balloon=spec.domain.memory.balloon is not None,
    )


def _modules(
    spec: NumaVMSpec, cells: tuple[EffectiveCell, ...], *, is_split: bool
) -> tuple[EffectiveModule, ...]:
    page_sizes = {cell.id: (cell.page_size, *cell.fallback_page_sizes) for cell in cells}
    if is_split:
        page_sizes = dict.fromkeys(range(MAX_CELLS), page_sizes[cells[0].id])
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
    hugepages = cell.hugepages or spec.domain.memory.hugepages
    backing = spec.domain.memory.backing
    return EffectiveCell(
        id=cell.id,
        vcpus=cell.cpus or CpuSet(),
        memory=cell.memory,
        page_size=_page_size(hugepages),
        mode=mode,
        host_cells=_intersection(nodesets),
        fallback_page_sizes=tuple(hugepages.fallback) if hugepages else (),
        access=cell.access or backing.access,
        discard=(cell.discard or backing.discard) is Switch.ENABLED,
        caches=tuple(sorted(cell.caches, key=lambda cache: cache.level)),
        cell_class=cell.host_cell_class,
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
    """Return the one cell of a VM that named none: Preferred by default, or Strict where cells are derived from it."""
    numa, memory = spec.domain.cpu.numa, spec.domain.memory
    binding = numa.host_binding if numa else None
    default = BindingMode.STRICT if numa else BindingMode.PREFERRED
    return EffectiveCell(
        id=0,
        vcpus=CpuSet(frozenset(range(spec.domain.cpu.max_vcpus))),
        memory=memory.guest or Bytes(0),
        page_size=_page_size(memory.hugepages),
        mode=(binding and binding.mode) or default,
        host_cells=binding.host_cells if binding else None,
        fallback_page_sizes=tuple(memory.hugepages.fallback) if memory.hugepages else (),
        access=memory.backing.access,
        discard=memory.backing.discard is Switch.ENABLED,
    )


def _page_size(hugepages: HugePages | None) -> Bytes:
    return hugepages.page_size if hugepages else BASE_PAGE


def _backing(
    spec: NumaVMSpec, cells: tuple[EffectiveCell, ...], modules: tuple[EffectiveModule, ...]
) -> EffectiveBacking:
    backing = spec.domain.memory.backing
    needs_memfd = any(
        max(cell.page_size, *cell.fallback_page_sizes, BASE_PAGE) > BASE_PAGE
        or cell.access is MemoryAccess.SHARED
        for cell in cells
    ) or any(module.page_size > BASE_PAGE for module in modules)
    default = BackingSource.MEMFD if needs_memfd else BackingSource.ANONYMOUS
    return EffectiveBacking(
        source=backing.source or default,
        access=backing.access,
        allocation=backing.allocation,
        allocation_threads=backing.allocation_threads,
        same_page_merging=backing.same_page_merging is Switch.ENABLED,
        core_dump=backing.core_dump is Switch.ENABLED,
        locked=backing.locked or spec.domain.cpu.realtime is not None,
        discard=backing.discard is Switch.ENABLED,
    )
