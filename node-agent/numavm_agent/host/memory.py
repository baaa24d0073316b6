"""The port `HostMemory` on Linux: which host cells a domain may use, and moving its pages between them.

cgroup v2 only: there one file per group, `cpuset.mems`, says where its threads may allocate, and a write makes the
kernel rebind the policies of the process (Documentation/admin-guide/cgroup-v2.rst). Pages are moved by move_pages(2),
which has no wrapper in Python; it refuses host cells that `cpuset.mems` does not allow.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from numavm_api.cpuset import CpuSet
from numavm_api.errors import HostFaultError

_MOVE_PAGES: Final = {"x86_64": 279, "aarch64": 239}
"""Numbers of the system call (asm/unistd.h)."""
_MPOL_MF_MOVE_ALL: Final = 4
"""Also pages that other processes map, such as vhost-user's (uapi/linux/mempolicy.h)."""


class LinuxHostMemory:
    """Linux, as seen below a root directory."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._groups = root / "sys/fs/cgroup"
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._number = _MOVE_PAGES.get(platform.machine())

    def why_fixed(self) -> str | None:
        """Return why memory of running guests cannot be moved on this host; None: it can."""
        if self._number is None:
            return f"move_pages(2) is not known for {platform.machine()}"
        try:
            controllers = (self._groups / "cgroup.controllers").read_text(encoding="ascii")
        except OSError:
            return "the host has no cgroup v2 at /sys/fs/cgroup: boot it with systemd.unified_cgroup_hierarchy=1"
        if "cpuset" not in controllers.split():
            return "cgroup v2 has no cpuset controller on this host: it is still bound to cgroup v1"
        return None

    def allowed_cells(self, pid: int) -> Mapping[str, CpuSet]:
        """Return group -> host cells, outer groups first, of those of a domain that hold it down.

        Raises:
            ProcessLookupError: it has ended.
        """
        groups = set(self._groups_of(pid))
        # With cgroup v1 beside v2 every process is in v2's root, and below that directory lie v1's groups.
        if not groups or self._groups in groups or self.why_fixed() is not None:
            return {}
        top = Path(os.path.commonpath(groups))
        if len(groups) == 1 and top.name in ("emulator", "libvirt"):
            top = top.parent
        files = [top / "cpuset.mems", *sorted(top.rglob("cpuset.mems"))]
        found = {str(file.parent): _read(file) for file in files}
        return {group: cells for group, cells in found.items() if cells}

    def allow_cells(self, group: str, cells: CpuSet) -> None:
        """Hold a group's threads down to some host cells; pages elsewhere follow where the kernel does that.

        Raises:
            HostFaultError: the kernel refuses.
        """
        try:
            (Path(group) / "cpuset.mems").write_text(str(cells), encoding="ascii")
        except OSError as error:
            raise HostFaultError(f"{group}/cpuset.mems := {cells}: {error.strerror}") from error

    def move_pages(self, pid: int, addresses: Sequence[int], cells: Sequence[int]) -> list[int]:
        """Move the pages at some addresses of a process to a host cell each.

        Returns:
            Per address the host cell where its page now is, or a negative error number (move_pages(2)).

        Raises:
            ProcessLookupError: it has ended.
            HostFaultError: the kernel refuses.
        """
        return self._call(pid, addresses, array("i", cells))

    def cells_of(self, pid: int, addresses: Sequence[int]) -> list[int]:
        """Return per address the host cell of its page, or a negative error number: -2 (ENOENT), no page is there."""
        return self._call(pid, addresses, None)

    def _call(self, pid: int, addresses: Sequence[int], cells: array[int] | None) -> list[int]:
        count = len(addresses)
        pages = (ctypes.c_uint64 * count).from_buffer(array("Q", addresses))
        nodes = (ctypes.c_int * count).from_buffer(cells) if cells is not None else None
        # Where it finds no page at all, the kernel may leave this as it is.
        status = array("i", [-errno.ENOENT]) * count
        result = self._libc.syscall(
            ctypes.c_long(self._number or 0),
            ctypes.c_int(pid),
            ctypes.c_ulong(count),
            pages,
            nodes,
            (ctypes.c_int * count).from_buffer(status),
            ctypes.c_int(_MPOL_MF_MOVE_ALL if cells is not None else 0),
        )
        if result < 0:
            _raise(pid, ctypes.get_errno())
        return list(status)

    def _groups_of(self, pid: int) -> Iterator[Path]:
        try:
            tasks = list((self._proc / str(pid) / "task").iterdir())
        except OSError as error:
            raise ProcessLookupError(f"process {pid} has ended") from error
        for task in tasks:
            try:
                lines = (task / "cgroup").read_text(encoding="utf-8").splitlines()
            except OSError:
                continue
            for line in lines:
                if line.startswith("0::/"):
                    yield self._groups / line.removeprefix("0::/")


def _read(file: Path) -> CpuSet:
    try:
        return CpuSet.parse(file.read_text(encoding="ascii"))
    except OSError:
        return CpuSet()


def _raise(pid: int, number: int) -> None:
    """ENOENT says that no page needed to move."""
    if number == errno.ENOENT:
        return
    if number == errno.ESRCH:
        raise ProcessLookupError(f"process {pid} has ended")
    raise HostFaultError(f"move_pages of process {pid}: {os.strerror(number)}")
