"""What a leader does, from the first list to the end: its parts, wired up, and its tasks.

Owns the start: list, then follow, and work last; so that nothing is decided before everything was seen once, and
nothing is missed between list and watch, for kopf lists once more before it watches. Ends only by being cancelled, or
by an error that no retry can help.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog

from numavm_api.errors import ConflictError, NumaVMError
from numavm_api.killpoints import KillSwitch
from numavm_operator.clock import Clock
from numavm_operator.collector import survivors_frozen
from numavm_operator.errors import NotFoundError, NotLeaderError
from numavm_operator.kube.client import KubeClient
from numavm_operator.kube.events import EventRecorder
from numavm_operator.kube.lists import list_pages
from numavm_operator.kube.paths import (
    NODES,
    NUMAHOSTS,
    NUMAVMS,
    PRIORITY_CLASSES,
    RESOURCE_QUOTAS,
    leases,
)
from numavm_operator.kube.vms import KubeReader, KubeVmWriter
from numavm_operator.metrics import Metrics
from numavm_operator.objects import VmKey
from numavm_operator.observed import Backlog, Observed
from numavm_operator.picture import Kind, Picture, key_of
from numavm_operator.ports import Epochs
from numavm_operator.pulse import Pulse
from numavm_operator.reconcile.controller import Controller
from numavm_operator.scheduler import Scheduler
from numavm_operator.settings import Settings
from numavm_operator.shell import follow_cluster, follow_leases
from numavm_operator.workqueue import WorkQueue

_JUDGE_SECONDS: Final = 1.0
_SECOND_LIST_SECONDS: Final = 20.0
"""A list soon after the start.

What vanished between the first list and kopf's own is not kept for long.
"""
_RETRY_SECONDS: Final = 2.0
_LAG_SECONDS: Final = 0.1
_AT_ONCE: Final = 10
"""Objects of a list that are read before anything else has its turn."""
_WATCHES_SECONDS: Final = 10.0
"""How long kopf may take to begin; the lists must do until it does."""

Watching = Callable[[asyncio.Event], Awaitable[None]]
"""Follows something until it is told to stop; sets the event when it has begun."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outside:
    """What a leader works with."""

    settings: Settings
    client: KubeClient
    epochs: Epochs
    clock: Clock
    metrics: Metrics
    kill_switch: KillSwitch


