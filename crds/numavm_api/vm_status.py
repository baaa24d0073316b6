"""`NumaVM.status`: what the VM got, and whether the kernel confirms it.

The operator writes `observedGeneration`, `printableStatus`, `nodeName`, `placement`, `refusals`, `reservedNodeName` and its
conditions; the agent of `nodeName` writes the rest (design: who writes what).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from numavm_api.base import ATOMIC, StatusModel, list_map
from numavm_api.conditions import ClaimRefusalReason, Condition, PrintableStatus
from numavm_api.cpu import MAX_CELLS
from numavm_api.cpuset import CpuSet
from numavm_api.modules import MAX_MODULES
from numavm_api.placement import Placement
from numavm_api.quantity import Quantity

ShortText = Annotated[str, Field(max_length=253)]
LongText = Annotated[str, Field(max_length=2048)]
Time = Annotated[str, Field(max_length=32)]


class DomainState(StrEnum):
    """libvirt's domain states, as far as NumaVM tells them apart."""

    SHUTOFF = "Shutoff"
    RUNNING = "Running"
    PAUSED = "Paused"
    SHUTDOWN = "Shutdown"
    """The guest is shutting down."""
    CRASHED = "Crashed"


class ShutoffReason(StrEnum):
    """Why a domain is no longer there."""

    GUEST_SHUTDOWN = "GuestShutdown"
    CRASHED = "Crashed"
    DESTROYED = "Destroyed"
    STOPPED = "Stopped"
    """NumaVM stopped it: the spec asked for that."""
    HOST_LOST = "HostLost"
    START_FAILED = "StartFailed"
    UNKNOWN = "Unknown"


class PausedReason(StrEnum):
    """Why a running domain stands still (libvirt's virDomainPausedReason)."""

    USER = "User"
    """Somebody paused it, through libvirt."""
    IO_ERROR = "IOError"
    """One of its disks failed, or what lies under it is full."""
    WATCHDOG = "Watchdog"
    """Its watchdog was not fed."""
    CRASHED = "Crashed"
    """Its kernel panicked."""
    SUSPENDED = "Suspended"
    """It went to sleep by itself (ACPI S3)."""
    UNKNOWN = "Unknown"
    """libvirt does not say, as of QEMU's internal errors: instructions that KVM cannot run among them."""


class Refusal(StatusModel):
    """A claim that an agent refused; the host is left out until its NumaHost changes or `until` has passed."""

    node_name: ShortText
    """The host."""
    placement_id: ShortText
    """The refused claim."""
    reason: ClaimRefusalReason
    """One word from a closed list."""
    message: LongText
    """Field, value and limit."""
    host_resource_version: ShortText
    """The NumaHost's resourceVersion when it refused."""
    time: Time
    """When."""
    count: Annotated[int, Field(ge=1)] = 1
    """How often in a row."""


class DomainRefusal(StatusModel):
    """The agent's word that it will not run a claim."""

    placement_id: ShortText
    """The refused claim."""
    reason: ClaimRefusalReason
    """One word from a closed list."""
    message: LongText
    """Field, value and limit."""
    time: Time
    """When."""


class DomainStatus(StatusModel):
    """The libvirt domain, as the agent sees it."""

    node_name: ShortText
    """The host this report comes from."""
    uuid: ShortText | None = None
    """The domain's UUID: the NumaVM's uid."""
    name: ShortText | None = None
    """The domain's name on the host."""
    state: DomainState
    """What libvirt says."""
    type: ShortText | None = None
    """KVM or TCG."""
    machine: ShortText | None = None
    """The versioned machine type."""
    placement_id: ShortText | None = None
    """The claim the domain runs under."""
    observed_generation: int | None = None
    """The generation the agent has acted on."""
    restart_token: ShortText | None = None
    """The restart token the domain was started with."""
    started_at: Time | None = None
    """When the domain started."""
    boot_id: ShortText | None = None
    """The host's boot id when the domain started: another one means the domain died with its host."""
    starts: int | None = None
    """How often it was started under this claim."""
    failures: int | None = None
    """How often in a row it ended or failed without being asked to."""
    retry_at: Time | None = None
    """When the next start is tried."""
    shutoff_reason: ShutoffReason | None = None
    """Why it is not running."""
    paused_reason: PausedReason | None = None
    """Why it stands still, where it is paused."""
    released: ShortText | None = None
    """The claim of which this host holds nothing any more."""
    refused: DomainRefusal | None = None
    """The claim this host will not run, and why."""


class CpuTopologyStatus(StatusModel):
    """The guest's CPUs as they are now."""

    sockets: int
    """Sockets."""
    dies: int
    """Dies per socket."""
    cores: int
    """Cores per die."""
    threads: int
    """Threads per core."""
    vcpus: int | None = None
    """Number of vCPUs that are powered on."""
    online_vcpus: CpuSet = Field(alias="onlineVcpus")
    """vCPUs that are powered on."""
    removable_vcpus: CpuSet | None = Field(default=None, alias="removableVcpus")
    """Those of them that can be taken out while the guest runs: added after it booted. Left out: none."""


