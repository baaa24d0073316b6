"""Conditions and reasons: the closed lists that `status.conditions` and events draw from.

Each condition has one writer (design: who writes what). A reason is never empty and always from `Reason`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from numavm_api.base import StatusModel

ConditionStatus = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """Types of conditions of a NumaVM."""

    ACCEPTED = "Accepted"
    SCHEDULED = "Scheduled"
    CAPACITY_RESERVED = "CapacityReserved"
    HOST_REACHABLE = "HostReachable"
    READY = "Ready"
    RUNNING = "Running"
    NUMA_ALIGNED = "NumaAligned"
    RESTART_REQUIRED = "RestartRequired"
    HOT_VCPU_CHANGE = "HotVCPUChange"
    HOT_MEMORY_CHANGE = "HotMemoryChange"
    SOFTWARE_EMULATION = "SoftwareEmulation"


OPERATOR_CONDITIONS: Final = frozenset(
    {
        ConditionType.ACCEPTED,
        ConditionType.SCHEDULED,
        ConditionType.CAPACITY_RESERVED,
        ConditionType.HOST_REACHABLE,
        ConditionType.READY,
    }
)
AGENT_CONDITIONS: Final = frozenset(ConditionType) - OPERATOR_CONDITIONS


class HostConditionType(StrEnum):
    """Types of conditions of a NumaHost."""

    READY = "Ready"
    """The agent sees libvirt and the host's topology, and NumaVMs may be placed here."""
    POOLS_CONFIGURED = "PoolsConfigured"
    """There are CPUs and memory that NumaVM may hand out."""
    CLAIMS_CONSISTENT = "ClaimsConsistent"
    """No orphaned domain, and nothing is promised that others took."""
    POOLS_EXCLUSIVE = "PoolsExclusive"
    """Nothing that NumaVM may hand out can be handed out by the kubelet too."""


class Reason(StrEnum):
    """Why a condition is as it is."""

    # Accepted
    VALID = "Valid"
    INVALID_SPEC = "InvalidSpec"
    # Scheduled
    PLACED = "Placed"
    UNSCHEDULABLE = "Unschedulable"
    UNDECIDED = "Undecided"
    WAITING_FOR_HOSTS = "WaitingForHosts"
    QUOTA_EXCEEDED = "QuotaExceeded"
    NOT_WANTED = "NotWanted"
    # CapacityReserved
    RESERVED = "Reserved"
    CHANGING = "Changing"
    NO_ROOM = "NoRoom"
    NOT_MOVABLE = "NotMovable"
    # HostReachable
    LEASE_FRESH = "LeaseFresh"
    LEASE_EXPIRED = "LeaseExpired"
    NOT_PLACED = "NotPlaced"
    # Ready, Running
    RUNNING = "Running"
    HALTED = "Halted"
    FINISHED = "Finished"
    STARTING = "Starting"
    STOPPING = "Stopping"
    NOT_RUNNING = "NotRunning"
    PAUSED = "Paused"
    HOST_UNREACHABLE = "HostUnreachable"
    WAITING_FOR_AGENT = "WaitingForAgent"
    WAITING_FOR_OPERATOR = "WaitingForOperator"
    CLAIM_REFUSED = "ClaimRefused"
    START_FAILED = "StartFailed"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    GUEST_SHUTDOWN = "GuestShutdown"
    GUEST_CRASHED = "GuestCrashed"
    DOMAIN_DESTROYED = "DomainDestroyed"
    HOST_LOST = "HostLost"
    STOP_REASON_UNKNOWN = "StopReasonUnknown"
    # NumaAligned
    KERNEL_CONFIRMS = "KernelConfirms"
    THREADS_MISPLACED = "ThreadsMisplaced"
    PAGES_MISPLACED = "PagesMisplaced"
    PAGES_MISSING = "PagesMissing"
    SPANS_CELLS = "SpansCells"
    NOT_VERIFIED = "NotVerified"
    # RestartRequired, SoftwareEmulation
    PENDING_CHANGES = "PendingChanges"
    NOTHING_PENDING = "NothingPending"
    TCG = "TCG"
    KVM = "KVM"
    # HotVCPUChange, HotMemoryChange
    NO_CHANGE = "NoChange"
    AWAITING_CLAIM = "AwaitingClaim"
    AWAITING_GUEST = "AwaitingGuest"
    GUEST_REFUSED = "GuestRefused"
    CHANGE_FAILED = "ChangeFailed"
    # NumaHost
    AGENT_READY = "AgentReady"
    LIBVIRT_UNAVAILABLE = "LibvirtUnavailable"
    DEFAULT_POOLS = "DefaultPools"
    ADMINISTRATOR_POOLS = "AdministratorPools"
    NO_POOL = "NoPool"
    INVALID_POOLS = "InvalidPools"
    CONSISTENT = "Consistent"
    ORPHANED_DOMAINS = "OrphanedDomains"
    OVERLAP = "Overlap"
    EXCLUSIVE = "Exclusive"
    NO_KUBELET = "NoKubelet"
    KUBELET_UNAVAILABLE = "KubeletUnavailable"


class ClaimRefusalReason(StrEnum):
    """Why an agent refuses a claim."""

    CPU_TAKEN = "CpuTaken"
    CPU_NOT_IN_POOL = "CpuNotInPool"
    HUGE_PAGES_TAKEN = "HugePagesTaken"
    MEMORY_TAKEN = "MemoryTaken"
    STALE_EPOCH = "StaleEpoch"
    UNKNOWN_CELL = "UnknownCell"
    DEVICE_MISSING = "DeviceMissing"
    DEVICE_TAKEN = "DeviceTaken"
    NOT_PERMITTED = "NotPermitted"
    UNSUPPORTED = "Unsupported"
    SPEC_CHANGED = "SpecChanged"
    START_FAILED = "StartFailed"


class PrintableStatus(StrEnum):
    """The one word of `kubectl get nvm`; KubeVirt's words, derived from conditions for people only."""

    STOPPED = "Stopped"
    PROVISIONING = "Provisioning"
    STARTING = "Starting"
    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    TERMINATING = "Terminating"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    UNKNOWN = "Unknown"
    ERROR_UNSCHEDULABLE = "ErrorUnschedulable"
    ERROR_INVALID = "ErrorInvalid"


class Condition(StatusModel):
    """One condition; metav1.Condition's fields."""

    type: Annotated[str, Field(max_length=64)]
    """What it is about."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    """One word from a closed list."""
    message: Annotated[str, Field(max_length=4096)]
    """For people."""
    last_transition_time: Annotated[str, Field(max_length=32)]
    """When the status last changed."""
    observed_generation: int | None = None
    """The generation it speaks of."""
