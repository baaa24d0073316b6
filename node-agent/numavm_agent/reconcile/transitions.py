"""What becomes of `status.domain` when something happens to a domain. Pure.

`status.domain` is the agent's memory: it survives the agent in the API server. Each function takes what it said before
and returns the whole of what it says now, so that nothing of an older claim lingers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from numavm_agent.domain.model import Accelerator
from numavm_agent.ports import LibvirtState, VmObject
from numavm_agent.reconcile.admission import Refused
from numavm_agent.reconcile.backoff import (
    CAP_SECONDS,
    FORGIVEN_AFTER_SECONDS,
    delay_seconds,
    failures_after,
)
from numavm_api.placement import Placement
from numavm_api.vm_status import (
    DomainRefusal,
    DomainState,
    DomainStatus,
    PausedReason,
    ShutoffReason,
)


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a domain, as libvirt and the kernel tell it."""

    uuid: str
    name: str
    state: LibvirtState
    paused: PausedReason | None
    accelerator: Accelerator
    machine: str
    placement_id: str
    restart_token: str | None
    started_at: float | None
    """Seconds since the epoch; None: its process is not there."""
    boot_id: str
    stopping: bool
    """NumaVM is stopping it."""


def timestamp(seconds: float) -> str:
    """Return seconds since the epoch as Kubernetes writes times."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(time: str | None) -> float | None:
    """Return a Kubernetes time as seconds since the epoch; None of nothing, and of what is no time."""
    if time is None:
        return None
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None


_STATES = {
    LibvirtState.STARTING: DomainState.SHUTOFF,
    LibvirtState.RUNNING: DomainState.RUNNING,
    LibvirtState.PAUSED: DomainState.PAUSED,
    LibvirtState.SHUTDOWN: DomainState.SHUTDOWN,
    LibvirtState.SHUTOFF: DomainState.SHUTDOWN,
    LibvirtState.CRASHED: DomainState.CRASHED,
}


def observed(before: DomainStatus | None, node: str, run: Run, *, now: float) -> DomainStatus:
    """Return the status of a domain that is there.

    While NumaVM stops it, it reads `Shutdown` because `Stopped`: an agent that comes later knows whose doing its end
    was.
    """
    same_claim = before is not None and before.placement_id == run.placement_id
    failures = before.failures if before and same_claim else None
    if failures and run.started_at is not None and now >= run.started_at + FORGIVEN_AFTER_SECONDS:
        failures = None
    return DomainStatus(
        node_name=node,
        uuid=run.uuid,
        name=run.name,
        state=DomainState.SHUTDOWN if run.stopping else _STATES[run.state],
        type=str(run.accelerator),
        machine=run.machine,
        placement_id=run.placement_id,
        observed_generation=before.observed_generation if before else None,
        restart_token=run.restart_token,
        started_at=_started_at(before, run),
        boot_id=run.boot_id,
        starts=(before.starts if before and same_claim else None) or 1,
        failures=failures,
        shutoff_reason=ShutoffReason.STOPPED if run.stopping else None,
        paused_reason=None if run.stopping else run.paused,
    )


def _started_at(before: DomainStatus | None, run: Run) -> str | None:
    """Return when the run began; once its process is gone, what was known of it."""
    if run.started_at is not None:
        return timestamp(run.started_at)
    is_same_claim = before is not None and before.placement_id == run.placement_id
    return before.started_at if before is not None and is_same_claim else None


def starting(
    before: DomainStatus | None, node: str, vm: VmObject, claim: Placement
) -> DomainStatus:
    """Return the status of a VM whose claim is admitted and whose start begins."""
    same_claim = before is not None and before.placement_id == claim.id
    return DomainStatus(
        node_name=node,
        uuid=vm.uid,
        state=DomainState.SHUTOFF,
        machine=before.machine if before else None,
        placement_id=claim.id,
        restart_token=vm.spec.restart_token,
        starts=(before.starts or 0 if before and same_claim else 0) + 1,
        failures=before.failures if before and same_claim else None,
    )


def waiting(before: DomainStatus | None, node: str) -> DomainStatus:
    """Return the status of a claimed VM with which nothing has been done yet; how it ended elsewhere still counts."""
    return DomainStatus(
        node_name=node,
        state=DomainState.SHUTOFF,
        machine=before.machine if before else None,
        restart_token=before.restart_token if before else None,
        shutoff_reason=before.shutoff_reason if before else None,
    )


def ended(before: DomainStatus, reason: ShutoffReason, *, now: float) -> DomainStatus:
    """Return the status of a domain that is gone.

    An end that nobody asked for counts as a failure; the time of the next start is set, should there be one.
    """
    after = before.model_copy(
        update={
            "state": DomainState.SHUTOFF,
            "shutoff_reason": reason,
            "retry_at": None,
            "released": None,
            "refused": None,
        }
    )
    if reason in (ShutoffReason.STOPPED, ShutoffReason.HOST_LOST):
        return after
    began = seconds_of(before.started_at)
    ran = max(0.0, now - began) if began is not None else 0.0
    return _failed(after, failures_after(before.failures, ran), now=now)


def start_failed(before: DomainStatus, *, now: float) -> DomainStatus:
    """Return the status after a start that failed."""
    after = before.model_copy(
        update={"state": DomainState.SHUTOFF, "shutoff_reason": ShutoffReason.START_FAILED}
    )
    return _failed(after, (before.failures or 0) + 1, now=now)


def _failed(after: DomainStatus, failures: int, *, now: float) -> DomainStatus:
    delay = delay_seconds(failures, after.uuid or "")
    retry_at = timestamp(now + delay + 1) if delay else None
    return after.model_copy(update={"failures": failures, "retry_at": retry_at})


def refused_change(
    before: DomainStatus, claim: Placement, refusal: Refused, *, now: float
) -> DomainStatus:
    """Return the status where a running VM cannot have an amended claim: it stays as it is."""
    update = {"refused": _refusal(claim, refusal, now=now)}
    return before.model_copy(update=update)


def refused(
    before: DomainStatus | None, node: str, claim: Placement, refusal: Refused, *, now: float
) -> DomainStatus:
    """Return the status where this host says no to a claim: it holds nothing of it."""
    return DomainStatus(
        node_name=node,
        state=DomainState.SHUTOFF,
        machine=before.machine if before else None,
        restart_token=before.restart_token if before else None,
        shutoff_reason=before.shutoff_reason if before else None,
        refused=_refusal(claim, refusal, now=now),
        released=claim.id,
    )


def _refusal(claim: Placement, refusal: Refused, *, now: float) -> DomainRefusal:
    return DomainRefusal(
        placement_id=claim.id,
        reason=refusal.reason,
        message=refusal.message[:2048],
        time=timestamp(now),
    )


def released(before: DomainStatus | None, node: str, claim: Placement) -> DomainStatus:
    """Return the status where this host holds nothing of a claim any more, and none is wanted."""
    kept = before or DomainStatus(node_name=node, state=DomainState.SHUTOFF)
    return kept.model_copy(
        update={
            "node_name": node,
            "state": DomainState.SHUTOFF,
            "placement_id": None,
            "failures": None,
            "retry_at": None,
            "starts": None,
            "refused": None,
            "released": claim.id,
        }
    )


def may_start(status: DomainStatus | None, *, now: float) -> bool:
    """Tell whether the delay after a failure has passed; a clock set back makes nobody wait beyond the cap."""
    retry_at = seconds_of(status.retry_at) if status else None
    return retry_at is None or now >= retry_at or retry_at - now > 2 * CAP_SECONDS
