"""The kind NumaHost: one per Kubernetes node, of the same name. `spec` is the administrator's, `status` the agent's."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from numavm_api.base import SpecModel, StatusModel, list_map
from numavm_api.conditions import Condition
from numavm_api.cpuset import CpuSet, SpecCpuSet
from numavm_api.devices import HostPath
from numavm_api.hmat import MAX_CACHE_LEVEL, HostCellClass, MemorySideCache
from numavm_api.others import OtherUses
from numavm_api.placement import Placement
from numavm_api.quantity import Quantity
from numavm_api.shapes import BridgeName, NetworkName, PciAddress, PciId

KIND: Final = "NumaHost"
PLURAL: Final = "numahosts"
MAX_HOST_CELLS: Final = 64
MAX_HOST_CPUS: Final = 2048
LEASE_NAMESPACE: Final = "numavm-system"
LEASE_PREFIX: Final = "numavm-host-"
LEASE_SECONDS: Final = 40
"""A host whose Lease did not change for so long, by the watcher's own clock, is unreachable."""
LEASE_HOST_VERSION_ANNOTATION: Final = "numavm.io/numahost-resource-version"
"""On the Lease: the NumaHost resourceVersion that the agent had found true just before it renewed."""
DEFAULT_CPU_ALLOCATION_PERCENT: Final = 400

HostCellId = Annotated[int, Field(ge=0, lt=1024)]
ShortText = Annotated[str, Field(max_length=253)]


class ReservedMemory(SpecModel):
    """Memory of one host cell that NumaVM must leave alone."""

    cell: HostCellId
    """The host cell."""
    memory: Quantity
    """How much."""


class PermittedPciDevice(SpecModel):
    """PCI devices of this host that NumaVMs may have: one of address, and vendor with device."""

    address: PciAddress | None = None
    """The device at this address, `0000:65:00.0`."""
    vendor: PciId | None = None
    """Vendor id of every device of a kind, hexadecimal: `8086`."""
    device: PciId | None = None
    """Device id of every device of a kind, hexadecimal: `10d3`."""


class Permitted(SpecModel):
    """Powers of the host that NumaVMs may use here. Default: none."""

    directories: list[HostPath] = Field(default=[], max_length=32)
    """Directories below which disks, kernels and initial RAM disks may lie."""
    realtime: bool = False
    """True: vCPUs may run under SCHED_FIFO here, their memory locked."""
    locked_memory: bool = False
    """True: VMs may lock their memory here."""
    bridges: list[BridgeName] = Field(default=[], max_length=64)
    """Bridges that guests may be connected to."""
    networks: list[NetworkName] = Field(default=[], max_length=64)
    """Virtual networks of libvirt that guests may be connected to."""
    pci_devices: list[PermittedPciDevice] = Field(default=[], max_length=64)
    """PCI devices that may be given to guests. libvirt takes them from their driver for the time of the run."""

    def permits_device(self, *, address: str, vendor: str, device: str) -> bool:
        """Tell whether a PCI device may be given to guests."""
        return any(
            one.address == address
            if one.address is not None
            else (one.vendor, one.device) == (vendor, device)
            for one in self.pci_devices
        )


class NumaHostSpec(SpecModel):
    """What the administrator allows NumaVM on this host."""

    unschedulable: bool = False
    """True: no new VM comes here; running ones stay."""
    reserved_cpus: SpecCpuSet | None = None
    """CPUs of the host itself. Default where no pool is named: the first core of each cell."""
    dedicated_cpus: SpecCpuSet | None = None
    """CPUs that VMs with dedicated CPUs may hold. Default: all that are not reserved and not in sharedCpus."""
    shared_cpus: SpecCpuSet | None = None
    """CPUs over which shared VMs float. Default: what dedicated VMs leave of dedicatedCpus."""
    reserved_memory: list[ReservedMemory] = Field(
        default=[], max_length=MAX_HOST_CELLS, json_schema_extra=list_map("cell")
    )
    """Memory left to the host per cell. Default: 256Mi, or 5 % of the cell if that is more."""
    cpu_allocation_percent: Annotated[int, Field(ge=100, le=10000)] = DEFAULT_CPU_ALLOCATION_PERCENT
    """How many shared vCPUs may float over 100 shared pCPUs."""
    allow_emulation: bool = False
    """True: VMs may run under TCG here, many times slower than KVM."""
    fenced: bool = False
    """The administrator's word that the host is dead: its claims and finalizers are let go."""
    permitted: Permitted = Permitted()
    """Powers of the host that NumaVMs may use."""


class HostCpu(StatusModel):
    """One online CPU of the host."""

    id: int
    """The kernel's number."""
    siblings: CpuSet
    """Threads of the same core, this one included."""
    socket: int
    """Physical package."""
    last_level_cache: int
    """Id of the last-level cache: CPUs with the same one share it."""


class HostMemory(StatusModel):
    """Memory of one host cell."""

    total: Quantity
    """MemTotal of the cell."""
    free: Quantity
    """MemFree of the cell, in steps of 64Mi."""
    allocatable: Quantity
    """What NumaVM may hand out in sum as base pages: total less huge pages, reserve and what others use."""


class HostHugePages(StatusModel):
    """Huge pages of one size on one host cell, in pages."""

    page_size: Quantity
    """Size of a page."""
    total: int
    """Pages in the pool."""
    free: int
    """Pages nobody uses."""
    allocatable: int
    """What NumaVM may hand out in sum: total less what others use, or were promised by the kubelet."""


