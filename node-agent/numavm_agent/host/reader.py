"""The port `HostReader` on the real host: /proc, /sys, libvirt's run and log directories.

QEMU's process is found by libvirt's pid file and proven by the UUID in its command line, so that a stale file names
nobody.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

from numavm_agent.kubelet.socket import kubelet_socket
from numavm_agent.topology.host import read_host
from numavm_agent.topology.kvm import KvmProbe, probe_kvm
from numavm_agent.topology.readings import HostTopology
from numavm_agent.topology.safe_paths import UnsafePath, check_host_file
from numavm_agent.verify.parsers import (
    MemoryMapping,
    ThreadState,
    parse_mappings,
    parse_numa_stat,
    parse_task_status,
)
from numavm_api.quantity import Bytes

LIBVIRT_RUN: Final = Path("run/libvirt/qemu")
LIBVIRT_LOGS: Final = Path("var/log/libvirt/qemu")
_BOOT_ID: Final = Path("proc/sys/kernel/random/boot_id")
_LOG_TAIL_BYTES: Final = 4096
_OWN_MEMORY: Final = ("anon", "shmem")
"""Of `memory.numa_stat` (cgroup v2): what cannot be given back; `file` would count disk images' page cache too."""
_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


class LinuxHostReader:
    """Linux, as seen below a root directory."""

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        kvm_probe_seconds: float = 60.0,
        kvm_probe: Callable[[str], KvmProbe] | None = None,
    ) -> None:
        self._root = root
        self._kvm_probe = kvm_probe or (lambda emulator: probe_kvm(emulator, kvm_probe_seconds))
        self._proc = root / "proc"

    def boot_id(self) -> str:
        """Return the kernel's boot id."""
        return (self._root / _BOOT_ID).read_text(encoding="ascii").strip()

    def topology(self) -> HostTopology:
        """Return CPUs, memory, huge pages and PCI devices as they are now."""
        return read_host(self._root)

    def probe_kvm(self, emulator: str) -> KvmProbe:
        """Run guest code under KVM and tell whether it really ran; takes seconds."""
        return self._kvm_probe(emulator)

    def kubelet_runs(self) -> bool:
        """Tell whether a kubelet hands out CPUs of this host: its pod resources socket is there."""
        return kubelet_socket(self._root) is not None

    def qemu_pid(self, name: str, uuid: str) -> int | None:
        """Return the process of a domain; None: there is none."""
        pid_file = self._root / LIBVIRT_RUN / f"{name}.pid"
        try:
            pid = int(pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return next((pid for pid in self._pids() if self._is_qemu_of(pid, uuid)), None)
        return pid if self._is_qemu_of(pid, uuid) else None

    def started_at(self, pid: int) -> float:
        """Return when a process started, in seconds since the epoch (proc(5): field 22 of stat, btime)."""
        stat_text = self._process_text(pid, "stat")
        ticks = int(stat_text.rpartition(")")[2].split()[19])
        booted = next(
            int(line.split()[1])
            for line in (self._proc / "stat").read_text(encoding="ascii").splitlines()
            if line.startswith("btime ")
        )
        return booted + ticks / _CLOCK_TICKS

    def threads(self, pid: int) -> tuple[ThreadState, ...]:
        """Return name, affinity and scheduling of each thread of a process; one that ends meanwhile is left out."""
        return tuple(parse_task_status(status, stat) for status, stat in self._task_texts(pid))

    def mappings(self, pid: int) -> tuple[MemoryMapping, ...]:
        """Return a process's numa_maps; walks its page tables, seconds on a terabyte."""
        return parse_mappings(self._process_text(pid, "numa_maps"), self._process_text(pid, "maps"))

    def own_memory(self, pid: int) -> dict[int, Bytes] | None:
        """Return a process's memory that cannot be given back, per host cell, from its cgroup; None: cgroup v1."""
        group = self._unified_group(pid)
        while group is not None and group.parts:
            try:
                text = (self._root / "sys/fs/cgroup" / group / "memory.numa_stat").read_text(
                    encoding="ascii"
                )
            except OSError:
                group = group.parent
                continue
            return _sum_of(parse_numa_stat(text))
        return None

    def last_log_line(self, name: str) -> str | None:
        """Return the last line libvirt wrote into a domain's log; None: there is none."""
        try:
            with (self._root / LIBVIRT_LOGS / f"{name}.log").open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - _LOG_TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return None
        return lines[-1] if lines else None

    def check_file(self, path: str) -> str | None:
        """Return why a file cannot be used without following a symbolic link; None: it can."""
        try:
            check_host_file(path)
        except UnsafePath as error:
            return str(error)
        return None

    def _pids(self) -> Iterator[int]:
        for entry in self._proc.iterdir():
            if entry.name.isdecimal():
                yield int(entry.name)

    def _is_qemu_of(self, pid: int, uuid: str) -> bool:
        try:
            words = (self._proc / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return any(flag == b"-uuid" and value == uuid.encode() for flag, value in pairwise(words))

    def _task_texts(self, pid: int) -> Iterator[tuple[str, str]]:
        try:
            tasks = list((self._proc / str(pid) / "task").iterdir())
        except OSError as error:
            raise ProcessLookupError(f"process {pid} has ended") from error
        for task in tasks:
            try:
                status = (task / "status").read_text(encoding="utf-8", errors="replace")
                yield status, (task / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue

    def _process_text(self, pid: int, name: str) -> str:
        try:
            return (self._proc / str(pid) / name).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise ProcessLookupError(f"/proc/{pid}/{name}: {error.strerror}") from error

    def _unified_group(self, pid: int) -> Path | None:
        for line in self._process_text(pid, "cgroup").splitlines():
            if line.startswith("0::/"):
                return Path(line.removeprefix("0::/"))
        return None


def _sum_of(numa_stat: dict[str, dict[int, int]]) -> dict[int, Bytes]:
    total: dict[int, Bytes] = {}
    for name in _OWN_MEMORY:
        for cell, amount in numa_stat.get(name, {}).items():
            total[cell] = Bytes(total.get(cell, 0) + amount)
    return total
