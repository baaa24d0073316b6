"""What the operator says about one NumaVM.

Its conditions, the summary Ready, and the one word for people. Pure.

Everything is worked out anew from the world each time; nothing here remembers. Only
`lastTransitionTime` is taken over from the conditions as they stand, where the status did not
change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from numavm_api.conditions import (
    OPERATOR_CONDITIONS,
    Condition,
    ConditionStatus,
    ConditionType,
    PrintableStatus,
    Reason,
)
from numavm_api.lifecycle import Wanted
from numavm_operator.reconcile.amending import capacity_reserved
from numavm_operator.reconcile.printable import printable_status
from numavm_operator.reconcile.ready import ready
from numavm_operator.reconcile.verdict import Verdict, reason_named
from numavm_operator.reconcile.world import Outcome, Reach, World

_LONGEST_MESSAGE: Final = 1024
_OUTCOMES: Final = {
    Outcome.UNSCHEDULABLE: Reason.UNSCHEDULABLE,
    Outcome.UNDECIDED: Reason.UNDECIDED,
    Outcome.WAITING_FOR_HOSTS: Reason.WAITING_FOR_HOSTS,
    Outcome.QUOTA_EXCEEDED: Reason.QUOTA_EXCEEDED,
}
_ON_THE_WAY: Final = frozenset(
    {
        PrintableStatus.PROVISIONING,
        PrintableStatus.STARTING,
        PrintableStatus.STOPPING,
        PrintableStatus.TERMINATING,
    }
)


@dataclass(frozen=True, slots=True)
class Report:
    """The operator's part of `status`."""

    observed_generation: int
    printable_status: PrintableStatus
    conditions: tuple[Condition, ...]
    reserved_node_name: str | None = None

    @property
    def on_the_way(self) -> bool:
        """Tell whether this will soon be out of date, so that writing it can wait a moment."""
        return self.printable_status in _ON_THE_WAY


def report(world: World, *, now: str) -> Report:
    """Return the operator's part of the status; `now` is the timestamp of what changes."""
    reserved = capacity_reserved(world)
    verdicts = {
        ConditionType.ACCEPTED: accepted(world),
        ConditionType.SCHEDULED: scheduled(world),
        ConditionType.CAPACITY_RESERVED: reserved,
        ConditionType.HOST_REACHABLE: host_reachable(world),
        ConditionType.READY: _ready(world, reserved),
    }
    return Report(
        observed_generation=world.vm.generation,
        printable_status=printable_status(world),
        conditions=tuple(
            _condition(world, kind, verdict, now) for kind, verdict in verdicts.items()
        ),
        reserved_node_name=_reserved(world),
    )


def stated(world: World) -> Report:
    """Return the operator's part of the status as it stands on the API server."""
    status = world.vm.status
    mine = sorted(
        (one for one in status.conditions if one.type in OPERATOR_CONDITIONS), key=_in_order
    )
    return Report(
        observed_generation=status.observed_generation or 0,
        printable_status=status.printable_status,
        conditions=tuple(mine),
        reserved_node_name=status.reserved_node_name,
    )


def _ready(world: World, reserved: Verdict) -> Verdict:
    """Return the summary: a VM that runs, but not where the spec wants it, is not as the spec wants it."""
    verdict = ready(world)
    return reserved if verdict.status == "True" and reserved.status == "False" else verdict


def accepted(world: World) -> Verdict:
    """Say whether the spec makes sense, with everything that is wrong with it."""
    if world.vm.violations:
        return Verdict("False", Reason.INVALID_SPEC, " ".join(world.vm.violations))
    return Verdict("True", Reason.VALID, "The spec makes sense.")


