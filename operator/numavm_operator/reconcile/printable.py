"""`printableStatus`: the one word of `kubectl get nvm`, in KubeVirt's words and precedence.

Pure, and for people only.
"""

from __future__ import annotations

from typing import Final

from numavm_api.conditions import PrintableStatus
from numavm_api.lifecycle import Wanted
from numavm_api.vm_status import DomainState
from numavm_operator.reconcile.ready import domain_of_claim
from numavm_operator.reconcile.world import Outcome, Reach, World

_UNSCHEDULABLE: Final = frozenset({Outcome.UNSCHEDULABLE, Outcome.QUOTA_EXCEEDED})
CRASH_LOOP_FROM: Final = 3
"""Failures in a row from which a VM is said to be in a crash loop."""


def printable_status(world: World) -> PrintableStatus:
    """Return the word."""
    if world.wanted is Wanted.DELETED:
        return PrintableStatus.TERMINATING
    held = world.vm.status.placement is not None
    if not held:
        return _without_claim(world)
    if world.host is not None and world.host.reach is Reach.UNREACHABLE:
        return PrintableStatus.UNKNOWN
    return _with_claim(world) if world.wanted.runs else PrintableStatus.STOPPING


def _without_claim(world: World) -> PrintableStatus:
    if world.claimed:
        return PrintableStatus.UNKNOWN
    if world.vm.violations:
        return PrintableStatus.ERROR_INVALID
    if not world.wanted.runs:
        return PrintableStatus.STOPPED
    if world.waiting is not None and world.waiting.outcome in _UNSCHEDULABLE:
        return PrintableStatus.ERROR_UNSCHEDULABLE
    return PrintableStatus.PROVISIONING


def _with_claim(world: World) -> PrintableStatus:
    domain = domain_of_claim(world)
    if domain is None:
        return PrintableStatus.STARTING
    match domain.state:
        case DomainState.RUNNING:
            return PrintableStatus.RUNNING
        case DomainState.PAUSED:
            return PrintableStatus.PAUSED
        case DomainState.SHUTDOWN:
            return PrintableStatus.STOPPING
        case DomainState.SHUTOFF | DomainState.CRASHED:
            looping = (domain.failures or 0) >= CRASH_LOOP_FROM
            return PrintableStatus.CRASH_LOOP_BACK_OFF if looping else PrintableStatus.STARTING
