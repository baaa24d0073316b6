"""`spec.domain.cpu`: the guest's CPUs, their NUMA cells, and how both are bound to the host."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from numavm_api.backing import MemoryAccess, Switch
from numavm_api.base import SpecModel, list_map
from numavm_api.cpuset import CpuSet, SpecCpuSet
from numavm_api.hmat import MAX_CACHE_LEVEL, HostCellClass, Interconnects, MemorySideCache
from numavm_api.limits import MAX_CELLS, MAX_VCPUS, CellId, Count
from numavm_api.pinning import Pinning, Realtime, Tuning
from numavm_api.quantity import Quantity

__all__ = [
    "LOCAL_DISTANCE",
    "MAX_CELLS",
    "MAX_VCPUS",
    "REMOTE_DISTANCE",
    "BindingMode",
    "CacheMode",
    "CellDistances",
    "CellId",
    "Count",
    "Cpu",
    "CpuCache",
    "CpuFeature",
    "Distance",
    "FeaturePolicy",
    "GuestCell",
    "GuestMappingPassthrough",
    "GuestNuma",
    "HostBinding",
    "HugePages",
    "ThreadPolicy",
]

LOCAL_DISTANCE: Final = 10
REMOTE_DISTANCE: Final = 20
"""What firmware, kernel and libvirt take for a pair that nobody names (ACPI SLIT)."""
MAX_FALLBACKS: Final = 4
MAX_FEATURES: Final = 64


class ThreadPolicy(StrEnum):
    """What a guest core's threads ask of the host's SMT siblings."""

    PREFER = "Prefer"
    REQUIRE = "Require"
    ISOLATE = "Isolate"


class BindingMode(StrEnum):
    """How guest memory is bound to host cells; libvirt's numatune modes."""

    STRICT = "Strict"
    PREFERRED = "Preferred"
    INTERLEAVE = "Interleave"
    RESTRICTIVE = "Restrictive"


class HostBinding(SpecModel):
    """Which host cells hold the memory and CPUs, and how hard that is."""

    host_cells: SpecCpuSet | None = None
    """Host cells as a nodeset, for example `0-1`. It is the binding itself, not a list of candidates. Left out: the scheduler chooses."""
    mode: BindingMode | None = None
    """Strict: only there, or the VM does not start. Preferred: there if there is room. Interleave: page by page over the nodeset. Restrictive: by cgroup only. Default: Strict for declared cells, Preferred otherwise."""


class HugePages(SpecModel):
    """Which huge pages back the memory."""

    page_size: Quantity
    """A size that the host has, for example `2Mi` or `1Gi`. Memory must be a multiple of it."""
    fallback: list[Quantity] = Field(default=[], max_length=MAX_FALLBACKS)
    """Sizes to take where the host has no room in pages of `pageSize`, the first that fits: `[2Mi, 4Ki]`. `4Ki` means no huge pages."""


class Distance(SpecModel):
    """Distance from a cell's CPUs to another cell's memory, as ACPI's SLIT has it."""

    cell: CellId
    """The other cell."""
    value: Annotated[int, Field(ge=LOCAL_DISTANCE, le=255)]
    """11 to 255; 10 is a cell's distance to itself."""


class GuestCell(SpecModel):
    """A NUMA node that the guest sees."""

    id: CellId
    """The guest's node number; ids run from 0 without gaps."""
    cpus: SpecCpuSet | None = None
    """The vCPUs of the cell as a cpuset, for example `0-3,8`. Every vCPU up to the maximum is in exactly one cell, a core's threads in one cell. Left out: the cell is memory only."""
    memory: Quantity
    """Boot memory of the cell, a multiple of its page size and of 1Mi."""
    host_binding: HostBinding | None = None
    """Binding of this cell; goes before that of the whole guest."""
    host_cell_class: HostCellClass | None = None
    """Only on host cells of this class (`status.cells[].class` of the NumaHost), those without CPUs among them. HBM and CXL are for cells without `cpus`. Left out: on host cells with CPUs, or those that hostBinding names."""
    hugepages: HugePages | None = None
    """Huge pages of this cell; goes before `spec.domain.memory.hugepages`."""
    access: MemoryAccess | None = None
    """Goes before `spec.domain.memory.backing.access`."""
    discard: Switch | None = None
    """Goes before `spec.domain.memory.backing.discard`."""
    distances: list[Distance] = Field(
        default=[], max_length=MAX_CELLS, json_schema_extra=list_map("cell")
    )
    """Distances to other cells. One that only the other cell names is the same in this direction; one that neither names is 20."""
    caches: list[MemorySideCache] = Field(
        default=[], max_length=MAX_CACHE_LEVEL, json_schema_extra=list_map("level")
    )
    """Memory-side caches, by level."""


class CellDistances(StrEnum):
    """Where the distances between guest cells come from."""

    DECLARED = "Declared"
    FROM_HOST = "FromHost"


class GuestMappingPassthrough(SpecModel):
    """Guest cells that mirror host cells: vCPUs, memory by their share in whole pages, distances, and HMAT where the host has it."""

    cells: Annotated[int, Field(ge=1, le=MAX_CELLS)] | None = None
    """How many. Left out: the fewest host cells that fit the VM."""


