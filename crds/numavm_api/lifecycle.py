"""Whether a VM is wanted to run, and what its host still holds: the questions that operator and agent must answer alike.

Owns `wants_to_run` and the reading of the agent's reports `released` and `refused`. Pure: a function of spec and status only,
so that both sides come to the same answer from the same object.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from numavm_api.numavm import NumaVMSpec, RunStrategy
from numavm_api.placement import Placement
from numavm_api.vm_status import DomainRefusal, DomainState, DomainStatus, ShutoffReason


class Wanted(StrEnum):
    """What should become of the domain."""

    RUNNING = "Running"
    """It should run: placed, started, and started again when it ends."""
    HALTED = "Halted"
    """The spec says Halted: stopped, and nothing is held."""
    FINISHED = "Finished"
    """It ended by itself and its run strategy does not start it again: nothing is held."""
    DELETED = "Deleted"
    """The object is being deleted: stopped, nothing is held, then let go."""

    @property
    def runs(self) -> bool:
        """Tell whether a claim is to be held and a domain is to run under it."""
        return self is Wanted.RUNNING


def wants_to_run(
    spec: NumaVMSpec, domain: DomainStatus | None, *, deleting: bool = False
) -> Wanted:
    """Return what should become of a VM's domain.

    A finished VM stays finished until its restart token or its run strategy says otherwise. A stop that the spec asked for
    and a start that failed are no end of their own: the guest did not decide, or never ran.
    """
    if deleting:
        return Wanted.DELETED
    ended = how_it_ended(domain)
    restarted = domain is not None and domain.restart_token != spec.restart_token
    match spec.run_strategy:
        case RunStrategy.HALTED:
            return Wanted.HALTED
        case RunStrategy.ALWAYS:
            return Wanted.RUNNING
        case RunStrategy.RERUN_ON_FAILURE:
            finished = ended is ShutoffReason.GUEST_SHUTDOWN
        case RunStrategy.ONCE:
            finished = ended is not None
        case _:
            assert_never(spec.run_strategy)
    return Wanted.FINISHED if finished and not restarted else Wanted.RUNNING


def how_it_ended(domain: DomainStatus | None) -> ShutoffReason | None:
    """Return why a domain ended by itself; None while it is there, never ran, or was stopped because the spec asked for it."""
    if domain is None:
        return None
    match domain.state:
        case DomainState.RUNNING | DomainState.PAUSED | DomainState.SHUTDOWN:
            return None
        case DomainState.CRASHED:
            return domain.shutoff_reason or ShutoffReason.CRASHED
        case DomainState.SHUTOFF:
            asked_for = (ShutoffReason.STOPPED, ShutoffReason.START_FAILED)
            return None if domain.shutoff_reason in asked_for else domain.shutoff_reason
        case _:
            assert_never(domain.state)


def is_released(placement: Placement, node_name: str, domain: DomainStatus | None) -> bool:
    """Tell whether the claim's own host says that it holds nothing of it any more."""
    return domain is not None and domain.node_name == node_name and domain.released == placement.id


def refusal_of(
    placement: Placement, node_name: str, domain: DomainStatus | None
) -> DomainRefusal | None:
    """Return the word of the claim's own host that it will not run exactly this claim."""
    if domain is None or domain.node_name != node_name or domain.refused is None:
        return None
    return domain.refused if domain.refused.placement_id == placement.id else None
