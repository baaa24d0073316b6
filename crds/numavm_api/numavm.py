"""The kind NumaVM: one virtual machine. `spec` here, `status` in `numavm_api.vm_status`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from numavm_api.base import SpecModel, list_map
from numavm_api.cpu import Cpu
from numavm_api.devices import Devices, HostPath, Network, Volume
from numavm_api.iothreads import IoThreads
from numavm_api.memory import Memory
from numavm_api.scheduling import MAX_SPREADS, Affinity, Spread, Toleration

KIND: Final = "NumaVM"
PLURAL: Final = "numavms"
FINALIZER: Final = "numavm.io/teardown"
MAX_NODE_SELECTOR: Final = 16


class RunStrategy(StrEnum):
    """When the VM runs; KubeVirt's words."""

    ALWAYS = "Always"
    RERUN_ON_FAILURE = "RerunOnFailure"
    ONCE = "Once"
    HALTED = "Halted"


class DomainType(StrEnum):
    """Who runs guest code."""

    AUTO = "Auto"
    KVM = "KVM"
    TCG = "TCG"


class CellSharing(StrEnum):
    """Whether two guest cells may share a host cell."""

    NEVER = "Never"
    ALLOW = "Allow"


class DriftPolicy(StrEnum):
    """What happens where somebody changes a running VM's pins or pages past NumaVM."""

    RESTORE = "Restore"
    REPORT = "Report"


class LastLevelCache(StrEnum):
    """How a VM with dedicated CPUs uses last-level caches."""

    PREFER = "Prefer"
    WHOLE = "Whole"


class Machine(SpecModel):
    """The machine type."""

    type: Annotated[
        str,
        Field(
            pattern=r"^(q35|pc|pc-q35-[0-9]{1,2}\.[0-9]{1,2}|pc-i440fx-[0-9]{1,2}\.[0-9]{1,2})$",
            max_length=32,
        ),
    ] = "q35"
    """`q35`, `pc`, or a versioned type such as `pc-q35-7.2`. `status.domain.machine` keeps the version over restarts."""


class BiosBootloader(SpecModel):
    """SeaBIOS."""


class Bootloader(SpecModel):
    """What boots from disk."""

    bios: BiosBootloader | None = None
    """SeaBIOS, the default."""


class KernelBoot(SpecModel):
    """Boot a kernel from the host's file system, without a boot loader."""

    kernel: HostPath
    """Path of the kernel, below a directory that the NumaHost permits."""
    initrd: HostPath | None = None
    """Path of the initial RAM disk."""
    args: Annotated[str, Field(pattern=r"^[ -~]*$", max_length=2047)] | None = None
    """Kernel command line; printable ASCII, at most 2047 characters (x86's COMMAND_LINE_SIZE)."""


class Firmware(SpecModel):
    """How the guest boots."""

    bootloader: Bootloader | None = None
    """Boot from disk."""
    kernel_boot: KernelBoot | None = None
    """Boot a kernel directly."""


class Domain(SpecModel):
    """The virtual machine itself."""

    type: DomainType = DomainType.AUTO
    """Auto: KVM where the agent's probe really ran guest code, TCG only where the NumaHost allows emulation."""
    machine: Machine = Machine()
    """The machine type."""
    firmware: Firmware = Firmware()
    """How the guest boots."""
    cpu: Cpu = Cpu()
    """The guest's CPUs and NUMA cells."""
    memory: Memory = Memory()
    """The guest's memory."""
    devices: Devices = Devices()
    """The guest's devices."""
    io_threads: IoThreads | None = None
    """Threads that serve disks beside QEMU's main loop. Left out: none but those of disks with `dedicatedIOThread`."""


class PlacementWishes(SpecModel):
    """Wishes to the placement, all optional."""

    cell_sharing: CellSharing = CellSharing.NEVER
    """Allow: two guest cells may share a host cell where nothing better fits."""
    reserve_maximum: bool = False
    """True: what may be added to the running VM, vCPUs that are off and memory up to the maximum, is held from the start."""
    last_level_cache: LastLevelCache = LastLevelCache.PREFER
    """Prefer: the VM's CPUs are on as few last-level caches as they can be. Whole: those caches are its own, CPUs that it does not use stay empty."""
    spread: list[Spread] = Field(default=[], max_length=MAX_SPREADS)
    """VMs that this one is placed away from, at most 4 entries. A running VM is not moved for it."""


class NumaVMSpec(SpecModel):
    """What the VM should be."""

    run_strategy: RunStrategy = RunStrategy.ALWAYS
    """Always: started whenever it does not run. RerunOnFailure: started again unless the guest itself shut down. Once: started once. Halted: stopped, and holds nothing."""
    restart_token: Annotated[str, Field(max_length=64)] | None = None
    """Any text; a changed one restarts the VM."""
    node_selector: dict[
        Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]
    ] = Field(default={}, max_length=MAX_NODE_SELECTOR)
    """Labels the Kubernetes node must have."""
    affinity: Affinity = Affinity()
    """Which nodes the VM may, and would rather, go to."""
    tolerations: list[Toleration] = Field(default=[], max_length=16)
    """Taints of nodes that do not keep the VM away, at most 16."""
    priority_class_name: (
        Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)] | None
    ) = None
    """A PriorityClass: a waiting VM of higher priority is placed first. Left out: the global default, else 0."""
    placement: PlacementWishes = PlacementWishes()
    """Wishes to the placement."""
    drift_policy: DriftPolicy = DriftPolicy.RESTORE
    """Restore: pins and pages that somebody changed past NumaVM are put back, with an event. Report: they are only reported, by NumaAligned and an event."""
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=86400)] = 60
    """How long a guest may take to shut down by itself before its power is cut."""
    domain: Domain
    """The virtual machine itself."""
    networks: list[Network] = Field(default=[], max_length=16, json_schema_extra=list_map("name"))
    """What interfaces are connected to, at most 16."""
    volumes: list[Volume] = Field(default=[], max_length=32, json_schema_extra=list_map("name"))
    """What disks are stored on, at most 32."""
