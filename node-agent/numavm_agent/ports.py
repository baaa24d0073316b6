"""What the agent needs of the world outside, as Protocols: hypervisor, API server, host, clock.

Owns the boundary: everything above reads only these names; libvirt, the kubernetes client and the kernel's files are
reached only by their adapters (`libvirt/`, `kube/`, `host/`). Contract tests run the same suite on every
implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from numavm_agent.topology.capabilities import EmulatorCapabilities
from numavm_agent.topology.kvm import KvmProbe
from numavm_agent.topology.readings import HostTopology
from numavm_agent.verify.parsers import MemoryMapping, ThreadState
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import NumaHostSpec, NumaHostStatus
from numavm_api.numavm import NumaVMSpec
from numavm_api.others import KubeletUse
from numavm_api.quantity import Bytes
from numavm_api.vm_status import NumaVMStatus, PausedReason, ShutoffReason


class LibvirtState(StrEnum):
    """virDomainState, as far as it matters, and the moment before a domain has one."""

    STARTING = "Starting"
    """libvirt is still making it (VIR_DOMAIN_PAUSED_STARTING_UP, or active without a state)."""
    RUNNING = "Running"
    PAUSED = "Paused"
    SHUTDOWN = "Shutdown"
    SHUTOFF = "Shutoff"
    """Active no more; libvirt is still tidying up."""
    CRASHED = "Crashed"


@dataclass(frozen=True, slots=True)
class BalloonSeen:
    """libvirt's word on a domain's balloon (VIR_DOMAIN_STATS_BALLOON), and the guest's own figures if it gives any."""

    current: Bytes
    available: Bytes | None = None
    usable: Bytes | None = None
    unused: Bytes | None = None
    last_update: int = 0
    """When the guest last spoke of itself, in seconds since the epoch; 0: never."""


@dataclass(frozen=True, slots=True)
class DomainSeen:
    """A domain that libvirt lists as active."""

    uuid: str
    name: str
    run_id: int
    """libvirt's id of this run: another one is another QEMU process."""
    state: LibvirtState
    paused: PausedReason | None = None
    """Why it stands still, where it is paused."""
    balloon: BalloonSeen | None = None
    """None: it has none, or libvirt cannot say now."""


@dataclass(frozen=True, slots=True)
class DomainEnd:
    """libvirt's word that a domain ended, and why."""

    uuid: str
    reason: ShutoffReason


@dataclass(frozen=True, slots=True)
class DeviceNews:
    """libvirt's word that a device came, went, has another size, or is not given back."""

    uuid: str
    alias: str
    refused: bool = False
    """The guest does not give it back."""


