"""The port `HostThreads` on Linux: affinities of threads that libvirt does not know, by sched_setaffinity(2)."""

from __future__ import annotations

import os
from contextlib import suppress

from numavm_api.cpuset import CpuSet


class LinuxHostThreads:
    """Threads of this process's own pid namespace; that of the host in a pod, by `hostPID`."""

    def allow_cpus(self, tid: int, cpus: CpuSet) -> None:
        """Hold a thread down to some host CPUs; it stays as it was where it has ended or the kernel forbids it.

        The kernel does where the thread's cgroup allows none of these CPUs.
        """
        with suppress(OSError):
            os.sched_setaffinity(tid, cpus)
