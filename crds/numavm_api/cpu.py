"""`spec.domain.cpu`: the guest's CPUs, their NUMA cells, and how both are bound to the host."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from numavm_api.base import SpecModel, list_map
from numavm_api.cpuset import SpecCpuSet
from numavm_api.quantity import Quantity

MAX_CELLS: Final = 16
MAX_VCPUS: Final = 512

CellId = Annotated[int, Field(ge=0, lt=MAX_CELLS)]
Count = Annotated[int, Field(ge=1, le=MAX_VCPUS)]


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


class GuestCell(SpecModel):
    """A NUMA node that the guest sees."""

    id: CellId
    """The guest's node number; ids run from 0 without gaps."""
    cpus: SpecCpuSet
    """The vCPUs of the cell as a cpuset, for example `0-3,8`. Every vCPU is in exactly one cell, a core's threads in one cell."""
    memory: Quantity
    """Boot memory of the cell, a multiple of its page size and of 1Mi."""
    host_binding: HostBinding | None = None
    """Binding of this cell; goes before that of the whole guest."""
    hugepages: HugePages | None = None
    """Huge pages of this cell; goes before `spec.domain.memory.hugepages`."""


class GuestNuma(SpecModel):
    """The guest's NUMA topology and its binding to the host. Left out: one cell with everything, on one host cell if it fits."""

    host_binding: HostBinding | None = None
    """Binding of the whole guest; a cell's own goes before it."""
    cells: list[GuestCell] = Field(
        min_length=1, max_length=MAX_CELLS, json_schema_extra=list_map("id")
    )
    """The cells, at most 16."""


class Cpu(SpecModel):
    """The guest's CPUs: sockets*dies*cores*threads vCPUs."""

    sockets: Count = 1
    """Sockets the guest sees."""
    dies: Annotated[int, Field(ge=1, le=16)] = 1
    """Dies per socket."""
    cores: Count = 1
    """Cores per die."""
    threads: Annotated[int, Field(ge=1, le=8)] = 1
    """Threads per core."""
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)] = (
        "host-passthrough"
    )
    """`host-passthrough`, `host-model`, or a model libvirt names (`virsh cpu-models x86_64`)."""
    dedicated_cpu_placement: bool = False
    """True: every vCPU thread gets a pCPU of its own. False: vCPUs float over the shared CPUs of their cell's host cell."""
    thread_policy: ThreadPolicy = ThreadPolicy.PREFER
    """With dedicated CPUs. Prefer: a core's threads on siblings where possible. Require: on siblings or not at all. Isolate: siblings stay empty."""
    isolate_emulator_thread: bool = False
    """True: the emulator's threads get a pCPU of their own. Needs dedicated CPUs. False: they float over the shared CPUs of the VM's host cells."""
    numa: GuestNuma | None = None
    """The guest's NUMA cells and their binding."""

    @property
    def vcpus(self) -> int:
        """Number of vCPUs."""
        return self.sockets * self.dies * self.cores * self.threads
