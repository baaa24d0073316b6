"""What to do next with one VM: a table over what is wanted, what libvirt has, and how its claim stands.

Pure. Nothing here knows how an action is done or how long it takes: an action that is under way hides its VM from this
table until it is done. Every row is tested.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from numavm_agent.domain.metadata import DomainRecord
from numavm_agent.ports import DomainSeen, LibvirtState
from numavm_agent.reconcile.changes import applied_live
from numavm_agent.reconcile.live_plan import is_hot, read_unplugging
from numavm_agent.reconcile.operations import is_stop
from numavm_api.cpuset import CpuSet
from numavm_api.lifecycle import Wanted
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.vm_status import DomainRefusal


class DomainPhase(StrEnum):
    """How far a VM's domain is."""

    ABSENT = "Absent"
    STARTING = "Starting"
    """libvirt is still making it."""
    UNSETTLED = "Unsettled"
    """It runs, but this agent has not seen to it yet: threads may still be wide, nothing is verified."""
    SETTLED = "Settled"
    """It runs, or is paused, and nothing is under way."""
    STOPPING = "Stopping"
    """NumaVM is stopping it."""
    ENDING = "Ending"
    """It goes down by itself."""
    CRASHED = "Crashed"
    """It ended, and libvirt keeps what is left."""


class ClaimPhase(StrEnum):
    """How the claim on this host stands, as long as no domain runs under it."""

    NONE = "None"
    """There is none."""
    OPEN = "Open"
    """To be admitted, now or again."""
    GIVEN_BACK = "GivenBack"
    """This host has said that it will not run this very claim, or holds nothing of it any more: the operator's turn."""


class Restart(StrEnum):
    """Whether the restart token asks for a restart of what runs."""

    NONE = "None"
    ASKED = "Asked"


class Change(StrEnum):
    """Whether a running domain is to hold another claim on this host."""

    NONE = "None"
    ASKED = "Asked"
    """The claim was amended; nothing has begun."""
    SPEC = "Spec"
    """The claim stays, and allows what the spec asks for by now: the domain's metadata are to say so."""
    UNDER_WAY = "UnderWay"
    """The domain's metadata say that it has begun."""


class News(StrEnum):
    """What was heard of a running domain's devices since they were looked at."""

    NONE = "None"
    HEARD = "Heard"
    """The guest may have answered."""
    LOSS = "Loss"
    """A module that it should have is gone."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the spec asks of a running domain."""

    spec: NumaVMSpec
    generation: int = 0
    removable: CpuSet = field(default_factory=CpuSet)
    """vCPUs that QEMU can take out."""
    news: News = News.NONE


class Retry(StrEnum):
    """Whether the next start may be tried."""

    NOW = "Now"
    LATER = "Later"


class Action(StrEnum):
    """What to do."""

    NOTHING = "Nothing"
    WAIT = "Wait"
    """Look again in the next loop: something ends or begins by itself, or a delay has not passed."""
    ADMIT = "Admit"
    """Judge the claim, and start the domain where it is admitted."""
    SETTLE = "Settle"
    """Finish a start, this agent's or that of one killed before it: narrow the threads, verify."""
    KEEP = "Keep"
    """It is as it should be: check that it stays so."""
    CHANGE = "Change"
    """Begin a change of the running domain, or go on with it: this agent's or that of one killed before it."""
    BEGIN_STOP = "BeginStop"
    CONTINUE_STOP = "ContinueStop"
    """Ask the guest again, or cut its power once its time is over."""
    CLEAR = "Clear"
    """Remove what a crash left."""
    RELEASE = "Release"
    """Say that this host holds nothing of the claim any more."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the table is over."""

    wanted: Wanted
    domain: DomainPhase
    claim: ClaimPhase
    restart: Restart
    retry: Retry
    change: Change = Change.NONE


def decide(facts: Facts) -> Action:
    """Return what to do next with a VM of this node."""
    match facts.domain:
        case DomainPhase.STARTING | DomainPhase.ENDING:
            return Action.WAIT
        case DomainPhase.CRASHED:
            return Action.CLEAR
        case DomainPhase.STOPPING:
            return Action.CONTINUE_STOP
        case DomainPhase.UNSETTLED:
            changes = facts.change is Change.UNDER_WAY
            return _running(facts, otherwise=Action.CHANGE if changes else Action.SETTLE)
        case DomainPhase.SETTLED:
            changes = facts.change is not Change.NONE
            return _running(facts, otherwise=Action.CHANGE if changes else Action.KEEP)
        case DomainPhase.ABSENT:
            return _absent(facts)
        case _:
            assert_never(facts.domain)


def _running(facts: Facts, *, otherwise: Action) -> Action:
    stays = facts.wanted.runs and facts.restart is Restart.NONE
    return otherwise if stays else Action.BEGIN_STOP


