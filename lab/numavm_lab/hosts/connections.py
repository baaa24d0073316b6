"""Keeps a few ssh connections to a host open, and gives each to one command at a time.

A kept connection saves the key exchange, which costs an emulated CPU half a second. Only one
command uses it at a time: dropbear 2022.83, Debian 12's, may close a new session of a connection
when the process of another session in it ends (mkj/dropbear issue 173). Connections are made one
after the other, since dropbear drops a client with more than five that are not yet authenticated.
The locks are files, so commands of other processes count too.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Semaphore

from filelock import FileLock, Timeout

from numavm_lab.errors import ProcessFailedError
from numavm_lab.hosts.ssh import KeptSsh, Ssh
from numavm_lab.state import ProcessTable

_COUNT = 4
_CONNECT_SECONDS = 60.0
_POLL_SECONDS = 0.1


class Connections:
    """The kept connections to one host, below its directory."""

    def __init__(self, directory: Path, table: ProcessTable) -> None:
        self._directory = directory
        self._table = table
        self._here = Semaphore(_COUNT)
        """Threads of this process wait here, not by looking at the locks again and again."""

    @contextmanager
    def borrow(self, ssh: Ssh) -> Iterator[KeptSsh]:
        """Give a kept connection that nobody else uses, made now where all of them are in use.

        Where as many as there may be are in use, waits for one.

        Raises:
            ProcessFailedError: The host does not let ssh in.
        """
        with self._here, self._free_slot() as number:
            kept = ssh.through(self._directory / f"ssh-{number}.sock")
            if not self._is_open(number, kept):
                self._open(number, kept)
            try:
                yield kept
            except BaseException:
                # The command may go on inside; when it ends it must not meet the next one's session.
                self._table.stop(_name(number), grace_seconds=1)
                raise

    @contextmanager
    def _free_slot(self) -> Iterator[int]:
        while True:
            # In order, so that no more are made than are needed at once.
            for number in range(_COUNT):
                lock = FileLock(self._directory / f"ssh-{number}.lock")
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                try:
                    yield number
                finally:
                    lock.release()
                return
            time.sleep(_POLL_SECONDS)

    def _is_open(self, number: int, ssh: KeptSsh) -> bool:
        return self._table.is_alive(_name(number)) and ssh.control.exists()

    def _open(self, number: int, ssh: KeptSsh) -> None:
        with FileLock(self._directory / "ssh-open.lock", timeout=_CONNECT_SECONDS * _COUNT):
            self._table.stop(_name(number))
            ssh.control.unlink(missing_ok=True)
            self._table.spawn(_name(number), ssh.master_argv())
            deadline = time.monotonic() + _CONNECT_SECONDS
            while time.monotonic() < deadline and self._table.is_alive(_name(number)):
                # The socket is there once the connection is authenticated.
                if ssh.control.exists():
                    return
                time.sleep(_POLL_SECONDS)
        raise ProcessFailedError(f"ssh does not connect:\n{self._table.tail(_name(number))}")


def _name(number: int) -> str:
    return f"ssh-{number}"
