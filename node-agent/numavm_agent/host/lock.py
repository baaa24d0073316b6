"""One agent per host: a file lock that the kernel lets go with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

_FILE: Final = "agent.lock"


@contextmanager
def only_agent(directory: Path) -> Iterator[None]:
    """Hold the host's agent lock; wait for another agent to end.

    Raises:
        OSError: the directory cannot be made, or the file not be opened.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            structlog.get_logger("agent").warning("another_agent_runs", lock=str(directory / _FILE))
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
