"""Kubernetes events (events.k8s.io/v1), deduplicated: one object per thing that happens, its series counted.

Posted from a thread of its own: an event is news, not state, and nobody waits for it. When the queue is full or the
server says no, it is dropped.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Final

import structlog

from numavm_agent.kube.transport import ContentType, Document, Transport
from numavm_agent.ports import EventType, Regarding
from numavm_api.base import API_VERSION
from numavm_api.errors import NumaVMError

CONTROLLER: Final = "numavm.io/agent"
SERIES_SECONDS: Final = 600.0
"""The same news within this time is counted on the first event, not told anew."""
_QUEUED_MOST: Final = 256
_SERIES_MOST: Final = 1024
_NOTE_MOST: Final = 1024
_DEFAULT_NAMESPACE: Final = "default"
"""Where events about cluster-scoped objects live (events.k8s.io's rule)."""


@dataclass(frozen=True, slots=True)
class _News:
    regarding: Regarding
    kind: EventType
    reason: str
    action: str
    note: str

    @property
    def series_key(self) -> tuple[str, str, str]:
        return (self.regarding.uid, self.reason, self.note)


@dataclass(slots=True)
class _Series:
    path: str
    count: int
    last_seen: float


class EventRecorder:
    """Takes news and posts it, in the order in which it came."""

    def __init__(self, transport: Transport, node: str) -> None:
        self._transport = transport
        self._node = node
        self._queue: queue.Queue[_News | None] = queue.Queue(_QUEUED_MOST)
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._log = structlog.get_logger("events")
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begin to post."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Post what is queued, then end; at the latest after `timeout_seconds`."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(timeout_seconds)

    def post(
        self, regarding: Regarding, kind: EventType, reason: str, action: str, note: str
    ) -> None:
        """Queue one piece of news; returns at once."""
        news = _News(regarding, kind, reason, action, note[:_NOTE_MOST])
        try:
            self._queue.put_nowait(news)
        except queue.Full:
            self._log.warning("event_dropped", reason=reason, note=note)

    def _run(self) -> None:
        while (news := self._queue.get()) is not None:
            try:
                self._post(news)
            except NumaVMError as error:
                self._log.warning("event_not_posted", reason=news.reason, error=str(error))

    def _post(self, news: _News) -> None:
        now = monotonic()
        series = self._series.get(news.series_key)
        if series is not None and now < series.last_seen + SERIES_SECONDS:
            series.count += 1
            series.last_seen = now
            body = {"series": {"count": series.count, "lastObservedTime": _micro_time()}}
            self._transport.request(
                "PATCH", series.path, body=body, content_type=ContentType.MERGE_PATCH
            )
            return
        namespace = news.regarding.namespace or _DEFAULT_NAMESPACE
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        body = self._body(news, namespace)
        self._transport.request("POST", path, body=body)
        if len(self._series) >= _SERIES_MOST:
            self._series.clear()
        self._series[news.series_key] = _Series(f"{path}/{body['metadata']['name']}", 1, now)

    def _body(self, news: _News, namespace: str) -> Document:
        time = _micro_time()
        seed = "/".join((*news.series_key, time))
        suffix = hashlib.sha256(seed.encode()).hexdigest()[:16]
        about = news.regarding
        regarding = {
            "apiVersion": API_VERSION,
            "kind": about.kind,
            "name": about.name,
            "uid": about.uid,
        }
        if about.namespace:
            regarding["namespace"] = about.namespace
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": f"{about.name[:200]}.{suffix}"},
            "eventTime": time,
            "type": news.kind,
            "reason": news.reason,
            "action": news.action,
            "note": news.note,
            "regarding": regarding,
            "reportingController": CONTROLLER,
            "reportingInstance": f"numavm-agent-{self._node}"[:128],
        }


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