def _absent(facts: Facts) -> Action:
    match facts.claim:
        case ClaimPhase.NONE:
            return Action.NOTHING
        case _ if not facts.wanted.runs:
            return Action.RELEASE
        case ClaimPhase.GIVEN_BACK:
            return Action.NOTHING
        case ClaimPhase.OPEN:
            return Action.ADMIT if facts.retry is Retry.NOW else Action.WAIT
        case _:
            assert_never(facts.claim)


def change_phase(
    record: DomainRecord | None,
    claim: Placement | None,
    refused: DomainRefusal | None,
    wanted: Wish,
) -> Change:
    """Return whether a domain is to hold another claim, or to be changed under the one it has.

    Args:
        record: What its metadata say.
        claim: The claim as the operator has it.
        refused: The claim that this host will not run, if any.
        wanted: What the spec asks for now.
    """
    if record is None:
        return Change.NONE
    if record.target is not None:
        return Change.UNDER_WAY
    if claim is not None and claim.alone == record.placement and record.spec is not None:
        return _change_under(record, record.spec, wanted)
    if claim is None or claim.previous is None or claim.previous.id != record.placement.id:
        return Change.NONE
    is_refused = refused is not None and refused.placement_id == claim.id
    return Change.NONE if is_refused or claim.id == record.placement.id else Change.ASKED


def _change_under(record: DomainRecord, spec: NumaVMSpec, wanted: Wish) -> Change:
    """A guest that was asked to give something back is left alone until there is news, or another spec."""
    aim = applied_live(spec, wanted.spec, record.placement, removable=wanted.removable)
    waits = read_unplugging(record.operation)
    if aim == spec and not is_hot(record.operation):
        return Change.SPEC if wanted.news is News.LOSS else Change.NONE
    if waits is None or wanted.news is not News.NONE or waits.generation < wanted.generation:
        return Change.SPEC
    without = applied_live(spec, wanted.spec, record.placement, removable=None)
    return Change.NONE if without == spec and aim != spec else Change.SPEC


def domain_phase(  # noqa: PLR0911 - a table
    seen: DomainSeen | None, record: DomainRecord | None, *, settled_run: int | None
) -> DomainPhase:
    """Return how far a domain is.

    Args:
        seen: What libvirt lists; None: no such domain.
        record: What its metadata say.
        settled_run: The run of this domain that this agent has settled, if any.
    """
    if seen is None:
        return DomainPhase.ABSENT
    match seen.state:
        case LibvirtState.STARTING:
            return DomainPhase.STARTING
        case LibvirtState.SHUTOFF:
            return DomainPhase.ENDING
        case LibvirtState.CRASHED:
            return DomainPhase.CRASHED
        case _ if record is not None and is_stop(record.operation):
            return DomainPhase.STOPPING
        case LibvirtState.SHUTDOWN:
            return DomainPhase.ENDING
        case LibvirtState.RUNNING | LibvirtState.PAUSED:
            is_settled = settled_run == seen.run_id
            return DomainPhase.SETTLED if is_settled else DomainPhase.UNSETTLED
        case _:
            assert_never(seen.state)


class Owner(StrEnum):
    """What a GET says of the VM that a domain belongs to, where this node's list does not have it."""

    MISSING = "Missing"
    """No such object, or another one of the same name."""
    UNKNOWN = "Unknown"
    """The server did not say, or what it said cannot be read."""
    HERE = "Here"
    """It is this node's after all: the list was older."""
    UNPLACED = "Unplaced"
    """It is wanted, and on no node."""
    ELSEWHERE = "Elsewhere"
    """It is wanted, on another node."""
    UNWANTED = "Unwanted"
    """It is deleted, halted or finished."""


class Fencing(StrEnum):
    """Whether the administrator declared this host dead."""

    NONE = "None"
    FENCED = "Fenced"


class Keeping(StrEnum):
    """What to do with a domain whose VM is not in this node's list."""

    KEEP = "Keep"
    KEEP_AS_ORPHAN = "KeepAsOrphan"
    STOP = "Stop"


def decide_unlisted(owner: Owner, fencing: Fencing) -> Keeping:
    """Return what to do with a domain that no VM of this node claims.

    Never a stop because something is missing: a restored API server, or a list cut short, looks the same. A fenced
    host's claims were let go on the administrator's word, and the VM may run elsewhere: there, a readable object
    decides.
    """
    match owner:
        case Owner.MISSING:
            return Keeping.KEEP_AS_ORPHAN
        case Owner.UNKNOWN | Owner.HERE:
            return Keeping.KEEP
        case Owner.UNWANTED:
            return Keeping.STOP
        case Owner.UNPLACED | Owner.ELSEWHERE:
            return Keeping.STOP if fencing is Fencing.FENCED else Keeping.KEEP
        case _:
            assert_never(owner)
