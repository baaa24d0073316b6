"""A watch on this node's NumaVMs, as a hint only: whatever it says, the loop looks for itself.

A stream is asked for one minute: one that outlives that in silence is dead, and no longer gap can go unnoticed.
Bookmarks would tell a quiet stream from a dead one, but on etcd 3.4 an idle resource has none (measured).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Final

import structlog

from numavm_agent.errors import ApiUnavailable
from numavm_agent.kube.transport import Transport
from numavm_api.base import API_VERSION
from numavm_api.errors import NumaVMError
from numavm_api.numavm import PLURAL

_PATH: Final = f"/apis/{API_VERSION}/{PLURAL}"
SILENCE_SECONDS: Final = 75.0
_STREAM_SECONDS: Final = 60
_RETRY_SECONDS: Final = 2.0


class WatchHint:
    """Calls `wake` whenever one of this node's NumaVMs changes."""

    def __init__(
        self,
        transport: Transport,
        node: str,
        wake: Callable[[], None],
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self._transport = transport
        self._node = node
        self._wake = wake
        self._heard = heard
        self._stopped = threading.Event()
        self._log = structlog.get_logger("watch")
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Open no further stream; the thread ends with the process."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._stream()
            except NumaVMError as error:
                self._log.info("watch_broke", error=str(error))
                self._stopped.wait(_RETRY_SECONDS)

    def _stream(self) -> None:
        """Watch from what a list shows now.

        A watch without a version, or from 0, is refused by an API server on etcd 3.4 (measured with 1.37:
        "the required storage feature RequestWatchProgress is disabled").
        """
        selector = {"fieldSelector": f"status.nodeName={self._node}"}
        listed = self._transport.request("GET", _PATH, query={**selector, "limit": "1"})
        self._heard()
        self._wake()  # what changed before this version is the loop's to find
        query = {
            **selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": listed["metadata"]["resourceVersion"],
            "timeoutSeconds": str(_STREAM_SECONDS),
        }
        lines = self._transport.lines(_PATH, query=query, silence_seconds=SILENCE_SECONDS)
        for line in lines:
            kind = json.loads(line)["type"]
            if kind == "ERROR":
                raise ApiUnavailable(f"watch: {line[:500].decode(errors='replace')}")
            self._heard()
            if kind != "BOOKMARK":
                self._wake()
