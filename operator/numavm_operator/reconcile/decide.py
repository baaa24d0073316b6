"""What to do next about one NumaVM: one step at a time, from what is, never from what happened.

Pure.

Read top-down: the rules stand in the order in which they win.
"""

from __future__ import annotations

from dataclasses import dataclass

from numavm_api.lifecycle import is_released, refusal_of
from numavm_api.numavm import FINALIZER
from numavm_api.placement import Placement
from numavm_api.vm_status import DomainRefusal
from numavm_operator.reconcile.amending import is_taken_back, wants_amending
from numavm_operator.reconcile.world import Claimed, World


@dataclass(frozen=True, slots=True)
class Nothing:
    """All is as it should be, or somebody else's turn."""


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Before the first claim: from now on the object stays until nothing is held."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Nothing is held any more: let the object go."""


@dataclass(frozen=True, slots=True)
class WriteBack:
    """A domain runs under a claim that the object does not know.

    The running domain is the truth.
    """

    node_name: str
    placement: Placement


@dataclass(frozen=True, slots=True)
class Release:
    """The claim is held no longer: clear it."""

    node_name: str
    placement: Placement
    refused: DomainRefusal | None
    """The agent's reason, where it did not want the claim."""


@dataclass(frozen=True, slots=True)
class Place:
    """The VM waits for a claim."""


@dataclass(frozen=True, slots=True)
class Amend:
    """The spec wants a running VM on other host cells of its host: a new claim beside the one it holds.

    Where a change under way was taken back, what it came from is what it now goes to.
    """


@dataclass(frozen=True, slots=True)
class Conclude:
    """The agent reports the amended claim as the domain's: the one before it is held no longer."""

    node_name: str
    placement: Placement


@dataclass(frozen=True, slots=True)
class Revert:
    """The agent will not move the running VM: the amended claim goes, the one before it stays."""

    node_name: str
    placement: Placement
    refused: DomainRefusal


@dataclass(frozen=True, slots=True)
class AwaitReport:
    """A host that cannot confirm it says the VM runs there.

    Neither placed nor let go until it can.
    """

    node_name: str


Step = (
    Nothing
    | AddFinalizer
    | RemoveFinalizer
    | WriteBack
    | Release
    | Place
    | Amend
    | Conclude
    | Revert
    | AwaitReport
)


def decide(world: World) -> Step:
    """Return the next step."""
    if world.vm.unreadable is not None:
        return Nothing()
    believed = _believe_the_host(world)
    if believed is not None:
        return believed
    placement = world.vm.status.placement
    return _held(world, placement) if placement is not None else _free(world)


def _believe_the_host(world: World) -> Step | None:
    """A domain runs under a claim that the object does not state."""
    vm, claimed = world.vm, _running_elsewhere(world)
    if claimed is None:
        return None
    claim = claimed.report
    if not claimed.confirmed:
        return AwaitReport(claim.node_name) if vm.status.placement is None else None
    if FINALIZER not in vm.finalizers and not vm.deleting:
        return AddFinalizer()
    return WriteBack(claim.node_name, claim.claim.placement)


def _free(world: World) -> Step:
    """No claim is held: is one wanted?"""
    vm = world.vm
    has_finalizer = FINALIZER in vm.finalizers
    if vm.deleting:
        return RemoveFinalizer() if has_finalizer else Nothing()
    if not world.wanted.runs or vm.accepted is None:
        return Nothing()
    return Place() if has_finalizer else AddFinalizer()


def _held(world: World, placement: Placement) -> Step:
    """A claim is held: is it still?"""
    domain, host = world.vm.status.domain, world.host
    if host is None:
        # A placement without a node name is nobody's: no agent can ever have seen it.
        return Release("", placement, None)
    refused = refusal_of(placement, host.name, domain)
    before = placement.earlier
    if before is not None and not host.fenced and not is_released(placement, host.name, domain):
        return _changing(world, placement, before, refused)
    if host.fenced or refused is not None or is_released(placement, host.name, domain):
        return Release(host.name, placement, refused)
    return Amend() if wants_amending(world) else Nothing()


def _changing(
    world: World, placement: Placement, before: Placement, refused: DomainRefusal | None
) -> Step:
    """A running VM holds an amended claim and the one before it."""
    vm, host = world.vm, world.host
    domain = vm.status.domain
    if host is None or domain is None:
        return Nothing()
    if refused is not None:
        return Revert(host.name, before, refused)
    if domain.node_name == host.name and domain.placement_id == placement.id:
        return Conclude(host.name, placement.alone)
    if domain.placement_id == before.id and is_taken_back(world):
        return Amend()
    return Nothing()


def _running_elsewhere(world: World) -> Claimed | None:
    """Return the report of a claim that is true against what the object states.

    The object wins where its own claim is reported too, or is of a newer epoch: then the other
    report is on its way out.
    """
    stated = world.vm.status.placement
    reports = [claimed for claimed in world.claimed if not claimed.fenced]
    if stated is not None and any(
        claimed.report.claim.placement.id in _ids_of(stated) for claimed in reports
    ):
        return None
    if stated is not None:
        reports = [
            claimed for claimed in reports if claimed.report.claim.placement.epoch >= stated.epoch
        ]
    return max(reports, key=_newest, default=None)


def _ids_of(stated: Placement) -> set[str]:
    """Return what a host may report where this is stated: the claim, or the one that it amends."""
    return {stated.id} if stated.previous is None else {stated.id, stated.previous.id}


def _newest(claimed: Claimed) -> tuple[bool, int]:
    return claimed.confirmed, claimed.report.claim.placement.epoch
