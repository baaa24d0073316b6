"""Looks at one NumaVM: observe, decide, act, and at the end report.

The rules of controller-runtime hold here: the request is a key, never an event; an error means to
try again with backoff; `seconds` mean to look again then; nothing distinguishes a first look from a
later one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, assert_never

import structlog

from numavm_api.conditions import ConditionType, Reason
from numavm_api.errors import ConflictError
from numavm_api.vm_status import DomainRefusal, Refusal
from numavm_operator.clock import Clock
from numavm_operator.errors import NotFoundError
from numavm_operator.metrics import Metrics
from numavm_operator.objects import Vm, VmKey
from numavm_operator.picture import Picture
from numavm_operator.ports import EventType, Reader, Recorder, VmWriter
from numavm_operator.reconcile.decide import (
    AddFinalizer,
    Amend,
    AwaitReport,
    Conclude,
    Nothing,
    Place,
    Release,
    RemoveFinalizer,
    Revert,
    WriteBack,
    decide,
)
from numavm_operator.reconcile.ready import domain_of_claim
from numavm_operator.reconcile.refusals import NOT_THE_HOSTS_FAULT, recorded
from numavm_operator.reconcile.report import Report, report, stated
from numavm_operator.reconcile.world import World
from numavm_operator.timestamps import timestamp

ON_THE_WAY_SECONDS: Final = 1.0
"""How long a status is held back that will soon be out of date.

