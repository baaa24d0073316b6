"""`spec.domain.cpu.pinning`, `realtime` and `tuning`: threads as the administrator of the host sees them."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from numavm_api.base import SpecModel, list_map
from numavm_api.cpuset import SpecCpuSet
from numavm_api.iothreads import MAX_IO_THREADS
from numavm_api.limits import MAX_VCPUS, VcpuId

MIN_PERIOD: Final = 1000
MAX_PERIOD: Final = 1_000_000
"""Bounds of `cpu.cfs_period_us` (kernel/sched/core.c: 1 ms to 1 s)."""
MAX_QUOTA: Final = 17_592_186_044_415
"""libvirt's bound (VIR_DOMAIN_CPU_QUOTA_MAX)."""
MAX_SHARES: Final = 10_000
"""cgroup v2's `cpu.weight` ends here; v1's `cpu.shares` goes further."""


class VcpuPin(SpecModel):
    """Host CPUs of one vCPU."""

    vcpu: VcpuId
    """The vCPU."""
    cpuset: SpecCpuSet
    """Host CPUs, for example `1-4,^2`."""


class IoThreadPin(SpecModel):
    """Host CPUs of one I/O thread."""

    id: Annotated[int, Field(ge=1, le=MAX_IO_THREADS)]
    """The I/O thread, an id of `spec.domain.ioThreads` or of a disk's own."""
    cpuset: SpecCpuSet
    """Host CPUs; of a thread that floats, inside the shared and housekeeping CPUs of the VM's host cells."""


class Pinning(SpecModel):
    """Host CPUs chosen by hand. With dedicated CPUs they are candidates, of which each vCPU gets one for itself; without, vCPUs float over those of them that are shared CPUs of their cell's host cells."""

    cpuset: SpecCpuSet | None = None
    """For every vCPU that `vcpus` does not name, in libvirt's notation: `1-4,^3,6`."""
    vcpus: list[VcpuPin] = Field(
        default=[], max_length=MAX_VCPUS, json_schema_extra=list_map("vcpu")
    )
    """For single vCPUs; goes before `cpuset`."""
    emulator: SpecCpuSet | None = None
    """For the emulator's threads, inside the shared and housekeeping CPUs of the VM's host cells; with isolateEmulatorThread the candidates for their own CPU."""
    io_threads: list[IoThreadPin] = Field(
        default=[], max_length=MAX_IO_THREADS, json_schema_extra=list_map("id")
    )
    """For single I/O threads; the others float like the emulator. Where I/O threads hold a CPU each, the candidates for it."""


class Realtime(SpecModel):
    """vCPU threads under SCHED_FIFO. Memory is locked and not merged. Needs dedicated CPUs, and the host's `permitted.realtime`."""

    mask: SpecCpuSet | None = None
    """The vCPUs, for example `2-7`. Left out: all."""
    priority: Annotated[int, Field(ge=1, le=99)] = 1
    """SCHED_FIFO priority."""


class Tuning(SpecModel):
    """The CPU controller of the domain's cgroups."""

    shares: Annotated[int, Field(ge=2, le=MAX_SHARES)] | None = None
    """Weight against other groups: `cpu.weight` of cgroup v2, `cpu.shares` of v1."""
    period_microseconds: Annotated[int, Field(ge=MIN_PERIOD, le=MAX_PERIOD)] | None = None
    """Length of a period in which each vCPU may use its quota. Default: 100000."""
    quota_microseconds: Annotated[int, Field(ge=1000, le=MAX_QUOTA)] | None = None
    """CPU time of each vCPU in a period. Left out: no limit."""