class LeaderDuty:
    """A leader's parts. `run` them once."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._settings = outside.settings
        self._queue: WorkQueue[VmKey] = WorkQueue()
        self._stop = asyncio.Event()
        self._pulse = Pulse(outside.clock, outside.settings.resync_seconds)
        self.picture = Picture(
            outside.clock,
            look_at=self._queue.add,
            wake_scheduler=lambda: self._scheduler.wake(),  # noqa: PLW0108 - made below
            host_reported=lambda name: self._scheduler.host_reported(name),  # noqa: PLW0108 - the same
        )
        outside.metrics.registry.register(
            Observed(self.picture, self._backlog, self._pulse.ages, self._settings.vm_series_limit)
        )
        self.picture.patient = outside.settings.start_over
        writer = KubeVmWriter(outside.client, outside.kill_switch)
        reader = KubeReader(outside.client)
        self._recorder = EventRecorder(outside.client, outside.clock, outside.settings.identity)
        self._scheduler = Scheduler(
            picture=self.picture,
            writer=writer,
            reader=reader,
            epochs=outside.epochs,
            clock=outside.clock,
            metrics=outside.metrics,
            look_at=self._queue.add,
            patience=outside.settings.patience,
            policy=outside.settings.policy,
        )
        self._controller = Controller(
            picture=self.picture,
            writer=writer,
            reader=reader,
            recorder=self._recorder,
            clock=outside.clock,
            metrics=outside.metrics,
            submit=self._scheduler.submit,
            withdraw=self._scheduler.withdraw,
        )

    def problem(self) -> str | None:
        """Say why this leader is of no use now; None where it is."""
        return self._pulse.problem(self._queue.oldest_seconds())

    async def run(self) -> None:
        """Lead until cancelled.

        Raises:
            ExceptionGroup: of NotLeaderError where this operator may not write any more, of others
                where a task broke.
        """
        self.picture.watch.began_to_lead()
        await self._await_kinds()
        try:
            with survivors_frozen():
                await self._run_tasks()
        finally:
            self._stop.set()
            self._queue.close()

    async def _run_tasks(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._measure_lag(), name="lag")
            # Ten thousand VMs are not listed twice at once: kopf, which lists by itself, begins when all is known.
            # Leases come before: hosts have to show that they are alive, which takes a while.
            kubeconfig, saw, stop = self._settings.kubeconfig, self._saw, self._stop
            namespace = self._settings.namespace
            begun = [self._follow(tasks, partial(follow_leases, kubeconfig, namespace, saw, stop))]
            await self._list_until_complete()
            begun.append(self._follow(tasks, partial(follow_cluster, kubeconfig, saw, stop)))
            await self._await_watches(begun)
            await self._take_up_epoch()
            tasks.create_task(self._scheduler.run(), name="scheduler")
            tasks.create_task(self._recorder.run(), name="events")
            tasks.create_task(self._judge_hosts(), name="hosts")
            tasks.create_task(self._list_again(), name="lists")
            for number in range(self._settings.workers):
                tasks.create_task(self._work(), name=f"worker-{number}")

    async def _await_kinds(self) -> None:
        """Wait until the API server knows our kinds.

        Kopf, told not to follow CRDs, looks for them once.
        """
        while True:
            try:
                for path in (NUMAVMS, NUMAHOSTS):
                    await self._outside.client.get(path, {"limit": "1"})
            except NotFoundError:
                log.warning("waiting_for_crds")
            except NumaVMError as error:
                log.warning("api_server_not_usable", error=str(error))
            else:
                return
            await asyncio.sleep(_RETRY_SECONDS)

    def _follow(self, tasks: asyncio.TaskGroup, watch: Watching) -> asyncio.Event:
        """Have kopf begin, which lists by itself and takes its time; return what is set when it has begun."""
        begun = asyncio.Event()
        tasks.create_task(_guarded(watch(begun)))
        return begun

    async def _await_watches(self, begun: list[asyncio.Event]) -> None:
        try:
            async with asyncio.timeout(_WATCHES_SECONDS):
                for one in begun:
                    await one.wait()
        except TimeoutError:
            log.warning("watches_not_ready", seconds=_WATCHES_SECONDS)

    def _saw(self, kind: Kind, raw: Mapping[str, Any], deleted: bool) -> None:  # noqa: FBT001 - a callback
        self._pulse.saw(kind)
        self.picture.saw(kind, raw, deleted=deleted)

    async def _take_up_epoch(self) -> None:
        """Lead under an epoch newer than any that a claim or a host knows of."""
        highest = self.picture.ledger.highest_epoch
        if highest >= self._outside.epochs.epoch:
            await self._outside.epochs.raise_epoch(highest + 1)
        log.info("leading", epoch=self._outside.epochs.epoch, numavms=len(self.picture.vms))

    async def _list_until_complete(self) -> None:
        while not self.picture.complete:
            try:
                await self._list()
            except NumaVMError as error:
                log.warning("list_failed", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _list(self) -> None:
        """Replace the picture. Hosts go first, so that no VM is looked at without its host."""
        paths = {
            Kind.PRIORITY_CLASS: PRIORITY_CLASSES,
            Kind.NODE: NODES,
            Kind.QUOTA: RESOURCE_QUOTAS,
            Kind.LEASE: leases(self._settings.namespace),
            Kind.HOST: NUMAHOSTS,
            Kind.VM: NUMAVMS,
        }
        news = {}
        for kind, path in paths.items():
            news[kind] = await self._list_kind(kind, path)
        self.picture.complete = True
        self._pulse.listed(news)
        self._outside.metrics.listed.set_to_current_time()

    async def _list_kind(self, kind: Kind, path: str) -> bool:
        """Replace all of a kind, a few objects at a time; tell whether there was anything new."""
        news, keys, version = False, set[Hashable](), 0
        async for page in list_pages(self._outside.client, path):
            if page.starts_over:
                keys.clear()
            for count, raw in enumerate(page.items):
                news |= self.picture.saw(kind, raw, deleted=False)
                keys.add(key_of(kind, raw))
                if count % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            version = page.resource_version
        self.picture.keep_only(kind, keys, version)
        return news

    async def _list_again(self) -> None:
        await asyncio.sleep(min(_SECOND_LIST_SECONDS, self._settings.resync_seconds))
        while True:
            try:
                await self._list()
            except NumaVMError as error:
                log.warning("list_failed", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                await asyncio.sleep(self._settings.resync_seconds)

    async def _judge_hosts(self) -> None:
        was_open = False
        while True:
            self._pulse.judged()
            self.picture.judge_hosts()
            is_open = self.picture.open_for_placement
            if is_open and not was_open:
                log.info("placing", hosts=len(self.picture.hosts))
                self._scheduler.wake()
            was_open = is_open
            await asyncio.sleep(_JUDGE_SECONDS)

    async def _measure_lag(self) -> None:
        loop, metrics = asyncio.get_running_loop(), self._outside.metrics
        while True:
            due, busy = loop.time() + _LAG_SECONDS, time.thread_time()
            await asyncio.sleep(_LAG_SECONDS)
            late = max(0.0, loop.time() - due)
            metrics.loop_lag_seconds.observe(late)
            # The rest is time in which the machine ran something else.
            metrics.loop_held_seconds.observe(min(late, time.thread_time() - busy))

    def _backlog(self) -> Backlog:
        return Backlog(len(self._queue), self._queue.oldest_seconds())

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            # Of ten thousand keys most need no request, and then nothing else here lets anybody have a turn.
            await asyncio.sleep(0)
            try:
                seconds = await self._controller.reconcile(key)
            except NotLeaderError:
                raise
            except Exception as error:  # noqa: BLE001 - the loop's edge: no VM's trouble is another's
                self._failed(key, error)
            else:
                self._queue.done(key)
                if seconds is not None:
                    self._queue.add_after(key, seconds)

    def _failed(self, key: VmKey, error: Exception) -> None:
        seconds = round(self._queue.failed(key), 1)
        self._outside.metrics.errors.labels(type(error).__name__).inc()
        if isinstance(error, ConflictError):
            log.debug("moved_on", numavm=str(key), error=str(error))
        elif isinstance(error, NumaVMError):
            log.warning("reconcile_failed", numavm=str(key), error=str(error), again_in=seconds)
        else:
            log.error("reconcile_broke", numavm=str(key), again_in=seconds, exc_info=error)


async def _guarded(watching: Any) -> None:  # noqa: ANN401 - any awaitable
    """Run kopf; that it ends by itself is an error."""
    await watching
    raise NumaVMError("kopf has ended")
