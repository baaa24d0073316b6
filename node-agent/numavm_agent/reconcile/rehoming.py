"""Running domains whose claim was amended: admits the new claim beside the old one, and has the move done in slices.

The loop's thread alone runs this. It decides what the move is towards: a claim that was taken back or replaced while
the move is under way becomes its new aim.
"""

from __future__ import annotations

from typing import Final

from numavm_agent.domain.model import CannotRender
from numavm_agent.domain.pins import Pins, settled_pins
from numavm_agent.ports import EventType, VmObject
from numavm_agent.reconcile import transitions
from numavm_agent.reconcile.admission import ClaimRequest, NotYet, Refused, admit_amended
from numavm_agent.reconcile.changes import applied_live
from numavm_agent.reconcile.host_state import HostNow
from numavm_agent.reconcile.inventory import ManagedDomain
from numavm_agent.reconcile.jobs import JobOutcome, Moved
from numavm_agent.reconcile.live_jobs import Applying
from numavm_agent.reconcile.memory import VmMemory
from numavm_agent.reconcile.rehome import AMEND, kind_of, new_aim
from numavm_agent.reconcile.rehome_jobs import Moving
from numavm_agent.reconcile.tools import Tools
from numavm_agent.reconcile.workers import JobKind
from numavm_api.conditions import ClaimRefusalReason as Why
from numavm_api.effective import EffectiveVM, effective
from numavm_api.errors import NumaVMError
from numavm_api.movable import why_unmovable
from numavm_api.numahost import HeldClaim
from numavm_api.placement import Placement
from numavm_api.resolved import resolved

FAILED_SECONDS: Final = 30.0
"""What libvirt or the kernel refused is tried again after so long."""
LOOK_SECONDS: Final = 10.0
"""A guest that was asked to give something back is looked at again after so long, should its answer get lost."""
STUCK_SECONDS: Final = 5.0
"""Pages that something holds are tried again after so long."""


