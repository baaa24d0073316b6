"""What moves a running domain to another claim, done: cgroups, pages, threads, metadata. In a worker's thread.

Each job does as many steps as fit into a slice of time, then the loop looks again: whether the move is still wanted,
whether the domain is still there. Nothing is remembered between jobs but where in the pass over the pages it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from numavm_agent.domain.metadata import DomainRecord, metadata_xml
from numavm_agent.domain.pins import Pins
from numavm_agent.errors import DomainMissing
from numavm_agent.ports import HostMemory
from numavm_agent.reconcile.jobs import Jobs, Moved, Settled, Settling
from numavm_agent.reconcile.live_jobs import LiveJobs
from numavm_agent.reconcile.live_plan import LivePlan, Shown, live_plan
from numavm_agent.reconcile.rehome import (
    Batch,
    Seen,
    Step,
    astray,
    at_step,
    batches,
    begun,
    homes,
    kind_of,
    narrowed,
    next_step,
    percent_done,
    widened,
)
from numavm_agent.verify.guest_memory import Block, blocks_at
from numavm_agent.verify.judge import thread_problems
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveVM
from numavm_api.errors import HostFaultError
from numavm_api.killpoints import KillPoint
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.quantity import MEBIBYTE, Bytes

SLICE_SECONDS: Final = 1.0
"""How long a job goes on before the loop looks again; four times what reading the pages takes, if that is more."""
_READING_SHARE: Final = 4


@dataclass(frozen=True, slots=True)
class Moving:
    """A domain on its way to another claim."""

    record: DomainRecord
    name: str
    run_id: int
    pins: Pins
    """Affinities under the new claim."""
    spec: NumaVMSpec
    """What the domain's spec is once it is there."""
    vm: EffectiveVM
    """That spec with its defaults, and what the new claim chose."""

    @property
    def target(self) -> Placement:
        """The new claim."""
        return self.record.target or self.record.placement


@dataclass(slots=True)
class _Pass:
    """A pass over the pages that is under way."""

    target: str
    batches: Iterator[Batch]
    left_before: Bytes
    is_first: bool
    """Later ones find most pages at home."""


