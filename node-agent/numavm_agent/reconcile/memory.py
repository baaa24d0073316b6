"""What the agent remembers of one VM between turns of its loop; all of it can be learned again after a restart."""

from __future__ import annotations

from dataclasses import dataclass

from numavm_agent.reconcile.jobs import Settled
from numavm_api.placement import Placement
from numavm_api.quantity import Bytes
from numavm_api.vm_status import DomainStatus, ShutoffReason


@dataclass(slots=True)
class VmMemory:
    """Changed by the loop's thread only."""

    status: DomainStatus | None = None
    """`status.domain` as it should read; the server's at first sight."""
    settled: Settled | None = None
    """The run that this agent has settled."""
    starting: Placement | None = None
    """The claim whose start is under way."""
    ended: ShutoffReason | None = None
    """libvirt's word on an end that the loop has not yet come upon."""
    stopped_by_us: bool = False
    """A stop was seen to be under way in the last run."""
    last_asked: float | None = None
    """When the guest was last asked to shut down, in seconds since boot."""
    quiet_until: float | None = None
    """A job went wrong: nothing is tried again before, in seconds since boot."""
    changing: Placement | None = None
    """The claim, with the one before it, towards which a change begins that the domain may not know of yet."""
    refusals: frozenset[str] = frozenset()
    """Modules that the guest said it does not give back, until a job has written it down."""
    device_news: bool = False
    """A device of the domain came, went, or did not, since a job last looked."""
    refusal: str | None = None
    """libvirt's words on what the guest was to give back and could not be asked for."""
    look_at: float | None = None
    """The guest was asked to give something back: when the domain is looked at again, in seconds since boot."""
    balloon_reached: tuple[int, Bytes] | None = None
    """The run in which the guest had come to its balloon's target, and that target."""
    groups_at: float = 0.0
    """When the domain's groups were last read, in seconds since boot."""
    groups_told: frozenset[str] = frozenset()
    """Groups that somebody opened to other host cells, as it was told."""
    percent: int = 0
    """How far the move that is under way has come."""
    change_error: str | None = None
    """Why the change that is under way does not come forward."""
    start_error: str | None = None
    """Why the last start failed."""
    waits_for: str | None = None
    """Why nothing happens right now, for people."""