class BalloonStatus(StatusModel):
    """The guest's balloon: what the host asks for, what the guest has, and what it says of itself."""

    target: Quantity
    """What the spec wants the guest to have; all of it where the spec names none."""
    actual: Quantity
    """What it has, by the balloon's word. A guest without the driver never follows."""
    available: Quantity | None = None
    """Memory that the guest's kernel manages, by its own word."""
    usable: Quantity | None = None
    """What a new program in the guest could use, by its own word."""
    unused: Quantity | None = None
    """What nothing in the guest uses, by its own word."""
    last_update: Time | None = None
    """When the guest last spoke of itself."""
    stale: bool | None = None
    """True: it has not spoken for three periods; its figures are of then."""


class ModuleStatus(StatusModel):
    """A memory module that the guest has."""

    name: ShortText
    """The entry of `spec.domain.devices.memory`."""
    model: ShortText
    """dimm, virtio-mem, nvdimm or virtio-pmem."""
    cell: int | None = None
    """Its guest cell."""
    size: Quantity
    """Its size."""
    requested: Quantity | None = None
    """Of virtio-mem: what the guest was told to have."""
    current: Quantity | None = None
    """Of virtio-mem: what it has."""


class MemoryStatus(StatusModel):
    """The guest's memory."""

    guest_at_boot: Quantity
    """What it booted with."""
    guest_requested: Quantity
    """What the spec asks for."""
    guest_current: Quantity
    """What libvirt says it has now."""
    balloon: BalloonStatus | None = None
    """Its balloon. Left out: it has none."""
    devices: list[ModuleStatus] = Field(default=[], max_length=MAX_MODULES)
    """Its memory modules, by name."""


class OperationStatus(StatusModel):
    """A change of the running domain that is under way; at most one at a time."""

    kind: ShortText
    """ReHome: its memory and threads move to other host cells. Amend: it takes up an amended claim on the same ones."""
    placement_id: ShortText
    """The claim it works towards."""
    from_: Annotated[str, Field(max_length=256, alias="from")]
    """Guest cell -> host cells before."""
    to: Annotated[str, Field(max_length=256)]
    """Guest cell -> host cells after."""
    step: ShortText
    """What is being done: Record, Widen, Move, Plug, Threads, Narrow, Commit."""
    percent: Annotated[int, Field(ge=0, le=100)]
    """How much of the memory that moves is there, by the kernel's word, in steps of 10."""
    message: LongText | None = None
    """Why it does not come forward, where it does not; it is tried again."""


class Resident(StatusModel):
    """Guest memory resident on one host cell, as the kernel says."""

    host_cell: int
    """The host cell."""
    bytes: int
    """Resident bytes there."""


class CellStatus(StatusModel):
    """What the kernel confirms of one guest cell."""

    id: int
    """The guest cell."""
    host_cells: CpuSet
    """Where it should be."""
    vcpus: CpuSet
    """Its vCPUs."""
    pcpus: CpuSet
    """Every pCPU its vCPU threads may run on, by the kernel's word."""
    resident: list[Resident] = Field(default=[], max_length=64)
    """Where its pages are, by the kernel's word."""
    pinned: bool
    """Every vCPU thread is allowed exactly where it was promised."""
    aligned: bool
    """Every page is on a promised host cell."""


class NumaStatus(StatusModel):
    """What the kernel confirms."""

    cells: list[CellStatus] = Field(max_length=MAX_CELLS)
    """One entry per guest cell."""
    verified_at: Time
    """When threads and pages were last read."""


class NumaVMStatus(StatusModel):
    """What the VM is."""

    observed_generation: int | None = None
    """The generation the operator has acted on."""
    printable_status: PrintableStatus = PrintableStatus.STOPPED
    """One word for people."""
    node_name: ShortText | None = None
    """The Kubernetes node that runs it."""
    placement: Placement | None = Field(default=None, json_schema_extra=ATOMIC)
    """The claim: what the VM holds there."""
    derived_cells: Annotated[int, Field(ge=1, le=MAX_CELLS)] | None = None
    """With guestMappingPassthrough: how many guest cells the first placement derived. Kept, so that a restart elsewhere keeps the guest's topology."""
    refusals: list[Refusal] = Field(
        default=[], max_length=64, json_schema_extra=list_map("nodeName")
    )
    """Claims that agents refused, the newest per host."""
    reserved_node_name: ShortText | None = None
    """The host that is kept for this VM while it waits for room there: VMs whose turn comes later do not go to it. Left out: none is."""
    domain: DomainStatus | None = None
    """The libvirt domain."""
    current_cpu_topology: CpuTopologyStatus | None = Field(default=None, alias="currentCPUTopology")
    """The guest's CPUs as they are now."""
    memory: MemoryStatus | None = None
    """The guest's memory as it is now."""
    numa: NumaStatus | None = None
    """What the kernel confirms."""
    operation: OperationStatus | None = None
    """The change of the running domain that is under way."""
    conditions: list[Condition] = Field(
        default=[], max_length=32, json_schema_extra=list_map("type")
    )
    """Conditions; a list-map keyed by type."""
