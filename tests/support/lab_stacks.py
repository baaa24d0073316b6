"""A whole of one's own on lab hosts: control plane, operator, agents; gone at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.hosts import HostSpec
from numavm_lab.progress import Progress
from numavm_lab.stack import Stack
from numavm_lab.state import processes_owned_by


@contextmanager
def lab_stack(hosts: Sequence[HostSpec], progress: Progress = print) -> Iterator[Stack]:
    """Give a running whole. Its directory is short: socket paths below it are limited to 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="nv-", dir="/tmp"))
    plane = ControlPlane(directory / "cluster", unsafe_no_fsync=True, progress=progress)
    made = Stack(directory, plane=plane, progress=progress)
    try:
        made.up(hosts)
        yield made
    finally:
        made.down()
        left = [process.cmdline() for process in processes_owned_by(directory)]
        shutil.rmtree(directory, ignore_errors=True)
        assert left == []
