"""Gives waiting VMs their claims: one at a time, by priority, then the oldest first.

Owns the single flight: take a VM, look at the ledger, place, assume, write. A conflict forgets the
assumption; a write of which nobody knows whether it was done keeps it until the object was read
again. What fits nowhere waits, and is tried again when capacity appears, not by the clock; for one
that waits too long a host is kept.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from numavm_api.effective import effective
from numavm_api.errors import ConflictError, NumaVMError, RejectedError, TransientError
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_operator.clock import Clock
from numavm_operator.errors import NotFoundError, NotLeaderError
from numavm_operator.metrics import Metrics
from numavm_operator.objects import Vm, VmKey
from numavm_operator.picture import Picture
from numavm_operator.placement import (
    Patience,
    Placed,
    Policy,
    Queue,
    Refusal,
    Request,
    Turn,
    Undecided,
    amend,
    host_to_keep,
    moved_cells,
    place,
    summary,
    turned_back,
)
from numavm_operator.ports import Epochs, Reader, VmWriter
from numavm_operator.reconcile.amending import in_use
from numavm_operator.reconcile.decide import Amend, Place, decide
from numavm_operator.reconcile.world import Outcome, Waiting, World
from numavm_operator.requests import left_out, request_of, spread_from
from numavm_operator.turns import turn_in

UNDECIDED_SECONDS = 5.0
"""When a VM is tried again whose search did not come to an end."""
REJECTED_SECONDS = 30.0
"""When a claim is tried again that the API server did not take."""
UNSETTLED_SECONDS = 1.0
"""When a VM is read again of which it is not known whether its claim was written."""

_NO_SOONER_SECONDS: Final = 0.05
"""A timer set for a moment that has come goes off a little after it."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Scheduler:
    """The one task that writes claims."""

    picture: Picture
    writer: VmWriter
    reader: Reader
    epochs: Epochs
    clock: Clock
    metrics: Metrics
    look_at: Callable[[VmKey], None]
    policy: Policy = field(default_factory=Policy)
    patience: Patience = field(default_factory=Patience)
    _queue: Queue = field(default_factory=Queue)
    _pending: dict[VmKey, tuple[str, int, Hashable]] = field(default_factory=dict)
    _fresh: set[VmKey] = field(default_factory=set)
    _unsettled: dict[VmKey, str] = field(default_factory=dict)
    _left_out: set[str] = field(default_factory=set)
    _retry_all: bool = False
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _timer: asyncio.TimerHandle | None = None

    def submit(self, vm: Vm) -> None:
        """Have a VM placed; one that waits already, and has not changed, goes on waiting."""
        mark: tuple[str, int, Hashable] = (vm.uid, vm.generation, tuple(vm.status.refusals))
        if self._pending.get(vm.key) == mark:
            return
        self._pending[vm.key] = mark
        self._fresh.add(vm.key)
        self._woken.set()

    def withdraw(self, key: VmKey) -> None:
        """Stop trying to place a VM."""
        mark = self._pending.pop(key, None)
        self._fresh.discard(key)
        if mark is not None:
            self._out_of_queue(mark[0])

    def wake(self) -> None:
        """Try all waiting VMs again: capacity may have appeared."""
        self._retry_all = True
        self._woken.set()

    def host_reported(self, name: str) -> None:
        """Try again where a host that was left out for its refusals has changed its report."""
        if name in self._left_out:
            self._left_out.discard(name)
            self.wake()

    async def run(self) -> None:
        """Place VMs, until cancelled or no longer leading.

        Raises:
            NotLeaderError: this operator may not write any more.
        """
        while True:
            await self._woken.wait()
            self._woken.clear()
            await self._sweep()

    async def _sweep(self) -> None:
        self._review_queue()
        todo = set(self._pending) if self._retry_all else set(self._fresh)
        self._retry_all = False
        self._fresh -= todo
        self.metrics.pending.set(len(self._pending))
        vms = [vm for vm in (self.picture.vms.get(key) for key in todo) if vm is not None]
        was_open = self.picture.open_for_placement
        for turn in (
            self._settle_all,
            *(self._attempt_of(vm, was_open=was_open) for vm in sorted(vms, key=self._turn)),
        ):
            try:
                await turn()
            except NotLeaderError:
                raise
            except NumaVMError as error:
                log.warning("placement_failed", error=str(error))
                self._wake_in(UNSETTLED_SECONDS)
            except Exception as error:
                log.error("placement_broke", exc_info=error)  # noqa: TRY400 - as structlog wants it
                self._wake_in(UNDECIDED_SECONDS)
            await asyncio.sleep(0)  # lets watches and workers run between two placements

    def _attempt_of(self, vm: Vm, *, was_open: bool) -> Callable[[], Awaitable[None]]:
        return lambda: self._attempt(vm.key, was_open=was_open)

    async def _attempt(self, key: VmKey, *, was_open: bool) -> None:
        world = self.picture.world(key)
        if key in self._unsettled:
            return
        step = decide(world) if world is not None else None
        if world is None or not isinstance(step, Place | Amend):
            self._no_longer_waits(key)
            return
        # Asked of every host: not for each of ten thousand VMs where the sweep began without. Who opens it wakes us.
        if not was_open or not self.picture.open_for_placement:
            text = "Waiting until every host has confirmed what it holds."
            self._waits(world.vm, Outcome.WAITING_FOR_HOSTS, text)
            return
        highest = self.picture.ledger.highest_epoch
        if highest > self.epochs.epoch:
            await self.epochs.raise_epoch(highest + 1)
        if world.vm.accepted is None:
            return
        if isinstance(step, Amend):
            await self._amend(world, world.vm.accepted)
        else:
            await self._place(world.vm, world.vm.accepted)

    async def _amend(self, world: World, spec: NumaVMSpec) -> None:
        """Give a running VM a claim on other host cells of its host, beside the one it holds."""
        vm = world.vm
        node_name, claim = vm.status.node_name, vm.status.placement
        if node_name is None or claim is None:
            return
        request = self._request(vm, spec)
        if claim.previous is not None:
            back = turned_back(claim, placement_id=request.placement_id, epoch=request.epoch)
            if back is not None:
                await self._claim(vm, Placed(node_name, back, spans_cells=False, distance=0))
            return
        if node_name in request.excluded:
            self._waits(vm, Outcome.UNSCHEDULABLE, request.excluded[node_name])
            return
        used = in_use(world)
        moves = moved_cells(claim, effective(spec), used)
        fleet = self.picture.ledger.fleet
        match amend(request, fleet, node_name, claim, moves, self.policy, used):
            case Placed() as amended:
                await self._claim(vm, amended)
            case Refusal() as refusal:
                self.metrics.placements.labels("unschedulable").inc()
                self._waits(vm, Outcome.UNSCHEDULABLE, summary(refusal))
            case Undecided() as undecided:
                self._waits(vm, Outcome.UNDECIDED, summary(undecided))
                self._wake_in(UNDECIDED_SECONDS)

    async def _place(self, vm: Vm, spec: NumaVMSpec) -> None:
        request = self._request(vm, spec)
        began = self.clock.seconds()
        result = place(request, self.picture.ledger.fleet, self.policy)
        self.metrics.placement_seconds.observe(self.clock.seconds() - began)
        match result:
            case Placed():
                await self._claim(vm, result)
            case Refusal():
                self.metrics.placements.labels("unschedulable").inc()
                for count in result.counts:
                    self.metrics.unschedulable.labels(str(count.cause)).inc(count.hosts)
                self._queue = self._queue.with_refusal(vm.uid, self._turn(vm), self.clock.seconds())
                self._review_queue()
                kept = self._queue.kept_for(vm.uid)
                text = summary(result) + (f". {kept} is kept for it" if kept else "")
                self._waits(vm, Outcome.UNSCHEDULABLE, text, kept_node=kept)
            case Undecided():
                self.metrics.placements.labels("undecided").inc()
                self._waits(vm, Outcome.UNDECIDED, summary(result))
                self._wake_in(UNDECIDED_SECONDS)

    def _over_quota(self, vm: Vm, placement: Placement) -> bool:
        """Tell whether a quota of the namespace keeps the VM from a claim; it then waits, and keeps no host."""
        quotas, namespace = self.picture.quotas, vm.key.namespace
        if not quotas.limits(namespace):
            return False
        if any(key.namespace == namespace for key in self._unsettled):
            self._waits(vm, Outcome.UNDECIDED, "Waiting to know what another VM's claim became.")
            self._wake_in(UNSETTLED_SECONDS)
            return True
        excess = quotas.excess(vm, placement)
        if excess is None:
            return False
        self.metrics.placements.labels("over_quota").inc()
        self._out_of_queue(vm.uid)
        self._waits(vm, Outcome.QUOTA_EXCEEDED, excess)
        return True

    async def _claim(self, vm: Vm, placed: Placed) -> None:
        ledger, placement = self.picture.ledger, placed.placement
        if self._over_quota(vm, placement):
            return
        ledger.assume(vm.uid, placed.node_name, placement)
        try:
            written = await self.writer.claim(
                vm,
                node_name=placed.node_name,
                placement=placement,
                refusals=vm.status.refusals,
            )
        except (ConflictError, NotFoundError):
            ledger.forget(vm.uid)
            self.withdraw(vm.key)
            self.look_at(vm.key)
            self.metrics.placements.labels("conflict").inc()
            return
        except TransientError:
            self._unsettled[vm.key] = vm.uid
            raise
        except RejectedError as error:
            ledger.forget(vm.uid)
            self._waits(vm, Outcome.UNDECIDED, f"The claim could not be written: {error}")
            self._wake_in(REJECTED_SECONDS)
            return
        except NumaVMError:
            ledger.forget(vm.uid)
            raise
        self.picture.wrote(written)
        ledger.forget(vm.uid)  # it is stated now
        self._no_longer_waits(vm.key)
        self.look_at(vm.key)
        self.metrics.placements.labels("placed").inc()
        log.info(
            "placed",
            numavm=str(vm.key),
            uid=vm.uid,
            node=placed.node_name,
            placement=placement.id,
            map=placement.summary,
            epoch=placement.epoch,
        )

    async def _settle_all(self) -> None:
        """Read the VMs again of which it is not known whether their claims were written."""
        for key, uid in list(self._unsettled.items()):
            with suppress(NotFoundError):
                self.picture.wrote(await self.reader.vm(key))
            self.picture.ledger.forget(uid)
            del self._unsettled[key]
            self.look_at(key)

    def _request(self, vm: Vm, spec: NumaVMSpec) -> Request:
        out = left_out(vm, self._host_version, self.clock.now())
        for name, excluded in out.items():
            self._left_out.add(name)
            self._wake_in(excluded.seconds_left)
        return request_of(
            vm,
            spec,
            placement_id=secrets.token_hex(6),
            epoch=self.epochs.epoch,
            excluded_hosts={name: excluded.why for name, excluded in out.items()},
            kept=self._queue.closed_to(vm.uid, self._turn(vm)),
            away=spread_from(vm, spec, self.picture.vms, self.picture.ledger.fleet),
        )

    def _host_version(self, name: str) -> int | None:
        host = self.picture.hosts.get(name)
        return None if host is None else host.resource_version

    def _turn(self, vm: Vm) -> Turn:
        return turn_in(self.picture.priority_classes, vm)

    def _review_queue(self) -> None:
        """Keep a host for who waits too long, and let go of one kept too long."""
        before, now = self._queue.kept, self.clock.seconds()
        self._queue = self._queue.reviewed(now, self.patience, self._host_to_keep)
        kept = self._queue.kept
        if kept != before:
            if before is not None:
                log.info("host_let_go", node=before.node_name, numavm=before.turn.name)
                self.wake()
            if kept is not None:
                log.info("host_kept", node=kept.node_name, numavm=kept.turn.name)
        seconds = self._queue.next_change(now, self.patience)
        if seconds is not None:
            self._wake_in(max(seconds, _NO_SOONER_SECONDS))

    def _host_to_keep(self, uid: str) -> str | None:
        vm = self.picture.vm_of(uid)
        if vm is None or vm.accepted is None:
            return None
        return host_to_keep(self._request(vm, vm.accepted), self.picture.ledger.fleet)

    def _out_of_queue(self, uid: str) -> None:
        kept = self._queue.kept
        self._queue = self._queue.without(uid)
        if kept is not None and self._queue.kept is None:
            self.wake()

    def _waits(
        self, vm: Vm, outcome: Outcome, message: str, *, kept_node: str | None = None
    ) -> None:
        """Say why a VM waits; not how long a host is kept, so that the message does not change by itself."""
        if self.picture.set_waiting(vm, Waiting(outcome, message, kept_node)):
            self.look_at(vm.key)

    def _no_longer_waits(self, key: VmKey) -> None:
        self.withdraw(key)
        vm = self.picture.vms.get(key)
        if vm is not None:
            self.picture.set_waiting(vm, None)

    def _wake_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._timer is not None and loop.time() < self._timer.when() <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(due, self.wake)
