"""One VM after the other: observe, decide, act. The loop's thread alone runs this; what takes time is the workers'."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, assert_never

from numavm_agent.domain.machine import machine_type
from numavm_agent.domain.model import CannotRender, HostFacts, VmToRender
from numavm_agent.domain.modules import name_of
from numavm_agent.domain.paths import host_paths, permitted_path
from numavm_agent.domain.pins import settled_pins
from numavm_agent.domain.render import render
from numavm_agent.errors import (
    DomainMissing,
    HypervisorUnavailable,
    OperationBusy,
    Shortage,
    StartFault,
)
from numavm_agent.ports import BalloonSeen, DeviceNews, DomainEnd, EventType, VmObject
from numavm_agent.reconcile import transitions
from numavm_agent.reconcile.admission import Admitted, ClaimRequest, NotYet, Refused, admit
from numavm_agent.reconcile.backoff import CRASH_LOOP_FROM
from numavm_agent.reconcile.decide import (
    Action,
    ClaimPhase,
    Facts,
    News,
    Restart,
    Retry,
    Wish,
    change_phase,
    decide,
    domain_phase,
)
from numavm_agent.reconcile.ends import end_reason
from numavm_agent.reconcile.host_state import HostNow
from numavm_agent.reconcile.hot_report import HotNow
from numavm_agent.reconcile.inventory import InventoryReader, ManagedDomain
from numavm_agent.reconcile.jobs import JobOutcome, Moved, Settled, Settling
from numavm_agent.reconcile.keeping import Keeper
from numavm_agent.reconcile.memory import VmMemory
from numavm_agent.reconcile.module_reader import ModuleReader
from numavm_agent.reconcile.operations import StopCause, is_stop
from numavm_agent.reconcile.powers import power_problems
from numavm_agent.reconcile.rehome import AMEND, status_of
from numavm_agent.reconcile.rehoming import Rehomer
from numavm_agent.reconcile.tools import Tools
from numavm_agent.reconcile.vm_report import Running, VmView, is_there
from numavm_agent.reconcile.workers import Done, JobKind, UnexpectedError
from numavm_agent.topology.readings import cell_distances, cell_figures
from numavm_api.conditions import ClaimRefusalReason as Why
from numavm_api.errors import HostFaultError, NumaVMError
from numavm_api.killpoints import KillPoint
from numavm_api.lifecycle import wants_to_run
from numavm_api.numahost import HeldClaim
from numavm_api.numavm import DriftPolicy
from numavm_api.placement import Placement
from numavm_api.quantity import MEBIBYTE
from numavm_api.resolved import resolved
from numavm_api.vm_status import DomainRefusal, DomainState, DomainStatus, ShutoffReason

QUIET_SECONDS: Final = 5.0
"""After a job that went wrong, nothing is tried again for so long."""
_SHORTAGES: Final = {
    Shortage.MEMORY: Why.MEMORY_TAKEN,
    Shortage.HUGE_PAGES: Why.HUGE_PAGES_TAKEN,
    Shortage.NETWORK: Why.DEVICE_MISSING,
    Shortage.UNSUPPORTED: Why.UNSUPPORTED,
}
"""A start that fails for these fails again here: another host is to try."""


class VmReconciler:
    """Decides and acts for the VMs that are placed on this node."""

    def __init__(self, tools: Tools, inventory: InventoryReader, keeper: Keeper) -> None:
        self._tools = tools
        self._inventory = inventory
        self._keeper = keeper
        self._modules = ModuleReader(tools.hypervisor, tools.clock)
        self._rehomer = Rehomer(tools)
        self.memory: dict[str, VmMemory] = {}
        self._names: dict[str, tuple[str, str]] = {}

    def memory_of(self, vm: VmObject) -> VmMemory:
        """Return what is remembered of a VM; at first sight, what the server says."""
        self._names[vm.uid] = (vm.namespace, vm.name)
        if vm.uid not in self.memory:
            self.memory[vm.uid] = VmMemory(status=vm.status.domain)
        return self.memory[vm.uid]

    def forget(self, uid: str) -> None:
        """Let go of a VM that is no longer here."""
        self.memory.pop(uid, None)
        self._names.pop(uid, None)
        self._modules.forget(uid)

    def note_ends(self, ends: tuple[DomainEnd, ...]) -> None:
        """Remember libvirt's word on why domains ended, until the loop comes upon it."""
        for end in ends:
            if end.uuid in self.memory:
                self.memory[end.uuid].ended = end.reason

    def note_device_news(self, news: tuple[DeviceNews, ...]) -> None:
        """Have domains looked at whose devices changed, and remember what guests will not give back."""
        for one in news:
            self._modules.look_again(one.uuid)
            memory = self.memory.get(one.uuid)
            if memory is None:
                continue
            memory.device_news = True
            name = name_of(one.alias)
            if one.refused and name is not None:
                memory.refusals |= {name}

    def absorb(self, done: Done[JobOutcome]) -> None:
        """Take in what a job has come to."""
        memory = self.memory.setdefault(done.uid, VmMemory())
        match done.outcome:
            case Moved() as moved:
                self._absorb_move(done.uid, memory, moved)
            case Settled() as settled:
                memory.settled = self._keeper.newer(memory.settled, settled)
            case NumaVMError() as error:
                self._tools.log.warning("job_failed", uid=done.uid, job=done.kind, error=str(error))
                memory.quiet_until = self._tools.clock.boottime() + QUIET_SECONDS
        match done.kind:
            case JobKind.START:
                self._absorb_start(done.uid, memory, done.outcome)
            case JobKind.STOP:
                self._inventory.forget(done.uid)  # whether it failed before or after it wrote
            case JobKind.CHANGE:
                self._rehomer.absorb_end(memory, done.outcome)
                self._modules.look_again(done.uid)
                self._inventory.forget(done.uid)
            case JobKind.SETTLE:
                pass

    def _absorb_move(self, uid: str, memory: VmMemory, moved: Moved) -> None:
        self._rehomer.absorb(memory, moved)
        if moved.settled is not None:
            cells = moved.settled.verdict.numa.cells
            where = ",".join(f"{cell.id}->{cell.host_cells}" for cell in cells)
            reason, what = "ReHomed", "The VM was moved while it ran"
            if moved.kind == AMEND:
                reason, what = "Amended", "The VM has all of its amended claim"
            note = f"{what}: guest cell -> host cells {where}{_rate(moved)}"
            self._tell(uid, EventType.NORMAL, reason, moved.kind, note)

    def step(  # noqa: C901 - a flat list of actions, one line each
        self, vm: VmObject, domain: ManagedDomain | None, host: HostNow
    ) -> HostNow:
        """Do what is next for one VM; return the host, with one more claim where one was admitted."""
        memory = self.memory_of(vm)
        if self._tools.workers.doing(vm.uid) is not None:
            return host
        self._observe(vm, memory, domain)
        memory.waits_for = None
        if memory.quiet_until is not None:
            if self._tools.clock.boottime() < memory.quiet_until:
                return host
            memory.quiet_until = None
        match decide(self._facts(vm, memory, domain)):
            case Action.ADMIT:
                return self._admit(vm, memory, host)
            case Action.RELEASE:
                self._release(vm, memory)
            case Action.SETTLE if domain is not None:
                self._keeper.settle(domain, host)
            case Action.KEEP if domain is not None:
                self._keeper.keep(domain, memory, host, vm.spec.drift_policy)
            case Action.CHANGE if domain is not None:
                return self._rehomer.step(vm, domain, memory, host)
            case Action.BEGIN_STOP if domain is not None:
                wanted = wants_to_run(vm.spec, memory.status, deleting=vm.deleting)
                cause = StopCause.RESTART if wanted.runs else StopCause.NOT_WANTED
                self._keeper.begin_stop(domain, cause)
            case Action.CONTINUE_STOP if domain is not None:
                grace = vm.spec.termination_grace_period_seconds
                self._keeper.continue_stop(domain, memory, grace)
            case Action.CLEAR if domain is not None:
                self._keeper.clear(domain)
            case _:
                pass
        return host

    def view(self, vm: VmObject, domain: ManagedDomain | None) -> VmView:
        """Return what is to be reported of a VM."""
        memory = self.memory_of(vm)
        status = memory.status
        if status is None or status.node_name != self._tools.node:
            status = transitions.waiting(status, self._tools.node)
        running = None
        if domain is not None and is_there(status):
            settled = memory.settled
            is_current = settled is not None and settled.run_id == domain.seen.run_id
            verdict = settled.verdict if settled is not None and is_current else None
            running = Running(
                domain.record.spec,
                domain.memory,
                verdict,
                modules=self._modules.of(domain),
                balloon=self._balloon(domain),
                operation=status_of(domain.record, memory.percent, memory.change_error),
                why_fixed=self._rehomer.why_fixed(domain),
                hot=HotNow(
                    operation=domain.record.operation,
                    removable=domain.removable_vcpus,
                    refusal=memory.refusal,
                    error=memory.change_error,
                    is_busy=domain.record.target is None
                    and self._tools.workers.doing(vm.uid) is JobKind.CHANGE,
                ),
            )
        return VmView(
            vm=vm,
            wanted=wants_to_run(vm.spec, memory.status, deleting=vm.deleting),
            domain=status,
            running=running,
            starting=memory.starting is not None,
            start_error=memory.start_error,
            waits_for=memory.waits_for,
        )

    def _balloon(self, domain: ManagedDomain) -> BalloonSeen | None:
        """Return libvirt's word on the balloon; beside virtio-mem, QEMU's on its size."""
        seen, spec = domain.seen.balloon, domain.record.spec
        devices = spec.domain.devices.memory if spec is not None else ()
        if seen is None or all(device.virtio_mem is None for device in devices):
            return seen
        try:
            size = self._tools.hypervisor.balloon_size(domain.seen.uuid)
        except (DomainMissing, HypervisorUnavailable, OperationBusy, HostFaultError):
            return None  # the next turn sees what is there
        return replace(seen, current=size) if size is not None else None

    def _facts(self, vm: VmObject, memory: VmMemory, domain: ManagedDomain | None) -> Facts:
        settled_run = memory.settled.run_id if memory.settled else None
        seen, record = (domain.seen, domain.record) if domain else (None, None)
        restarts = record is not None and record.restart_token != vm.spec.restart_token
        may_start = transitions.may_start(memory.status, now=self._tools.clock.now())
        return Facts(
            wanted=wants_to_run(vm.spec, memory.status, deleting=vm.deleting),
            domain=domain_phase(seen, record, settled_run=settled_run),
            claim=claim_phase(vm.status.placement, memory.status),
            restart=Restart.ASKED if restarts else Restart.NONE,
            retry=Retry.NOW if may_start else Retry.LATER,
            change=change_phase(
                record,
                vm.status.placement,
                _refused_change(memory.status),
                self._wish(vm, memory, domain),
            ),
        )

    def _wish(self, vm: VmObject, memory: VmMemory, domain: ManagedDomain | None) -> Wish:
        if domain is None:
            return Wish(vm.spec, vm.generation)
        news = News.NONE
        due = memory.look_at is not None and self._tools.clock.boottime() >= memory.look_at
        if self._modules.lost(domain):
            restores = vm.spec.drift_policy is DriftPolicy.RESTORE
            news = News.LOSS if restores else News.HEARD
        elif memory.refusals or memory.device_news or due:
            news = News.HEARD
        return Wish(vm.spec, vm.generation, domain.removable_vcpus, news)

    def _observe(self, vm: VmObject, memory: VmMemory, domain: ManagedDomain | None) -> None:
        if domain is not None:
            stopping = is_stop(domain.record.operation)
            memory.stopped_by_us = stopping
            refused = _refused_change(memory.status)
            observed = self._observed(memory.status, domain, stopping=stopping)
            claim = vm.status.placement
            if refused is not None and claim is not None and claim.id == refused.placement_id:
                observed = observed.model_copy(update={"refused": refused})
            memory.status = observed
            return
        status = memory.status
        if status is not None and status.node_name == self._tools.node and is_there(status):
            memory.status = self._ended(vm, memory, status)
            memory.settled, memory.ended, memory.last_asked = None, None, None
            memory.stopped_by_us = False

    def _observed(
        self, before: DomainStatus | None, domain: ManagedDomain, *, stopping: bool
    ) -> DomainStatus:
        run = transitions.Run(
            uuid=domain.seen.uuid,
            name=domain.seen.name,
            state=domain.seen.state,
            paused=domain.seen.paused,
            accelerator=domain.accelerator,
            machine=domain.machine,
            placement_id=domain.record.placement.id,
            restart_token=domain.record.restart_token,
            started_at=domain.started_at,
            boot_id=self._tools.reader.boot_id(),
            stopping=stopping,
        )
        return transitions.observed(before, self._tools.node, run, now=self._tools.clock.now())

    def _ended(self, vm: VmObject, memory: VmMemory, status: DomainStatus) -> DomainStatus:
        reader = self._tools.reader
        reason = end_reason(
            status,
            stopped_by_us=memory.stopped_by_us,
            event=memory.ended,
            last_log_line=reader.last_log_line(status.name) if status.name else None,
            boot_id=reader.boot_id(),
        )
        after = transitions.ended(status, reason, now=self._tools.clock.now())
        self._tell_end(vm, reason, after)
        return after

    def _tell_end(self, vm: VmObject, reason: ShutoffReason, after: DomainStatus) -> None:
        about = (vm.namespace, vm.name, vm.uid)
        again = wants_to_run(vm.spec, after, deleting=vm.deleting).runs
        follows = "it is started again" if again else "it is not started again"
        when = f" at {after.retry_at}" if again and after.retry_at else ""
        match reason:
            case ShutoffReason.STOPPED:
                self._tools.tell(
                    about, EventType.NORMAL, "Stopped", "Stop", "The domain was stopped"
                )
            case ShutoffReason.GUEST_SHUTDOWN:
                note = f"The guest shut down; {follows}{when}"
                self._tools.tell(about, EventType.NORMAL, "GuestShutdown", "Observe", note)
            case ShutoffReason.DESTROYED:
                note = f"Somebody destroyed the domain by hand; {follows}{when}"
                self._tools.tell(about, EventType.WARNING, "DomainDestroyed", "Restore", note)
            case ShutoffReason.HOST_LOST:
                note = f"The host went down and is back; {follows}"
                self._tools.tell(about, EventType.WARNING, "HostLost", "Restore", note)
            case ShutoffReason.CRASHED:
                note = f"The guest or its QEMU crashed; {follows}{when}"
                self._tools.tell(about, EventType.WARNING, "GuestCrashed", "Restore", note)
            case ShutoffReason.UNKNOWN | ShutoffReason.START_FAILED:
                note = f"The domain ended, and nobody knows why; {follows}{when}"
                self._tools.tell(about, EventType.WARNING, "StopReasonUnknown", "Restore", note)
            case _:
                assert_never(reason)

    def _admit(self, vm: VmObject, memory: VmMemory, host: HostNow) -> HostNow:
        claim = vm.status.placement
        memory.waits_for = _blocked(host)
        if claim is None or memory.waits_for is not None:
            return host
        self._tools.kill.reach(KillPoint.BEFORE_ADMIT)
        claim = claim.alone  # no domain holds what was before it
        request = ClaimRequest(
            spec=vm.spec,
            placement=claim,
            admitted_before=_was_admitted(memory.status, self._tools.node, claim),
            path_problems=tuple(self._path_problems(vm, host)),
        )
        match admit(request, host.seen_by(vm.uid)):
            case Refused() as refusal:
                self._refuse(vm, memory, claim, refusal)
            case NotYet(message):
                memory.waits_for = message
            case Admitted() as admitted:
                try:
                    return self._start(vm, memory, claim, admitted, host)
                except CannotRender as error:
                    self._refuse(vm, memory, claim, Refused(Why.UNSUPPORTED, str(error)))
        return host

    def _start(
        self,
        vm: VmObject,
        memory: VmMemory,
        claim: Placement,
        admitted: Admitted,
        host: HostNow,
    ) -> HostNow:
        if host.qemu is None:
            return host
        emulator = host.qemu.emulator
        held = HeldClaim(uid=vm.uid, namespace=vm.namespace, name=vm.name, placement=claim)
        admitted_host = host.with_start(held)
        pools = admitted_host.pools
        machine = machine_type(
            vm.spec.domain.machine.type,
            kept=memory.status.machine if memory.status else None,
            aliases=emulator.aliases,
            offered=emulator.machine_types,
        )
        facts = HostFacts(
            accelerator=admitted.accelerator,
            machine=machine,
            cells=host.cpus,
            pools=pools,
            held=admitted_host.held_cpus,
            distances=cell_distances(host.cells),
            figures=cell_figures(host.cells),
            emulator=emulator.emulator,
            log_directory=self._tools.guest_log_directory,
        )
        wanted = VmToRender(vm.namespace, vm.name, vm.uid, vm.generation, vm.spec)
        domain = render(wanted, claim, facts)
        settling = Settling(
            uuid=domain.uuid,
            name=domain.name,
            run_id=0,
            placement=claim,
            vm=resolved(wanted.effective, claim),
            pins=settled_pins(claim, pools, host.cpus, admitted_host.held_cpus, wanted.effective),
        )
        memory.status = transitions.starting(memory.status, self._tools.node, vm, claim)
        memory.starting, memory.settled, memory.ended = claim, None, None
        jobs = self._tools.jobs
        self._tools.log.info(
            "start",
            numavm=f"{vm.namespace}/{vm.name}",
            uid=vm.uid,
            claim=claim.id,
            map=claim.summary,
        )
        self._tools.workers.submit(vm.uid, JobKind.START, lambda: jobs.start(domain.xml, settling))
        return admitted_host

    def _absorb_start(self, uid: str, memory: VmMemory, outcome: JobOutcome | NumaVMError) -> None:
        claim, memory.starting = memory.starting, None
        status = memory.status
        if claim is None or status is None:
            return
        match outcome:
            case StartFault() | UnexpectedError() as fault:
                memory.quiet_until = None  # the count of failures says when
                memory.status = self._start_failed(memory, status, claim, fault)
                self._tell(uid, EventType.WARNING, "StartFailed", "Start", str(fault))
            case NumaVMError():
                pass  # nobody knows how far it came: the next turn sees what is there
            case _:
                # It ran, even if it is gone before the next turn: then that is an end, and is counted.
                update = {
                    "state": DomainState.RUNNING,
                    "started_at": transitions.timestamp(self._tools.clock.now()),
                    "boot_id": self._tools.reader.boot_id(),
                }
                memory.status = status.model_copy(update=update)
                note = f"Started under claim {claim.id}: guest cell -> host cells {claim.summary}"
                self._tell(uid, EventType.NORMAL, "Started", "Start", note)

    def _tell(self, uid: str, kind: EventType, reason: str, action: str, note: str) -> None:
        name = self._names.get(uid)
        if name is not None:
            self._tools.tell((*name, uid), kind, reason, action, note)

    def _start_failed(
        self, memory: VmMemory, status: DomainStatus, claim: Placement, fault: NumaVMError
    ) -> DomainStatus:
        now = self._tools.clock.now()
        memory.start_error = str(fault)
        after = transitions.start_failed(status, now=now)
        reason = _SHORTAGES.get(fault.shortage) if isinstance(fault, StartFault) else None
        if reason is None and (after.failures or 0) < CRASH_LOOP_FROM:
            return after
        refusal = Refused(reason or Why.START_FAILED, str(fault))
        return transitions.refused(after, self._tools.node, claim, refusal, now=now)

    def _refuse(self, vm: VmObject, memory: VmMemory, claim: Placement, refusal: Refused) -> None:
        memory.status = transitions.refused(
            memory.status, self._tools.node, claim, refusal, now=self._tools.clock.now()
        )
        note = f"{refusal.reason}: {refusal.message}"
        about = (vm.namespace, vm.name, vm.uid)
        self._tools.tell(about, EventType.WARNING, "ClaimRefused", "Admit", note)

    def _release(self, vm: VmObject, memory: VmMemory) -> None:
        claim = vm.status.placement
        if claim is not None:
            memory.status = transitions.released(memory.status, self._tools.node, claim)

    def _path_problems(self, vm: VmObject, host: HostNow) -> list[str]:
        problems: list[str] = []
        for use in host_paths(vm.spec):
            problem = permitted_path(use.path, host.spec.permitted.directories)
            problem = problem or self._tools.reader.check_file(use.path)
            if problem is not None:
                problems.append(f"{use.field}: {problem}")
        return [*problems, *power_problems(vm.spec, host.spec.permitted)]


def _rate(moved: Moved) -> str:
    """Say how much memory was moved, and how fast, where this agent moved any."""
    if not moved.handled:
        return ""
    mebibytes = moved.handled / MEBIBYTE
    return f"; {mebibytes:.0f} MiB of pages in {moved.seconds:.2f} s"


def _refused_change(status: DomainStatus | None) -> DomainRefusal | None:
    return status.refused if status is not None else None


def claim_phase(claim: Placement | None, status: DomainStatus | None) -> ClaimPhase:
    """Return how a claim of this host stands; `status` is what the agent says of the domain."""
    if claim is None:
        return ClaimPhase.NONE
    given_back = status is not None and status.released == claim.id
    return ClaimPhase.GIVEN_BACK if given_back else ClaimPhase.OPEN


def _was_admitted(status: DomainStatus | None, node: str, claim: Placement) -> bool:
    return status is not None and status.node_name == node and status.placement_id == claim.id


def _blocked(host: HostNow) -> str | None:
    """Return why nothing starts on this host right now."""
    if host.spec.fenced:
        return "the NumaHost's spec.fenced is true: nothing is started here"
    if host.qemu is None:
        return "QEMU is being asked what it can do here"
    return None
