"""`Ready`: whether the VM is as the spec wants it. Pure.

Unknown as long as nobody can know: while the host is unreachable, and until its agent has seen the
newest generation. A VM that should not run and does not is Ready.
"""

from __future__ import annotations

from typing import Final

from numavm_api.conditions import Condition, ConditionType, Reason
from numavm_api.lifecycle import Wanted
from numavm_api.vm_status import DomainState, DomainStatus
from numavm_operator.reconcile.verdict import Verdict, reason_named
from numavm_operator.reconcile.world import Outcome, Reach, World

_WAITING: Final = {
    Outcome.UNSCHEDULABLE: Reason.UNSCHEDULABLE,
    Outcome.UNDECIDED: Reason.UNDECIDED,
    Outcome.WAITING_FOR_HOSTS: Reason.WAITING_FOR_HOSTS,
    Outcome.QUOTA_EXCEEDED: Reason.QUOTA_EXCEEDED,
}
_ALIGNED_ENOUGH: Final = frozenset({Reason.SPANS_CELLS})
"""Reasons of `NumaAligned=False` that the spec permits."""


_UNDER_WAY: Final = frozenset({Reason.CHANGING, Reason.AWAITING_CLAIM, Reason.AWAITING_GUEST})
"""Reasons of a change of vCPUs or memory that is not done."""


def ready(world: World) -> Verdict:
    """Return the summary."""
    host = world.host
    if host is not None and host.reach is Reach.UNREACHABLE:
        return _unreachable(world, host.name)
    if world.wanted is Wanted.DELETED:
        return Verdict("False", Reason.STOPPING, "The VM is being deleted.")
    if world.vm.violations:
        return Verdict("False", Reason.INVALID_SPEC, " ".join(world.vm.violations))
    if not world.wanted.runs:
        return _at_rest(world)
    if host is None:
        return _waiting(world)
    return _running(world, host.name)


def condition_of(world: World, kind: ConditionType) -> Condition | None:
    """Return a condition as it stands, or None."""
    return next((one for one in world.vm.status.conditions if one.type == kind), None)


def domain_of_claim(world: World) -> DomainStatus | None:
    """Return the agent's report on the domain that runs, or ran, under the claim that is held.

    While a running VM is changed, that may still be the claim before.
    """
    status = world.vm.status
    domain, placement = status.domain, status.placement
    if domain is None or placement is None or domain.node_name != status.node_name:
        return None
    before = placement.previous.id if placement.previous is not None else placement.id
    if domain.placement_id not in (placement.id, before) or _died_with_its_host(world, domain):
        return None
    return domain


def _died_with_its_host(world: World, domain: DomainStatus) -> bool:
    """Tell whether the host has booted since: what was said of the domain before is no longer so.

    The agent of a host that is back renews its Lease before it has spoken of each VM.
    """
    now = world.host.boot_id if world.host is not None else None
    return None not in (now, domain.boot_id) and domain.boot_id != now


def _unreachable(world: World, name: str) -> Verdict:
    if world.wanted is Wanted.DELETED:
        text = f"The VM is being deleted and waits for the agent of {name}, which does not answer."
        return Verdict("Unknown", Reason.WAITING_FOR_AGENT, text)
    text = f"The agent of {name} does not answer; what the VM does is not known."
    return Verdict("Unknown", Reason.HOST_UNREACHABLE, text)


def _at_rest(world: World) -> Verdict:
    if world.vm.status.placement is not None or world.claimed:
        return Verdict("False", Reason.STOPPING, "The VM is being stopped.")
    if world.wanted is Wanted.FINISHED:
        return Verdict("True", Reason.FINISHED, "The VM ended by itself and stays so.")
    return Verdict("True", Reason.HALTED, "The VM is halted, as the spec wants it.")


def _waiting(world: World) -> Verdict:
    if world.waiting is None:
        return Verdict("Unknown", Reason.WAITING_FOR_OPERATOR, "Waits to be placed.")
    return Verdict("False", _WAITING[world.waiting.outcome], world.waiting.message)


def _running(world: World, name: str) -> Verdict:
    domain = domain_of_claim(world)
    if domain is None:
        return Verdict("Unknown", Reason.WAITING_FOR_AGENT, f"Waits for the agent of {name}.")
    if domain.state not in (DomainState.RUNNING, DomainState.PAUSED):
        return _down(world)
    if (domain.observed_generation or 0) < world.vm.generation:
        text = f"Waits for the agent of {name} to see generation {world.vm.generation}."
        return Verdict("Unknown", Reason.WAITING_FOR_AGENT, text)
    placement = world.vm.status.placement
    if placement is not None and placement.previous is not None:
        text = f"The running VM is moved from {placement.previous.summary} to {placement.summary}."
        return Verdict("False", Reason.CHANGING, text)
    return _as_wanted(world)


def _down(world: World) -> Verdict:
    running = condition_of(world, ConditionType.RUNNING)
    if running is None or running.status == "True":
        return Verdict("False", Reason.STARTING, "The domain is being started.")
    return Verdict("False", reason_named(running.reason) or Reason.NOT_RUNNING, running.message)


def _as_wanted(world: World) -> Verdict:
    """The domain runs under its claim: does it run as the spec says?"""
    running = condition_of(world, ConditionType.RUNNING)
    if running is not None and running.status == "False":
        return Verdict("False", reason_named(running.reason) or Reason.NOT_RUNNING, running.message)
    aligned = condition_of(world, ConditionType.NUMA_ALIGNED)
    if aligned is not None and aligned.status != "True" and aligned.reason not in _ALIGNED_ENOUGH:
        reason = reason_named(aligned.reason) or Reason.NOT_VERIFIED
        return Verdict(aligned.status, reason, aligned.message)
    for kind in (ConditionType.HOT_VCPU_CHANGE, ConditionType.HOT_MEMORY_CHANGE):
        change = condition_of(world, kind)
        if change is not None and change.status == "False":
            reason = reason_named(change.reason) or Reason.CHANGE_FAILED
            return Verdict("False", reason, change.message)
        if change is not None and change.reason in _UNDER_WAY:
            return Verdict("False", Reason.CHANGING, change.message)
    pending = condition_of(world, ConditionType.RESTART_REQUIRED)
    if pending is not None and pending.status == "True":
        return Verdict("False", Reason.PENDING_CHANGES, pending.message)
    return Verdict("True", Reason.RUNNING, "The VM runs as the spec wants it.")
