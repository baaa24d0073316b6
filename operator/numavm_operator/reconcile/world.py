"""All that a decision about one NumaVM is made from.

Frozen: deciding and reporting only read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from numavm_api.lifecycle import Wanted, wants_to_run
from numavm_api.numahost import HeldClaim
from numavm_operator.objects import Vm


class Reach(StrEnum):
    """What is known of a host's agent."""

    REACHABLE = "Reachable"
    """Its Lease was seen to change lately."""
    UNREACHABLE = "Unreachable"
    """Its Lease did not change for too long, or there is no NumaHost."""
    UNDETERMINED = "Undetermined"
    """This operator does not lead for long enough to know."""


@dataclass(frozen=True, slots=True)
class HostClaim:
    """What a host says a VM holds there."""

    node_name: str
    claim: HeldClaim


class Outcome(StrEnum):
    """The scheduler's last word on a VM that waits."""

    UNSCHEDULABLE = "Unschedulable"
    UNDECIDED = "Undecided"
    WAITING_FOR_HOSTS = "WaitingForHosts"
    QUOTA_EXCEEDED = "QuotaExceeded"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a VM is not placed yet."""

    outcome: Outcome
    message: str
    kept_node: str | None = None
    """The host that is kept for it meanwhile."""


@dataclass(frozen=True, slots=True)
class HostView:
    """The host of the VM's claim."""

    name: str
    exists: bool
    reach: Reach
    fenced: bool
    boot_id: str | None = None
    """The kernel's boot id, as the host last reported it."""
    why_fixed: str | None = None
    """Why the memory of running VMs cannot be moved there; None: it can."""
    threads_per_core: int | None = None
    """Threads online of its widest core; None: its agent has not reported any."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a host reports that this VM holds there."""

    report: HostClaim
    confirmed: bool
    """The report is its agent's own word of now."""
    fenced: bool


@dataclass(frozen=True, slots=True)
class World:
    """One NumaVM, its claim's host, what hosts say of it, and what the scheduler said last."""

    vm: Vm
    host: HostView | None
    """None: no claim is held."""
    claimed: tuple[Claimed, ...] = ()
    waiting: Waiting | None = None

    @property
    def wanted(self) -> Wanted:
        """What should become of the domain."""
        if self.vm.deleting:
            return Wanted.DELETED
        if self.vm.spec is None:
            return Wanted.RUNNING
        return wants_to_run(self.vm.spec, self.vm.status.domain)