class GuestNuma(SpecModel):
    """The guest's NUMA topology and its binding to the host; either cells or guestMappingPassthrough. Left out: one cell with everything, on one host cell if it fits."""

    guest_mapping_passthrough: GuestMappingPassthrough | None = None
    """Derive the cells from the placement. They are kept in status from the first placement on."""
    host_binding: HostBinding | None = None
    """Binding of the whole guest; a cell's own goes before it."""
    distances: CellDistances = CellDistances.DECLARED
    """Declared: as the cells say. FromHost: those of the host cells the VM is placed on, at each start."""
    cells: list[GuestCell] = Field(
        default=[], max_length=MAX_CELLS, json_schema_extra=list_map("id")
    )
    """The cells, at most 16."""
    interconnects: Interconnects | None = None
    """Latencies and bandwidths between declared cells."""


class FeaturePolicy(StrEnum):
    """libvirt's policies for a CPU feature."""

    FORCE = "force"
    REQUIRE = "require"
    OPTIONAL = "optional"
    DISABLE = "disable"
    FORBID = "forbid"


class CpuFeature(SpecModel):
    """One CPU feature."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
    """Its name in libvirt, for example `avx2` (`/usr/share/libvirt/cpu_map/x86_features.xml`)."""
    policy: FeaturePolicy = FeaturePolicy.REQUIRE
    """force: there, whatever the host has. require: there, or the VM does not start. optional: there if the host has it. disable: not there. forbid: not there, and the VM does not start on a host that has it."""


class CacheMode(StrEnum):
    """What CPUID says of the CPU's caches; libvirt's modes."""

    EMULATE = "emulate"
    PASSTHROUGH = "passthrough"
    DISABLE = "disable"


class CpuCache(SpecModel):
    """The caches that the guest's CPUs claim to have."""

    level: Annotated[int, Field(ge=1, le=3)] | None = None
    """3 for mode emulate; left out for the others."""
    mode: CacheMode
    """emulate: a made-up level 3 cache. passthrough: the host's, with model host-passthrough. disable: none."""


class Cpu(SpecModel):
    """The guest's CPUs: sockets*dies*cores*threads of them are powered on, maxSockets*dies*cores*threads are the most it can have."""

    sockets: Count = 1
    """Sockets that are powered on."""
    dies: Annotated[int, Field(ge=1, le=16)] = 1
    """Dies per socket."""
    cores: Count = 1
    """Cores per die."""
    threads: Annotated[int, Field(ge=1, le=8)] = 1
    """Threads per core."""
    max_sockets: Count | None = None
    """The hot-add ceiling: sockets the guest can have. Default: `sockets`."""
    vcpus: Count | None = None
    """How many vCPUs are powered on at boot, 0 to vcpus - 1, of all that the sockets have. Default: all of them. Not together with onlineVcpus or a larger maxSockets."""
    online_vcpus: SpecCpuSet | None = None
    """Which vCPUs are powered on at boot, for example `0-3,8`; vCPU 0 always is. Not together with vcpus or a larger maxSockets."""
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)] = (
        "host-passthrough"
    )
    """`host-passthrough`, `host-model`, or a model libvirt names (`virsh cpu-models x86_64`)."""
    features: list[CpuFeature] = Field(
        default=[], max_length=MAX_FEATURES, json_schema_extra=list_map("name")
    )
    """What the model has more, or less."""
    cache: CpuCache | None = None
    """The caches that CPUID tells of. Default: the model's."""
    dedicated_cpu_placement: bool = False
    """True: every vCPU thread gets a pCPU of its own. False: vCPUs float over the shared CPUs of their cell's host cell."""
    thread_policy: ThreadPolicy = ThreadPolicy.PREFER
    """With dedicated CPUs. Prefer: a core's threads on siblings where possible. Require: on siblings or not at all. Isolate: siblings stay empty."""
    isolate_emulator_thread: bool = False
    """True: the emulator's threads get a pCPU of their own. Needs dedicated CPUs. False: they float over the shared CPUs of the VM's host cells."""
    realtime: Realtime | None = None
    """vCPU threads under SCHED_FIFO."""
    tuning: Tuning | None = None
    """Weight and quota of the domain's cgroups."""
    pinning: Pinning | None = None
    """Host CPUs chosen by hand. Left out: chosen by NumaVM."""
    numa: GuestNuma | None = None
    """The guest's NUMA cells and their binding."""

    @property
    def all_sockets(self) -> int:
        """Sockets that the guest can have."""
        return self.max_sockets or self.sockets

    @property
    def vcpus_per_socket(self) -> int:
        """VCPUs of a socket."""
        return self.dies * self.cores * self.threads

    @property
    def max_vcpus(self) -> int:
        """Number of vCPUs that the guest can have."""
        return self.all_sockets * self.vcpus_per_socket

    @property
    def boot_vcpus(self) -> CpuSet:
        """VCPUs that are powered on at boot."""
        if self.online_vcpus is not None:
            return self.online_vcpus
        return CpuSet(frozenset(range(self.vcpus or self.sockets * self.vcpus_per_socket)))
