"""How long each vCPU thread ran and waited for a CPU, from /proc/PID/task/*/schedstat.

Format: Documentation/scheduler/sched-stats.rst of the kernel: nanoseconds on a CPU, nanoseconds waiting on a run queue,
number of time slices. QEMU names its threads `CPU N/KVM` or `CPU N/TCG`; emulation may use one thread for several.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from numavm_agent.verify.parsers import ThreadState
from numavm_api.cpuset import CpuSet

_NANOSECONDS: Final = 1e9


@dataclass(frozen=True, slots=True)
class VcpuTime:
    """One vCPU's thread."""

    vcpu: int
    run_seconds: float
    wait_seconds: float


def vcpu_times(pid: int, proc: Path = Path("/proc")) -> Iterator[VcpuTime]:
    """Yield the times of each vCPU thread of a process; none where it has ended."""
    try:
        tasks = sorted((proc / str(pid) / "task").iterdir())
    except OSError:
        return
    for task in tasks:
        try:
            name = (task / "comm").read_text(encoding="utf-8", errors="replace").strip()
            run, wait, _ = (task / "schedstat").read_text(encoding="ascii").split()
        except (OSError, ValueError):
            continue  # it has ended meanwhile, or the kernel has no schedstat
        vcpu = ThreadState(int(task.name), name, CpuSet()).vcpu
        if vcpu is not None:
            yield VcpuTime(vcpu, int(run) / _NANOSECONDS, int(wait) / _NANOSECONDS)