class Hypervisor(Protocol):
    """The libvirt calls that the agent uses.

    Each may raise `HypervisorUnavailable`; those on a domain also `DomainMissing` and `OperationBusy`.
    """

    def libvirt_version(self) -> str:
        """Return libvirtd's version, `9.0.0`; quick."""
        ...

    def qemu_version(self) -> str:
        """Return QEMU's version, `7.2.22`; the first call takes seconds."""
        ...

    def capabilities(self) -> EmulatorCapabilities:
        """Return what QEMU for x86-64 can do here.

        Raises:
            TopologyError: libvirt knows no such QEMU.
        """
        ...

    def list_domains(self) -> tuple[DomainSeen, ...]:
        """Return every active domain, NumaVM's and others'."""
        ...

    def domain_xml(self, uuid: str) -> str:
        """Return the live XML of a domain."""
        ...

    def create(self, xml: str) -> None:
        """Start a transient domain; returns when its guest runs.

        Raises:
            DomainExists: a domain of that UUID or name is there.
            StartFault: it could not start; nothing of it is left.
        """
        ...

    def shutdown(self, uuid: str) -> None:
        """Ask the guest by ACPI to shut down; returns at once."""
        ...

    def destroy(self, uuid: str) -> None:
        """Cut a domain's power; returns when its process is gone."""
        ...

    def set_metadata(self, uuid: str, xml: str) -> None:
        """Replace NumaVM's metadata element of a domain."""
        ...

    def pin_vcpu(self, uuid: str, vcpu: int, cpus: CpuSet) -> None:
        """Set the affinity of a vCPU's thread, now."""
        ...

    def pin_emulator(self, uuid: str, cpus: CpuSet) -> None:
        """Set the affinity of all threads that are neither vCPUs nor I/O threads, now."""
        ...

    def plug_vcpu(self, uuid: str, vcpu: int) -> None:
        """Power a vCPU on; QEMU has its thread at once, the guest uses it when it brings it online.

        Pinned before, by `pin_vcpu`, it never runs elsewhere.
        """
        ...

    def attach(self, uuid: str, xml: str) -> None:
        """Plug a device into the running guest."""
        ...

    def detach(self, uuid: str, alias: str) -> None:
        """Ask the guest to give a device back; returns before it has answered."""
        ...

    def resize(self, uuid: str, alias: str, requested: Bytes) -> None:
        """Tell the guest how much of a virtio-mem device it should have; returns before it has followed."""
        ...

    def unplug_vcpu(self, uuid: str, vcpu: int) -> None:
        """Ask the guest to give a vCPU back.

        Raises:
            OperationBusy: it did not answer within libvirt's 5 s; it still may.
        """
        ...

    def take_device_news(self) -> tuple[DeviceNews, ...]:
        """Return what events told of devices since the last call, oldest first."""
        ...

    def set_balloon(self, uuid: str, target: Bytes) -> None:
        """Ask the guest to keep so much memory; returns at once, whether the guest follows or not."""
        ...

    def balloon_size(self, uuid: str) -> Bytes | None:
        """Return what the guest has by its balloon alone, by QEMU's word; None: QEMU does not say."""
        ...

    def set_balloon_period(self, uuid: str, seconds: int) -> None:
        """Have the guest asked for its figures so often; 0: never."""
        ...

    def cell_addresses(self, uuid: str, sizes: Mapping[int, Bytes]) -> Mapping[int, int]:
        """Return guest cell -> an address of its QEMU process within that cell's memory, for cells of boot memory.

        QEMU's own word; libvirt marks the domain as tainted by it, which changes nothing. Cells that QEMU does not
        name are left out.
        """
        ...

    def pin_io_thread(self, uuid: str, io_thread: int, cpus: CpuSet) -> None:
        """Set the affinity of an I/O thread, now."""
        ...

    def take_ends(self) -> tuple[DomainEnd, ...]:
        """Return the ends that events told of since the last call, oldest first."""
        ...

    def on_change(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, from any thread, whenever a domain or the connection changes."""
        ...

    def close(self) -> None:
        """Let go of libvirtd."""
        ...


@dataclass(frozen=True, slots=True)
class VmObject:
    """A NumaVM as the API server has it."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    deleting: bool
    spec: NumaVMSpec
    status: NumaVMStatus
    raw_status: Mapping[str, Any]
    """`status` as it stands there, with fields this version does not know."""


@dataclass(frozen=True, slots=True)
class UnreadableVm:
    """A NumaVM whose spec or status this version cannot read: left alone, and said so."""

    namespace: str
    name: str
    uid: str
    error: str


@dataclass(frozen=True, slots=True)
class HostObject:
    """The NumaHost as the API server has it."""

    uid: str
    generation: int
    resource_version: str
    spec: NumaHostSpec
    status: NumaHostStatus
    raw_status: Mapping[str, Any]


class EventType(StrEnum):
    """Kubernetes' two types of events."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class Regarding:
    """The object an event is about."""

    kind: str
    namespace: str
    """Empty for a NumaHost."""
    name: str
    uid: str


class Api(Protocol):
    """The API server, as far as this node's agent uses it. Each call may raise `ApiUnavailable` or `ApiDenied`."""

    def list_vms(self) -> tuple[VmObject | UnreadableVm, ...]:
        """Return every NumaVM whose `status.nodeName` is this node, by the server's own word."""
        ...

    def get_vm(self, namespace: str, name: str) -> VmObject | UnreadableVm | None:
        """Return a NumaVM wherever it is placed; None: the server knows none of that name."""
        ...

    def apply_vm_status(self, vm: VmObject, status: Mapping[str, Any]) -> Mapping[str, Any]:
        """Apply the agent's whole part of a NumaVM's status, and return the whole status that the server then has.

        Raises:
            ApiConflict: the VM is no longer this node's, or another VM has its name.
        """
        ...

    def get_host(self) -> HostObject:
        """Return this node's NumaHost; create it where there is none."""
        ...

    def apply_host_status(self, status: Mapping[str, Any]) -> HostObject:
        """Apply the whole status of this node's NumaHost, and return what the server then has."""
        ...

    def renew_lease(self, host_resource_version: str) -> None:
        """Say that this node's agent lives, and which NumaHost version it has just found true."""
        ...

    def post_event(
        self, regarding: Regarding, kind: EventType, reason: str, action: str, note: str
    ) -> None:
        """Tell people; returns at once, and drops the event where the server does not take it."""
        ...


class HostReader(Protocol):
    """What the kernel and the host's files say."""

    def boot_id(self) -> str:
        """Return the kernel's boot id."""
        ...

    def topology(self) -> HostTopology:
        """Return CPUs, memory, huge pages and PCI devices as they are now."""
        ...

    def probe_kvm(self, emulator: str) -> KvmProbe:
        """Run guest code under KVM and tell whether it really ran; takes seconds."""
        ...

    def kubelet_runs(self) -> bool:
        """Tell whether a kubelet hands out CPUs of this host."""
        ...

    def qemu_pid(self, name: str, uuid: str) -> int | None:
        """Return the process of a domain; None: there is none."""
        ...

    def started_at(self, pid: int) -> float:
        """Return when a process started, in seconds since the epoch.

        Raises:
            ProcessLookupError: it has ended.
        """
        ...

    def threads(self, pid: int) -> tuple[ThreadState, ...]:
        """Return name and affinity of each thread of a process.

        Raises:
            ProcessLookupError: it has ended.
        """
        ...

    def mappings(self, pid: int) -> tuple[MemoryMapping, ...]:
        """Return a process's numa_maps; walks its page tables, seconds on a terabyte.

        Raises:
            ProcessLookupError: it has ended.
        """
        ...

    def own_memory(self, pid: int) -> dict[int, Bytes] | None:
        """Return a process's memory that cannot be given back, per host cell, cheaply; None: the kernel does not say.

        Raises:
            ProcessLookupError: it has ended.
        """
        ...

    def last_log_line(self, name: str) -> str | None:
        """Return the last line libvirt wrote into a domain's log; None: there is none."""
        ...

    def check_file(self, path: str) -> str | None:
        """Return why a file cannot be used without following a symbolic link; None: it can."""
        ...


class Kubelet(Protocol):
    """Who else hands out this host's CPUs and memory."""

    def use(self) -> KubeletUse | None:
        """Return what the kubelet has promised, and may promise; None: no kubelet runs here.

        Raises:
            KubeletUnavailable: one runs, and does not answer.
        """
        ...


class HostMemory(Protocol):
    """Where a domain may have memory, and moving it."""

    def why_fixed(self) -> str | None:
        """Return why memory of running guests cannot be moved on this host; None: it can."""
        ...

    def allowed_cells(self, pid: int) -> Mapping[str, CpuSet]:
        """Return group -> host cells, outer groups first, of those groups of a domain that hold it down.

        Raises:
            ProcessLookupError: it has ended.
        """
        ...

    def allow_cells(self, group: str, cells: CpuSet) -> None:
        """Hold a group down to some host cells.

        Raises:
            HostFaultError: the kernel refuses.
        """
        ...

    def move_pages(self, pid: int, addresses: Sequence[int], cells: Sequence[int]) -> list[int]:
        """Move pages to a host cell each; return per address where it now is, or a negative error number.

        Raises:
            ProcessLookupError: it has ended.
            HostFaultError: the kernel refuses.
        """
        ...

    def cells_of(self, pid: int, addresses: Sequence[int]) -> list[int]:
        """Return per address the host cell of its page, or a negative error number."""
        ...


class HostThreads(Protocol):
    """Where threads that libvirt does not know may run."""

    def allow_cpus(self, tid: int, cpus: CpuSet) -> None:
        """Hold a thread down to some host CPUs; it stays as it was where it has ended or the kernel forbids it."""
        ...


class Clock(Protocol):
    """Time."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        ...

    def boottime(self) -> float:
        """Return seconds since the host booted; no one can set it, and no domain outlives it."""
        ...
