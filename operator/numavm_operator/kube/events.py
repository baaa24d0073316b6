"""Kubernetes events (events.k8s.io/v1), each told once: repeats make a series.

Owns the deduplication by object, reason and note. An event is a courtesy: it is sent in the
background, at most one at a time, and one that cannot be sent is logged and dropped. Repeats within
`SERIES_SECONDS` are counted and written together.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import structlog

from numavm_api.base import API_VERSION
from numavm_api.conditions import Reason
from numavm_api.errors import NumaVMError
from numavm_api.numavm import KIND
from numavm_operator.clock import Clock
from numavm_operator.errors import NotFoundError
from numavm_operator.kube.client import Json, KubeClient
from numavm_operator.kube.paths import events
from numavm_operator.objects import Vm
from numavm_operator.ports import EventType
from numavm_operator.timestamps import micro_timestamp

CONTROLLER: Final = "numavm.io/operator"
SERIES_SECONDS: Final = 60.0
"""How often at most a series is brought up to date."""
_FORGET_SECONDS: Final = 600.0
_MOST_REMEMBERED: Final = 4096
_LONGEST_NOTE: Final = 1024
_MOST_WAITING: Final = 1000

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Told:
    namespace: str
    name: str
    count: int
    last: float
    written: float


@dataclass(frozen=True, slots=True)
class _Create:
    namespace: str
    body: Json


@dataclass(frozen=True, slots=True)
class _Repeat:
    namespace: str
    name: str
    series: Json


class EventRecorder:
    """Publishes events. Run `run` as a task; `record` only queues."""

    def __init__(self, client: KubeClient, clock: Clock, instance: str) -> None:
        self._client = client
        self._clock = clock
        self._instance = instance[:128]
        self._told: OrderedDict[str, _Told] = OrderedDict()
        self._waiting: asyncio.Queue[_Create | _Repeat] = asyncio.Queue(_MOST_WAITING)

    def record(self, vm: Vm, kind: EventType, reason: Reason | str, action: str, note: str) -> None:
        """Have an event published, or counted where the same was lately."""
        now = self._clock.seconds()
        identity = hashlib.sha256(f"{vm.uid} {reason} {note}".encode()).hexdigest()[:16]
        told = self._told.get(identity)
        if told is not None and now - told.last < _FORGET_SECONDS:
            told.count += 1
            told.last = now
            if now - told.written >= SERIES_SECONDS:
                told.written = now
                self._queue(_Repeat(told.namespace, told.name, self._series(told.count)))
            return
        name = f"{vm.key.name[:220]}.{identity}.{int(now * 1000):x}"
        self._told[identity] = _Told(vm.key.namespace, name, 1, now, now)
        while len(self._told) > _MOST_REMEMBERED:
            self._told.popitem(last=False)
        body = self._body(vm, name, kind, str(reason), action, note)
        self._queue(_Create(vm.key.namespace, body))

    async def run(self) -> None:
        """Send what is queued, until cancelled."""
        while True:
            waiting = await self._waiting.get()
            try:
                await self._send(waiting)
            except NumaVMError as error:
                log.warning("event_dropped", error=str(error))

    def _queue(self, event: _Create | _Repeat) -> None:
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("event_dropped", error=f"{_MOST_WAITING} events are waiting already")

    async def _send(self, event: _Create | _Repeat) -> None:
        if isinstance(event, _Create):
            await self._client.post(events(event.namespace), event.body)
            return
        try:
            path = f"{events(event.namespace)}/{event.name}"
            await self._client.merge_patch(path, {"series": event.series})
        except NotFoundError:
            log.debug("event_expired", name=event.name)

    def _series(self, count: int) -> Json:
        return {"count": count, "lastObservedTime": micro_timestamp(self._clock.now())}

    def _body(
        self, vm: Vm, name: str, kind: EventType, reason: str, action: str, note: str
    ) -> Json:
        if len(note) > _LONGEST_NOTE:
            note = f"{note[: _LONGEST_NOTE - 1]}…"
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": vm.key.namespace, "name": name},
            "eventTime": micro_timestamp(self._clock.now()),
            "type": str(kind),
            "reason": reason,
            "action": action,
            "note": note,
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": vm.key.namespace,
                "name": vm.key.name,
                "uid": vm.uid,
                "resourceVersion": str(vm.resource_version),
            },
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
        }