One write fewer where all goes well.
"""
_MOST_STEPS: Final = 6
_BOUNCE_SECONDS: Final = 0.1
_LONGEST_BOUNCE_SECONDS: Final = 30.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Bounces:
    count: int
    until: float


@dataclass(slots=True)
class Controller:
    """What workers do with a key."""

    picture: Picture
    writer: VmWriter
    reader: Reader
    recorder: Recorder
    clock: Clock
    metrics: Metrics
    submit: Callable[[Vm], None]
    """Hands a VM to the scheduler."""
    withdraw: Callable[[VmKey], None]
    """Takes it back."""
    _held_back: dict[VmKey, float] = field(default_factory=dict)
    _bounces: dict[VmKey, _Bounces] = field(default_factory=dict)

    async def reconcile(self, key: VmKey) -> float | None:
        """Bring one VM a step or several further.

        Return in how many seconds to look again, if at all.

        Raises:
            ConflictError: the VM has moved on; look again at once.
            TransientError: try again.
            NotLeaderError: this operator may not write any more.
        """
        for _ in range(_MOST_STEPS):
            world = self.picture.world(key)
            if world is None:
                self._forget(key)
                return None
            if not await self._act(world):
                later = [await self._report(key), self._bounced(key)]
                return min((seconds for seconds in later if seconds > 0), default=None)
        raise ConflictError(f"{key} does not come to rest in {_MOST_STEPS} steps")

    async def _act(self, world: World) -> bool:
        """Do the next step; tell whether the VM is another one now and to be looked at again."""
        vm, step = world.vm, decide(world)
        if isinstance(step, Place | Amend):
            if self._bounced(vm.key) <= 0:
                self.submit(vm)
            return False
        self.withdraw(vm.key)
        if isinstance(step, Nothing | AwaitReport):
            if domain_of_claim(world) is not None:
                self._bounces.pop(vm.key, None)
            return False
        return await self._write(vm, step)

    async def _write(
        self,
        vm: Vm,
        step: AddFinalizer | RemoveFinalizer | WriteBack | Release | Conclude | Revert,
    ) -> bool:
        match step:
            case AddFinalizer():
                self.picture.wrote(await self.writer.add_finalizer(vm))
            case RemoveFinalizer():
                await self._let_go(vm)
                return False
            case WriteBack():
                await self._write_back(vm, step)
            case Release():
                await self._release(vm, step)
            case Conclude():
                await self._conclude(vm, step)
            case Revert():
                await self._revert(vm, step)
            case _:
                assert_never(step)
        return True

    async def _let_go(self, vm: Vm) -> None:
        try:
            await self.writer.remove_finalizer(vm)
        except NotFoundError:
            log.debug("gone_already", numavm=str(vm.key))
        self.picture.vms.remove(vm.key, vm.resource_version)
        self._forget(vm.key)
        log.info("let_go", numavm=str(vm.key), uid=vm.uid)

    async def _write_back(self, vm: Vm, step: WriteBack) -> None:
        written = await self.writer.claim(
            vm,
            node_name=step.node_name,
            placement=step.placement,
            refusals=vm.status.refusals,
        )
        self.picture.wrote(written)
        note = (
            f"{step.node_name} runs it under claim {step.placement.id}; its status did not say so."
        )
        self.recorder.record(vm, EventType.WARNING, "ClaimRestored", "Restore", note)
        log.warning(
            "claim_restored",
            numavm=str(vm.key),
            uid=vm.uid,
            node=step.node_name,
            placement=step.placement.id,
        )

    async def _conclude(self, vm: Vm, step: Conclude) -> None:
        others = [one for one in vm.status.refusals if one.node_name != step.node_name]
        written = await self.writer.claim(
            vm, node_name=step.node_name, placement=step.placement, refusals=others
        )
        self.picture.wrote(written)
        note = f"The running VM was moved on {step.node_name}: {step.placement.summary}."
        self.recorder.record(vm, EventType.NORMAL, "ClaimAmended", "Conclude", note)
        log.info("amended", numavm=str(vm.key), uid=vm.uid, placement=step.placement.id)

    async def _revert(self, vm: Vm, step: Revert) -> None:
        refusals = await self._with_refusal(vm, step.node_name, step.refused)
        written = await self.writer.claim(
            vm, node_name=step.node_name, placement=step.placement, refusals=refusals
        )
        self.picture.wrote(written)
        log.info(
            "amendment_refused",
            numavm=str(vm.key),
            uid=vm.uid,
            node=step.node_name,
            placement=step.refused.placement_id,
            refused=str(step.refused.reason),
        )

    async def _with_refusal(self, vm: Vm, node_name: str, refused: DomainRefusal) -> list[Refusal]:
        """Return the refusals with an agent's newest word, and tell people of it."""
        # Past the cache: the agent has just brought its report up to date.
        version = await self._host_version(node_name)
        if refused.reason in NOT_THE_HOSTS_FAULT:
            self._note_bounce(vm.key)
        self.metrics.refusals.labels(str(refused.reason)).inc()
        note = f"{node_name} refused ({refused.reason}): {refused.message}"
        self.recorder.record(vm, EventType.WARNING, Reason.CLAIM_REFUSED, "Admit", note)
        return recorded(
            vm.status.refusals,
            refused,
            node_name=node_name,
            host_version=version,
            now=self.clock.now(),
        )

    async def _release(self, vm: Vm, step: Release) -> None:
        refusals: list[Refusal] = []
        if step.refused is not None:
            refusals = await self._with_refusal(vm, step.node_name, step.refused)
        written = await self.writer.claim(vm, node_name=None, placement=None, refusals=refusals)
        if step.node_name:
            self.picture.ledger.released(vm.uid, step.node_name, step.placement.id)
        self.picture.wrote(written)
        log.info(
            "released",
            numavm=str(vm.key),
            uid=vm.uid,
            node=step.node_name,
            placement=step.placement.id,
            refused=str(step.refused.reason) if step.refused else None,
        )

    async def _host_version(self, name: str) -> str:
        try:
            host = await self.reader.host(name)
        except NotFoundError:
            return ""
        self.picture.hosts.put(name, host)
        return str(host.resource_version)

    async def _report(self, key: VmKey) -> float:
        """Write what is to be said, if it is not said yet.

        Return for how long that was kept back.
        """
        world = self.picture.world(key)
        if world is None:
            return 0.0
        if world.vm.unreadable is not None:
            log.error("status_unreadable", numavm=str(key), problem=world.vm.unreadable)
            return 0.0
        wanted, standing = report(world, now=timestamp(self.clock.now())), stated(world)
        if wanted == standing:
            self._held_back.pop(key, None)
            return 0.0
        wait = self._hold_back(key, wanted)
        if wait > 0:
            return wait
        self._held_back.pop(key, None)
        try:
            self.picture.wrote(await self.writer.report(world.vm, wanted))
        except NotFoundError:
            return 0.0
        self._tell(world.vm, standing, wanted)
        return 0.0

    def _hold_back(self, key: VmKey, wanted: Report) -> float:
        """Return for how many seconds a report on something under way is kept back."""
        if not wanted.on_the_way:
            return 0.0
        now = self.clock.seconds()
        return self._held_back.setdefault(key, now) + ON_THE_WAY_SECONDS - now

    def _tell(self, vm: Vm, before: Report, after: Report) -> None:
        """Publish an event for each condition that has turned bad, or bad in another way."""
        were = {one.type: one for one in before.conditions}
        for one in after.conditions:
            was = were.get(one.type)
            if (one.type, one.reason) not in _WORTH_AN_EVENT:
                continue
            if was is not None and was.reason == one.reason:
                continue
            self.recorder.record(vm, EventType.WARNING, one.reason, one.type, one.message)

    def _forget(self, key: VmKey) -> None:
        self.withdraw(key)
        self._held_back.pop(key, None)
        self._bounces.pop(key, None)

    def _bounced(self, key: VmKey) -> float:
        """Return for how many seconds a VM is not placed again, because its claims bounce."""
        bounces = self._bounces.get(key)
        return bounces.until - self.clock.seconds() if bounces is not None else 0.0

    def _note_bounce(self, key: VmKey) -> None:
        """A refusal that no host is to blame for is answered at once.

        One after the other, ever later.
        """
        count = self._bounces[key].count + 1 if key in self._bounces else 0
        seconds = min(_LONGEST_BOUNCE_SECONDS, _BOUNCE_SECONDS * 2.0**count) if count else 0.0
        self._bounces[key] = _Bounces(count, self.clock.seconds() + seconds)


_WORTH_AN_EVENT: Final[frozenset[tuple[str, str]]] = frozenset(
    {
        (ConditionType.ACCEPTED, Reason.INVALID_SPEC),
        (ConditionType.SCHEDULED, Reason.UNSCHEDULABLE),
        (ConditionType.SCHEDULED, Reason.UNDECIDED),
        (ConditionType.SCHEDULED, Reason.QUOTA_EXCEEDED),
        (ConditionType.CAPACITY_RESERVED, Reason.QUOTA_EXCEEDED),
        (ConditionType.HOST_REACHABLE, Reason.LEASE_EXPIRED),
    }
)