@dataclass(slots=True)
class _Tally:
    """What has been moved so far, by this agent."""

    handled: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class RehomeJobs:
    """The jobs, with what they need."""

    jobs: Jobs
    live: LiveJobs
    memory: HostMemory
    mebibytes_per_second: float
    """No more is moved per second."""
    _passes: dict[str, _Pass] = field(default_factory=dict)
    _tallies: dict[str, _Tally] = field(default_factory=dict)
    _addresses: dict[str, tuple[int, Mapping[int, int]]] = field(default_factory=dict)
    """By uid: the run, and where QEMU has each guest cell's memory; that never changes in a run."""

    def begin(self, record: DomainRecord, target: Placement, moving: Moving | None) -> Moved:
        """Record that the domain moves to `target`, then go on for a slice of time.

        Args:
            record: What the domain remembers.
            target: The claim that it is to have.
            moving: The move as the domain's former record has it; None: it cannot go on yet.

        Raises:
            DomainMissing: it has ended.
            HostFaultError: the kernel refuses.
        """
        self.jobs.kill.reach(KillPoint.BEFORE_OPERATION)
        self._passes.pop(record.uid, None)
        self._tallies.pop(record.uid, None)
        noted = begun(record, target)
        self.jobs.hypervisor.set_metadata(record.uid, metadata_xml(noted))
        self.jobs.kill.reach(KillPoint.OPERATION_RECORDED)
        if moving is None:
            return Moved(percent=0, settled=None, stuck=None)
        return self.go_on(replace(moving, record=noted))

    def go_on(self, moving: Moving) -> Moved:
        """Do what is next, for a slice of time.

        Raises:
            DomainMissing: it has ended.
            HostFaultError: the kernel refuses.
        """
        pid = self.jobs.reader.qemu_pid(moving.name, moving.record.uid)
        if pid is None:
            raise DomainMissing(f"domain {moving.name} has no process")
        try:
            return self._steps(moving, pid)
        except ProcessLookupError as error:
            raise DomainMissing(f"domain {moving.name}: {error}") from error

    def correct(self, settling: Settling) -> Settled:
        """Move pages that a moved domain has touched elsewhere since, then settle it.

        Raises:
            DomainMissing: it has ended.
        """
        pid = self.jobs.reader.qemu_pid(settling.name, settling.uuid)
        if pid is None:
            raise DomainMissing(f"domain {settling.name} has no process")
        try:
            blocks = self._blocks(settling.uuid, settling.run_id, settling.placement, pid)
            for batch in batches(settling.placement, blocks):
                self._move_batch(pid, batch, _Tally(), all_of_them=False)
        except ProcessLookupError as error:
            raise DomainMissing(f"domain {settling.name}: {error}") from error
        return self.jobs.settle(settling)

    def restore(self, settling: Settling, groups: Sequence[str]) -> Settled:
        """Hold groups that somebody opened down to the claim's host cells again, and bring the pages back.

        Raises:
            DomainMissing: it has ended.
            HostFaultError: the kernel refuses.
        """
        cells = settling.placement.memory_host_cells
        self._allow([(group, cells) for group in groups])
        return self.correct(settling)

    def _steps(self, moving: Moving, pid: int) -> Moved:
        """Do one step after the other, until the move is done or the slice is over."""
        began = self.jobs.clock.boottime()
        record = moving.record
        while True:
            seen, blocks = self._look(moving, pid)
            looked = self.jobs.clock.boottime()
            ends = began + max(SLICE_SECONDS, _READING_SHARE * (looked - began))
            step = next_step(seen, moving.target)
            if step is Step.COMMIT:
                return self._commit(moving, pid)
            record = self._note(record, step)
            stuck = self._do(step, moving, pid, seen, blocks, ends)
            if stuck is not None or self.jobs.clock.boottime() >= ends:
                left = astray(moving.target, self._blocks_of(moving, pid))
                return Moved(self._percent(moving, left), None, stuck)

    def _do(
        self,
        step: Step,
        moving: Moving,
        pid: int,
        seen: Seen,
        blocks: Mapping[int, Block],
        ends: float,
    ) -> str | None:
        """Do a step; return why it does not come forward, if so."""
        kill = self.jobs.kill
        match step:
            case Step.MOVE:
                return self._move(moving, pid, blocks, seen.astray, ends)
            case Step.PLUG:
                self._plug(moving)
            case Step.WIDEN:
                self._allow(widened(seen, moving.target))
                kill.reach(KillPoint.GROUPS_WIDENED)
            case Step.THREADS:
                kill.reach(KillPoint.PAGES_MOVED)
                self.jobs.put(
                    moving.record.uid,
                    moving.pins,
                    self.jobs.reader.threads(pid),
                    io_threads=moving.vm.io_threads.ids,
                )
                kill.reach(KillPoint.THREADS_MOVED)
            case Step.NARROW:
                self._allow(narrowed(seen, moving.target))
                kill.reach(KillPoint.GROUPS_NARROWED)
            case _:
                pass
        return None

    def _plug(self, moving: Moving) -> None:
        """Plug in what is missing; what the guest is to give back is another operation, when this one is done."""
        uid, live = moving.record.uid, self.live
        plan = _plan(moving, live.shown(uid))
        live.plug(uid, moving.spec, moving.vm, plan, moving.target, moving.pins)

    def _allow(self, groups: list[tuple[str, CpuSet]]) -> None:
        for group, cells in groups:
            self.memory.allow_cells(group, cells)

    def _look(self, moving: Moving, pid: int) -> tuple[Seen, dict[int, Block]]:
        blocks = self._blocks_of(moving, pid)
        threads = self.jobs.reader.threads(pid)
        problems = thread_problems(moving.pins, threads, moving.vm)
        there = CpuSet(frozenset(one.vcpu for one in threads if one.vcpu is not None))
        allowed = self.memory.allowed_cells(pid)
        left = astray(moving.target, blocks)
        shown = Shown(there)
        if moving.vm.modules:
            shown = self.live.shown(moving.record.uid)
        plan = _plan(moving, shown)
        unplugged = frozenset((*plan.plug, *plan.resize))
        seen = Seen(allowed, left, threads_right=not problems, off=plan.on, unplugged=unplugged)
        return seen, blocks

    def _blocks_of(self, moving: Moving, pid: int) -> dict[int, Block]:
        blocks = self._blocks(moving.record.uid, moving.run_id, moving.target, pid)
        missing = [cell.id for cell in moving.target.cells if cell.id not in blocks]
        if missing:
            raise HostFaultError(
                f"domain {moving.name}: QEMU does not say where the memory of guest cells {missing} is"
            )
        return blocks

    def _blocks(self, uid: str, run_id: int, placement: Placement, pid: int) -> dict[int, Block]:
        known_run, addresses = self._addresses.get(uid, (run_id, {}))
        if not addresses or known_run != run_id:
            sizes = {cell.id: Bytes(cell.memory) for cell in placement.cells}
            addresses = self.jobs.hypervisor.cell_addresses(uid, sizes)
            self._addresses[uid] = (run_id, addresses)
        return blocks_at(placement.cells, self.jobs.reader.mappings(pid), addresses)

    def _note(self, record: DomainRecord, step: Step) -> DomainRecord:
        if record.operation is not None and record.operation.step == step:
            return record
        noted = at_step(record, step)
        self.jobs.hypervisor.set_metadata(record.uid, metadata_xml(noted))
        return noted

    def _move(
        self,
        moving: Moving,
        pid: int,
        blocks: Mapping[int, Block],
        left: Bytes,
        ends: float,
    ) -> str | None:
        """Move batches until `ends`, or until each page was moved once; return why it does not come forward."""
        uid = moving.record.uid
        current = self._passes.get(uid)
        if current is None or current.target != moving.target.id:
            is_first = uid not in self._tallies
            current = _Pass(moving.target.id, batches(moving.target, blocks), left, is_first)
            self._passes[uid] = current
        tally = self._tallies.setdefault(uid, _Tally())
        for batch in current.batches:
            self._move_batch(pid, batch, tally, all_of_them=current.is_first)
            self.jobs.kill.reach(KillPoint.PAGES_MOVING)
            if self.jobs.clock.boottime() >= ends:
                return None
        del self._passes[uid]
        after = astray(moving.target, self._blocks_of(moving, pid))
        if after and after >= current.left_before:
            return f"{after} bytes do not leave their host cells: something holds these pages"
        return None

    def _move_batch(self, pid: int, batch: Batch, tally: _Tally, *, all_of_them: bool) -> None:
        """Move pages; not all of them where most are at home: only those that a look finds elsewhere."""
        began = self.jobs.clock.boottime()
        if all_of_them and len(batch.cells) == 1:
            found = self.memory.move_pages(pid, batch.addresses, homes(batch))
            moved = sum(cell >= 0 for cell in found)  # of others the guest has touched nothing yet
        else:
            moved = self._move_strays(pid, batch)
        size = moved * (batch.addresses.step or 1)
        due = began + size / (self.mebibytes_per_second * MEBIBYTE)
        now = self.jobs.clock.boottime()
        tally.handled += size
        tally.seconds += now - began
        wait = due - now
        if wait > 0:
            threading.Event().wait(wait)

    def _move_strays(self, pid: int, batch: Batch) -> int:
        """Of pages that may be on several host cells, move only those that are on none of them."""
        now = self.memory.cells_of(pid, batch.addresses)
        strays = [
            (address, home)
            for address, home, cell in zip(batch.addresses, homes(batch), now, strict=True)
            if cell >= 0 and cell not in batch.cells
        ]
        if strays:
            self.memory.move_pages(pid, [one for one, _ in strays], [home for _, home in strays])
        return len(strays)

    def _commit(self, moving: Moving, pid: int) -> Moved:
        target = moving.target
        settling = Settling(
            uuid=moving.record.uid,
            name=moving.name,
            run_id=moving.run_id,
            placement=target,
            vm=moving.vm,
            pins=moving.pins,
            moved=True,
        )
        settled = self.jobs.read(settling, pid)
        self.jobs.kill.reach(KillPoint.BEFORE_COMMIT)
        self.live.follow_balloon(moving.record, moving.spec)
        done = replace(
            moving.record, placement=target, target=None, operation=None, spec=moving.spec
        )
        self.jobs.hypervisor.set_metadata(done.uid, metadata_xml(done))
        self._passes.pop(done.uid, None)
        self.jobs.kill.reach(KillPoint.AFTER_COMMIT)
        tally = self._tallies.pop(done.uid, _Tally())
        return Moved(
            percent=100,
            settled=settled,
            stuck=None,
            handled=Bytes(tally.handled),
            seconds=tally.seconds,
            kind=kind_of(moving.record.placement, target),
        )

    def _percent(self, moving: Moving, left: Bytes) -> int:
        return percent_done(moving.target, moving.record.placement, left)


def _plan(moving: Moving, shown: Shown) -> LivePlan:
    return live_plan(moving.vm, shown, removable=CpuSet(), asked=None, generation=0)
