"""Domains that are there: settle them, keep them as they should be, stop them; listed VMs' and orphans alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from numavm_agent.domain.model import CannotRender
from numavm_agent.domain.pins import Pins, settled_pins
from numavm_agent.ports import EventType
from numavm_agent.reconcile.drift import DriftWatch
from numavm_agent.reconcile.host_state import HostNow
from numavm_agent.reconcile.inventory import ManagedDomain
from numavm_agent.reconcile.jobs import Settled, Settling, modules_of
from numavm_agent.reconcile.memory import VmMemory
from numavm_agent.reconcile.operations import StopCause, StopStep, next_stop_step, read_stop
from numavm_agent.reconcile.tools import Tools
from numavm_agent.reconcile.workers import JobKind
from numavm_agent.verify.judge import Problem, thread_problems
from numavm_api.conditions import Reason
from numavm_api.effective import effective
from numavm_api.numavm import DriftPolicy
from numavm_api.quantity import MEBIBYTE, Bytes
from numavm_api.resolved import resolved
from numavm_api.vm_status import NumaStatus

READ_AGAIN_SECONDS: Final = 60.0
"""Page tables are walked again at most this often."""
STRAYS_AGAIN_SECONDS: Final = 15.0
"""Those of a domain that was moved while it ran."""
_STRAY_BYTES: Final = MEBIBYTE
_MOVED_BYTES: Final = 64 * MEBIBYTE
_MOVED_SHARE: Final = 100
"""One part in so many of the guest's memory."""


