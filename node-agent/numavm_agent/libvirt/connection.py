"""A connection to libvirtd that is made again whenever it is lost, and the event loop that feeds it.

libvirtd may be killed and come back at any time; QEMU processes outlive it. A call on a dead connection fails as
`HypervisorUnavailable`, and the next call opens a new one. Keepalive tells a hanging daemon from a busy one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final

import libvirt

from numavm_agent.errors import HypervisorUnavailable
from numavm_agent.libvirt.faults import agent_error, is_connection_lost
from numavm_api.errors import NumaVMError

KEEPALIVE_SECONDS: Final = 3
KEEPALIVE_COUNT: Final = 3

Connection = Any
"""A `libvirt.virConnect`; the binding ships no types."""


@cache
def start_event_loop() -> None:
    """Run libvirt's default event loop in a thread of its own; once per process, before the first connection opens."""
    libvirt.virEventRegisterDefaultImpl()
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # raised errors are enough
    threading.Thread(target=_run_events, name="libvirt-events", daemon=True).start()


def _run_events() -> None:
    while True:
        # A failing turn has told its story by a closed connection.
        with suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()


class ReconnectingConnection:
    """One connection, shared by threads; `prepare` is called on each new one before anybody uses it."""

    def __init__(
        self,
        uri: str,
        *,
        prepare: Callable[[Connection], None] = lambda _: None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._uri = uri
        self._prepare = prepare
        self._on_close = on_close
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    @contextmanager
    def use(
        self,
        doing: str,
        error_of: Callable[[libvirt.libvirtError, str], NumaVMError] = agent_error,
    ) -> Iterator[Connection]:
        """Give an open connection; libvirt's errors inside become the agent's, and a lost connection is let go.

        Raises:
            HypervisorUnavailable: libvirtd cannot be reached.
        """
        connection = self._opened(doing)
        try:
            yield connection
        except libvirt.libvirtError as error:
            if is_connection_lost(error) or not _is_alive(connection):
                self._drop(connection)
                text = f"{doing}: {error.get_error_message()}"
                raise HypervisorUnavailable(text) from error
            raise error_of(error, doing) from error

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(libvirt.libvirtError):
                connection.close()

    def _opened(self, doing: str) -> Connection:
        with self._lock:
            if self._connection is not None and not _is_alive(self._connection):
                self._connection = None
            if self._connection is None:
                self._connection = self._open(doing)
            return self._connection

    def _open(self, doing: str) -> Connection:
        start_event_loop()
        try:
            connection = libvirt.open(self._uri)
            with suppress(libvirt.libvirtError):  # drivers without a daemon have no keepalive
                connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
            with suppress(libvirt.libvirtError):
                connection.registerCloseCallback(self._closed, None)
            self._prepare(connection)
        except libvirt.libvirtError as error:
            text = f"{doing}: cannot open {self._uri}: {error.get_error_message()}"
            raise HypervisorUnavailable(text) from error
        return connection

    def _closed(self, connection: Connection, _reason: int, _opaque: object) -> None:
        self._drop(connection)
        self._on_close()

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            if self._connection is connection:
                self._connection = None


def _is_alive(connection: Connection) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False