def scheduled(world: World) -> Verdict:
    """Say whether a claim is held, and if not, why."""
    status = world.vm.status
    if status.placement is not None:
        summary = f"Guest cell -> host cells {status.placement.summary} on {status.node_name}."
        return Verdict("True", Reason.PLACED, summary + vain_threads(world))
    if world.claimed:
        name = world.claimed[0].report.node_name
        text = (
            f"{name} last reported that the VM runs there; waiting for its agent to confirm that."
        )
        return Verdict("False", Reason.WAITING_FOR_HOSTS, text)
    if not world.wanted.runs:
        return Verdict("False", Reason.NOT_WANTED, _NOT_WANTED[world.wanted])
    if world.vm.violations:
        return Verdict("False", Reason.INVALID_SPEC, "Not placed: the spec is not accepted.")
    if world.waiting is None:
        return Verdict("Unknown", Reason.WAITING_FOR_OPERATOR, "Waits to be placed.")
    return Verdict("False", _OUTCOMES[world.waiting.outcome], _with_refusals(world))


def vain_threads(world: World) -> str:
    """Return a warning on guest threads where no core of the host has two; empty: there is nothing to say.

    Only the placement knows the host, so the API server cannot say it with its other warnings.
    """
    spec, host = world.vm.accepted, world.host
    if spec is None or host is None or host.threads_per_core != 1:
        return ""
    cpu = spec.domain.cpu
    if cpu.threads == 1 or not cpu.dedicated_cpu_placement:
        return ""
    return (
        f" spec.domain.cpu.threads {cpu.threads} is vain there: no core of {host.name} has more than one thread, so "
        "that what the guest takes for siblings are cores; set threads to 1, or threadPolicy to Require to keep off "
        "such hosts."
    )


def _reserved(world: World) -> str | None:
    """Return the host that is kept for the VM; none once it holds a claim, or wants none."""
    waits = world.waiting is not None and world.vm.status.placement is None and world.wanted.runs
    return world.waiting.kept_node if world.waiting is not None and waits else None


def host_reachable(world: World) -> Verdict:
    """Say whether the agent of the claim's host is alive; unknown to a new leader: as it was."""
    if world.host is None:
        return Verdict("Unknown", Reason.NOT_PLACED, "No host holds the VM.")
    name = world.host.name
    match world.host.reach:
        case Reach.REACHABLE:
            return Verdict("True", Reason.LEASE_FRESH, f"The agent of {name} renews its Lease.")
        case Reach.UNREACHABLE:
            text = f"The agent of {name} does not renew its Lease."
            return Verdict("False", Reason.LEASE_EXPIRED, text)
        case Reach.UNDETERMINED:
            return _as_it_was(world, ConditionType.HOST_REACHABLE)


_NOT_WANTED: Final = {
    Wanted.HALTED: "runStrategy is Halted.",
    Wanted.FINISHED: "The VM ended by itself and its runStrategy does not start it again.",
    Wanted.DELETED: "The VM is being deleted.",
}


def _with_refusals(world: World) -> str:
    refusals = [
        f"{one.node_name} refused ({one.reason}): {one.message}" for one in world.vm.status.refusals
    ]
    waiting = world.waiting.message if world.waiting is not None else ""
    return " ".join([waiting, *refusals]).strip()


def _as_it_was(world: World, kind: ConditionType) -> Verdict:
    for one in world.vm.status.conditions:
        reason = reason_named(one.reason)
        if one.type == kind and reason is not None:
            return Verdict(one.status, reason, one.message)
    return Verdict(
        "Unknown", Reason.WAITING_FOR_HOSTS, "Waiting for the host's Lease to be renewed."
    )


def _condition(world: World, kind: ConditionType, verdict: Verdict, now: str) -> Condition:
    before: Condition | None = next(
        (one for one in world.vm.status.conditions if one.type == kind), None
    )
    unchanged = before is not None and before.status == verdict.status
    status: ConditionStatus = verdict.status
    message = verdict.message
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[: _LONGEST_MESSAGE - 1]}…"
    return Condition(
        type=kind,
        status=status,
        reason=verdict.reason,
        message=message,
        last_transition_time=before.last_transition_time if before and unchanged else now,
        observed_generation=world.vm.generation,
    )


_ORDER: Final = {
    kind: index
    for index, kind in enumerate(
        (
            ConditionType.ACCEPTED,
            ConditionType.SCHEDULED,
            ConditionType.CAPACITY_RESERVED,
            ConditionType.HOST_REACHABLE,
            ConditionType.READY,
        )
    )
}


def _in_order(condition: Condition) -> int:
    return _ORDER[ConditionType(condition.type)]