class Keeper:
    """Sees to domains that are there."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._drift = DriftWatch(tools)

    def settle(
        self,
        domain: ManagedDomain,
        host: HostNow,
        known: Settled | None = None,
        *,
        drift: DriftPolicy = DriftPolicy.RESTORE,
    ) -> None:
        """Have a domain's threads put where they belong and, unless they are `known`, its pages read.

        A domain that is being moved is seen to by that.
        """
        pins = self._pins(domain, host)
        record = domain.record
        if pins is None or not domain.is_whole or record.target is not None:
            return
        settling = _settling(domain, pins, known, drift)
        if settling is None:
            return
        jobs, rehome = self._tools.jobs, self._tools.rehome
        corrects = record.moved and known is None and drift is DriftPolicy.RESTORE
        self._tools.workers.submit(
            record.uid,
            JobKind.SETTLE,
            lambda: rehome.correct(settling) if corrects else jobs.settle(settling),
        )

    def keep(
        self,
        domain: ManagedDomain,
        memory: VmMemory,
        host: HostNow,
        drift: DriftPolicy = DriftPolicy.RESTORE,
    ) -> None:
        """Check threads, cheaply, and whether pages moved; have restored what somebody changed."""
        settled = memory.settled
        pins = self._pins(domain, host)
        if settled is None or pins is None or domain.pid is None or domain.record.spec is None:
            return
        try:
            threads = self._tools.reader.threads(domain.pid)
            vm = effective(domain.record.spec)
            problems = thread_problems(pins, threads, vm)
            own_memory = self._tools.reader.own_memory(domain.pid)
        except ProcessLookupError:
            return  # it has just ended: the next turn sees that
        if modules_of(vm) != settled.modules:
            self.settle(domain, host, drift=drift)
            return
        now = self._tools.clock.boottime()
        tried = settled.restored == (drift is DriftPolicy.RESTORE) and _is_known(problems, settled)
        if problems and not (tried and now < settled.settled_at + READ_AGAIN_SECONDS):
            if pins == settled.pins:
                self._tell_drift(domain, problems, drift)
                self.settle(domain, host, settled, drift=drift)
            else:
                self.settle(domain, host, settled)
            return
        if _pages_moved(domain, settled, own_memory) and now >= _read_again_at(domain, settled):
            self.settle(domain, host, drift=drift)
            return
        settling = _settling(domain, pins, None, drift)
        if settling is not None:
            self._drift.look(domain, memory, settling, drift)

    def begin_stop(self, domain: ManagedDomain, cause: StopCause) -> None:
        """Have the guest asked to shut down."""
        jobs, record = self._tools.jobs, domain.record
        self._tools.log.info("stop", domain=domain.seen.name, uid=record.uid, cause=cause)
        self._tools.workers.submit(record.uid, JobKind.STOP, lambda: jobs.begin_stop(record, cause))

    def continue_stop(self, domain: ManagedDomain, memory: VmMemory, grace_seconds: float) -> None:
        """Have the guest asked again, or its power cut, as its time comes."""
        operation = domain.record.operation
        if operation is None:
            return
        jobs, uuid = self._tools.jobs, domain.seen.uuid
        now = self._tools.clock.boottime()
        stop = read_stop(operation)
        step = next_stop_step(
            stop, grace_seconds=grace_seconds, now=now, last_asked=memory.last_asked or stop.began
        )
        match step:
            case StopStep.WAIT:
                return
            case StopStep.ASK_AGAIN:
                memory.last_asked = now
                self._tools.workers.submit(uuid, JobKind.STOP, lambda: jobs.ask_again(uuid))
            case StopStep.CUT_POWER:
                note = f"The guest did not shut down within {grace_seconds:g} s: its power is cut"
                self._tell(domain, EventType.WARNING, "StopForced", "Stop", note)
                self._tools.workers.submit(uuid, JobKind.STOP, lambda: jobs.cut_power(uuid))

    def clear(self, domain: ManagedDomain) -> None:
        """Have removed what a crash left."""
        jobs, uuid = self._tools.jobs, domain.seen.uuid
        self._tools.workers.submit(uuid, JobKind.STOP, lambda: jobs.cut_power(uuid))

    def newer(self, before: Settled | None, now: Settled) -> Settled:
        """Return what was read, with the verdict before where nothing worth telling has changed."""
        if before is None or before.run_id != now.run_id:
            return now
        same = before.verdict.problems == now.verdict.problems and _alike(
            before.verdict.numa, now.verdict.numa
        )
        return replace(now, verdict=before.verdict) if same else now

    def _pins(self, domain: ManagedDomain, host: HostNow) -> Pins | None:
        try:
            spec = domain.record.spec
            vm = effective(spec) if spec is not None else None
            placement = domain.record.placement
            return settled_pins(placement, host.pools, host.cpus, host.held_cpus, vm)
        except CannotRender as error:
            self._tools.log.warning("no_pins", domain=domain.seen.name, error=str(error))
            return None

    def _tell_drift(
        self, domain: ManagedDomain, problems: tuple[Problem, ...], drift: DriftPolicy
    ) -> None:
        messages = "; ".join(problem.message for problem in problems)
        match drift:
            case DriftPolicy.RESTORE:
                note = f"Somebody changed the affinity of threads; it is restored: {messages}"
                self._tell(domain, EventType.WARNING, "PinsRestored", "Restore", note)
            case DriftPolicy.REPORT:
                note = f"Somebody changed the affinity of threads; spec.driftPolicy is Report: {messages}"
                self._tell(domain, EventType.WARNING, "PinsDrifted", "Report", note)

    def _tell(
        self, domain: ManagedDomain, kind: EventType, reason: str, action: str, note: str
    ) -> None:
        record = domain.record
        self._tools.tell((record.namespace, record.name, record.uid), kind, reason, action, note)


def _settling(
    domain: ManagedDomain, pins: Pins, known: Settled | None, drift: DriftPolicy
) -> Settling | None:
    record = domain.record
    if record.spec is None:
        return None
    return Settling(
        uuid=domain.seen.uuid,
        name=domain.seen.name,
        run_id=domain.seen.run_id,
        placement=record.placement,
        vm=resolved(effective(record.spec), record.placement),
        pins=pins,
        known=known,
        moved=record.moved,
        restore=drift is DriftPolicy.RESTORE,
    )


def _is_known(problems: tuple[Problem, ...], settled: Settled) -> bool:
    """Tell whether restoring has been tried on exactly this, in vain."""
    tried = [one for one in settled.verdict.problems if one.reason is Reason.THREADS_MISPLACED]
    return list(problems) == tried


def _pages_moved(domain: ManagedDomain, settled: Settled, now: dict[int, Bytes] | None) -> bool:
    before = settled.own_memory
    if now is None or before is None:
        return False
    moved = sum(abs(now.get(cell, 0) - before.get(cell, 0)) for cell in {*now, *before})
    if domain.record.moved:
        return moved > _STRAY_BYTES
    return moved > max(_MOVED_BYTES, domain.memory // _MOVED_SHARE)


def _read_again_at(domain: ManagedDomain, settled: Settled) -> float:
    """Return when pages may be read again; sooner where pages that are touched anew may come to lie elsewhere."""
    seconds = STRAYS_AGAIN_SECONDS if domain.record.moved else READ_AGAIN_SECONDS
    return settled.settled_at + seconds


def _alike(before: NumaStatus, now: NumaStatus) -> bool:
    """Tell whether two readings differ by less than 1 % of any cell's memory, and in nothing else."""
    return [_without_amounts(before)] == [_without_amounts(now)] and all(
        abs(old - new) * _MOVED_SHARE <= max(old, new)
        for old, new in zip(_amounts(before), _amounts(now), strict=True)
    )


def _without_amounts(numa: NumaStatus) -> list[tuple[object, ...]]:
    return [
        (
            cell.id,
            cell.host_cells,
            cell.vcpus,
            cell.pcpus,
            cell.pinned,
            cell.aligned,
            tuple(one.host_cell for one in cell.resident),
        )
        for cell in numa.cells
    ]


def _amounts(numa: NumaStatus) -> list[int]:
    return [one.bytes for cell in numa.cells for one in cell.resident]