class CellDistance(StatusModel):
    """Distance to another host cell (ACPI SLIT; 10 is local)."""

    cell: int
    """The other cell."""
    value: int
    """The distance."""


class MemoryFigures(StatusModel):
    """What the host's HMAT says of a cell's memory, seen from its best initiators (`access0` in sysfs)."""

    initiators: CpuSet
    """The host cells whose CPUs access it best."""
    read_latency_nanoseconds: int | None = None
    """Nanoseconds to read."""
    write_latency_nanoseconds: int | None = None
    """Nanoseconds to write."""
    read_bytes_per_second: Quantity | None = None
    """What can be read in a second."""
    write_bytes_per_second: Quantity | None = None
    """What can be written in a second."""
    caches: list[MemorySideCache] = Field(default=[], max_length=MAX_CACHE_LEVEL)
    """Memory-side caches, by level."""


class HostCell(StatusModel):
    """One host cell, a NUMA node of the host."""

    id: HostCellId
    """The kernel's node number."""
    cpus: list[HostCpu] = Field(default=[], max_length=MAX_HOST_CPUS)
    """Its online CPUs; none for a memory-only cell."""
    memory: HostMemory
    """Its memory."""
    hugepages: list[HostHugePages] = Field(default=[], max_length=8)
    """Its huge pages by size."""
    distances: list[CellDistance] = Field(default=[], max_length=MAX_HOST_CELLS)
    """Distances to every cell, itself included."""
    figures: MemoryFigures | None = None
    """What the host's HMAT says of its memory; left out: the host has none."""
    memory_class: HostCellClass | None = Field(default=None, alias="class")
    """DRAM: cells with CPUs, and memory as fast. HBM: memory only, of more bandwidth. CXL: memory only, slower. Left out: memory only, and the kernel does not say how fast."""


class PciDevice(StatusModel):
    """A PCI device of the host."""

    address: ShortText
    """`0000:65:00.0`."""
    cell: int
    """Its host cell; -1: the firmware names none."""
    vendor: ShortText
    """Vendor id, hexadecimal: `8086`."""
    device: ShortText
    """Device id, hexadecimal: `10d3`."""
    class_code: ShortText = Field(alias="class")
    """PCI class, hexadecimal."""
    iommu_group: int | None = None
    """IOMMU group."""


class EffectivePools(StatusModel):
    """The pools after defaults, and after what others took."""

    dedicated: CpuSet
    """CPUs that VMs with dedicated CPUs may hold."""
    shared: CpuSet
    """CPUs over which shared VMs and emulator threads float, less those now held by dedicated VMs."""
    shared_follows_dedicated: bool
    """True: shared CPUs are what dedicated VMs leave of `dedicated`. False: a pool of its own."""
    housekeeping: CpuSet
    """CPUs of the host itself; emulator threads float over them where a cell has no shared CPU left."""
    foreign: CpuSet = CpuSet()
    """CPUs that others hold: pods by the kubelet's promise, and pinned domains that NumaVM did not start."""


class Capabilities(StatusModel):
    """What the host can do."""

    kvm: bool
    """A probe ran guest code under KVM."""
    kvm_message: ShortText | None = None
    """Why KVM does not work."""
    emulation_allowed: bool
    """TCG may be used here."""
    libvirt_version: ShortText
    """`9.0.0`."""
    qemu_version: ShortText
    """`7.2.22`."""
    machine_types: list[ShortText] = Field(default=[], max_length=256)
    """Versioned machine types."""
    max_vcpus: int
    """Largest number of vCPUs of a VM."""
    memory_moves: bool = False
    """The memory of a running VM can be moved between this host's cells."""
    memory_moves_message: ShortText | None = None
    """Why it cannot."""


class HeldClaim(StatusModel):
    """A claim that a domain on this host holds, from the domain's own metadata."""

    uid: ShortText
    """uid of the NumaVM."""
    namespace: ShortText
    """Namespace of the NumaVM."""
    name: ShortText
    """Name of the NumaVM."""
    orphan: bool = False
    """True: the API server has no such NumaVM. The domain is kept, and what it holds stays held."""
    placement: Placement
    """What it holds."""


class NumaHostStatus(StatusModel):
    """What the host has and who holds it."""

    observed_generation: int | None = None
    """The generation of the spec that the pools were made from."""
    boot_id: ShortText | None = None
    """The kernel's boot id."""
    agent_version: ShortText | None = None
    """Version of the agent."""
    highest_epoch: int = 0
    """The newest operator epoch this host has seen; claims of older ones are refused."""
    capabilities: Capabilities | None = None
    """What the host can do."""
    cells: list[HostCell] = Field(default=[], max_length=MAX_HOST_CELLS)
    """Its cells."""
    pools: EffectivePools | None = None
    """The effective CPU pools."""
    others: OtherUses | None = None
    """What others hold of this host."""
    permitted: Permitted = Permitted()
    """What is in force of `spec.permitted`."""
    pci_devices: list[PciDevice] = Field(default=[], max_length=512)
    """Its PCI devices."""
    claims: list[HeldClaim] = Field(default=[], max_length=1024)
    """What its domains hold."""
    summary: dict[str, ShortText] = Field(default={}, max_length=16)
    """Texts of the printer columns: cells, cpus, memory, hugepages, vms."""
    conditions: list[Condition] = Field(
        default=[], max_length=16, json_schema_extra=list_map("type")
    )
    """Conditions; a list-map keyed by type."""