class Rehomer:
    """Sees to domains that move between host cells."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def step(self, vm: VmObject, domain: ManagedDomain, memory: VmMemory, host: HostNow) -> HostNow:
        """Do what is next; return the host, with the amended claim where one was admitted."""
        claim = vm.status.placement
        record = domain.record
        if record.target is None and claim is not None and claim.id == record.placement.id:
            self._apply(vm, domain, memory, host)
            return host
        if record.target is None:
            return self._admit(vm, domain, memory, host) if claim is not None else host
        aim = new_aim(record.target, record.placement, claim)
        if aim is not None:
            note = f"The change was taken back or replaced: the VM is moved to {aim.summary}"
            self._tell(domain, EventType.NORMAL, "ReHomeTurned", note)
            return self._begin(vm, domain, memory, host, aim)
        moving = self._moving(vm, domain, host, record.target)
        if moving is not None:
            jobs = self._tools.rehome
            self._tools.workers.submit(record.uid, JobKind.CHANGE, lambda: jobs.go_on(moving))
        return host

    def why_fixed(self, domain: ManagedDomain) -> str | None:
        """Return why a domain's memory cannot be moved while it runs; None: it can."""
        if domain.has_host_devices or domain.record.placement.devices:
            return "a device of the host is assigned to it, and may write to any of its pages"
        unmovable = why_unmovable(domain.record.spec) if domain.record.spec is not None else None
        return unmovable or self._tools.rehome.memory.why_fixed()

    def absorb(self, memory: VmMemory, moved: Moved) -> None:
        """Take in what a slice of a move has come to."""
        memory.percent, memory.change_error = moved.percent, moved.stuck
        memory.refusal = moved.refusal or memory.refusal
        if moved.settled is not None:
            memory.settled = moved.settled
        if moved.stuck is not None:
            self._tools.log.warning("pages_do_not_move", why=moved.stuck)
            memory.quiet_until = self._tools.clock.boottime() + STUCK_SECONDS

    def _apply(self, vm: VmObject, domain: ManagedDomain, memory: VmMemory, host: HostNow) -> None:
        """Have done what its claim allows already; new pins follow from the spec that the domain then remembers."""
        record = domain.record
        if record.spec is None:
            return
        removable = domain.removable_vcpus
        spec = applied_live(record.spec, vm.spec, record.placement, removable=removable)
        change = Applying(
            record=record,
            aim=spec,
            generation=vm.generation,
            pins=self._pins(
                domain, record.placement, host, resolved(effective(spec), record.placement)
            ),
            removable=removable,
            refused=memory.refusals,
        )
        memory.refusals, memory.device_news = frozenset(), False
        memory.look_at = self._tools.clock.boottime() + LOOK_SECONDS
        jobs = self._tools.live
        self._tools.workers.submit(record.uid, JobKind.CHANGE, lambda: jobs.apply(change))

    def absorb_end(self, memory: VmMemory, outcome: JobOutcome | NumaVMError) -> None:
        """Take in that a slice ended, well or not; where it failed, nobody is asked again at once."""
        memory.changing = None
        if isinstance(outcome, NumaVMError):
            memory.change_error = str(outcome)
            memory.quiet_until = self._tools.clock.boottime() + FAILED_SECONDS

    def _admit(
        self, vm: VmObject, domain: ManagedDomain, memory: VmMemory, host: HostNow
    ) -> HostNow:
        claim = vm.status.placement
        if claim is None:
            return host
        request = ClaimRequest(
            spec=vm.spec,
            placement=claim.alone,
            admitted_before=False,
            running=domain.record.placement,
            why_fixed=self.why_fixed(domain),
        )
        match admit_amended(request, host.seen_by(vm.uid)):
            case Refused() as refusal:
                self._refuse(domain, memory, claim, refusal)
            case NotYet(message):
                memory.waits_for = message
            case None:
                try:
                    wish = resolved(effective(vm.spec), claim)
                    self._pins(domain, claim, host, wish)
                except CannotRender as error:
                    self._refuse(domain, memory, claim, Refused(Why.CPU_TAKEN, str(error)))
                    return host
                self._tell_begun(domain, claim)
                return self._begin(vm, domain, memory, host, claim.alone)
        return host

    def _refuse(
        self, domain: ManagedDomain, memory: VmMemory, claim: Placement, refusal: Refused
    ) -> None:
        if memory.status is None:
            return
        now = self._tools.clock.now()
        memory.status = transitions.refused_change(memory.status, claim, refusal, now=now)
        note = f"{refusal.reason}: {refusal.message}"
        self._tell(domain, EventType.WARNING, "ClaimRefused", note)

    def _begin(
        self,
        vm: VmObject,
        domain: ManagedDomain,
        memory: VmMemory,
        host: HostNow,
        target: Placement,
    ) -> HostNow:
        """Have the move recorded and its first slice done; the claims of both ends are held from here on."""
        jobs, record = self._tools.rehome, domain.record
        held = _held(domain, target)
        moving = self._moving(vm, domain, host, target.alone)
        memory.changing, memory.percent = held.placement, 0
        self._tools.workers.submit(
            record.uid, JobKind.CHANGE, lambda: jobs.begin(record, target.alone, moving)
        )
        return host.with_change(held)

    def _moving(
        self, vm: VmObject, domain: ManagedDomain, host: HostNow, target: Placement
    ) -> Moving | None:
        """Return what a slice of the move to `target` needs; None: nothing can be done to the domain now."""
        record = domain.record
        if record.spec is None or not domain.is_whole:
            return None
        spec = applied_live(record.spec, vm.spec, target, removable=None)
        effective_vm = resolved(effective(spec), target)
        return Moving(
            record=record,
            name=domain.seen.name,
            run_id=domain.seen.run_id,
            pins=self._pins(domain, target, host, effective_vm),
            spec=spec,
            vm=effective_vm,
        )

    def _pins(
        self, domain: ManagedDomain, claim: Placement, host: HostNow, vm: EffectiveVM
    ) -> Pins:
        """Return the affinities of when the move is done, and the former claim held no more."""
        record = domain.record
        held = HeldClaim(
            uid=record.uid, namespace=record.namespace, name=record.name, placement=claim.alone
        )
        then = host.with_change(held)
        return settled_pins(claim.alone, then.pools, then.cpus, then.held_cpus, vm)

    def _tell_begun(self, domain: ManagedDomain, claim: Placement) -> None:
        before = domain.record.placement
        kind = kind_of(before, claim)
        note = f"The VM is moved on its host from {before.summary} to {claim.summary}"
        if kind == AMEND:
            note = f"The VM takes up its amended claim on the same host cells, {claim.summary}"
        self._tell(domain, EventType.NORMAL, f"{kind}Begun", note)

    def _tell(self, domain: ManagedDomain, kind: EventType, reason: str, note: str) -> None:
        record = domain.record
        about = (record.namespace, record.name, record.uid)
        self._tools.tell(about, kind, reason, "ReHome", note)


def _held(domain: ManagedDomain, target: Placement) -> HeldClaim:
    """Return what a domain holds once it is on its way to `target`."""
    record = domain.record
    beside = record.placement
    if record.target is not None and record.target.id != target.id:
        beside = record.target
    return HeldClaim(
        uid=record.uid,
        namespace=record.namespace,
        name=record.name,
        placement=target.alone.replacing(beside),
    )
