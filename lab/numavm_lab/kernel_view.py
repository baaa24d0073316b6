"""What a host's kernel says of one VM: where its threads may run and where its pages are.

Read with `sh`, `pgrep` and `/proc` alone, and with no code of the agent: so that what `status`
claims can be held against it. Formats from outside: proc(5), and the kernel's mpol_to_str() for
the policies in `/proc/PID/numa_maps`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from numavm_api.cpuset import CpuSet
from numavm_lab.errors import LabError

_SCRIPT = """
pid=$(pgrep -o -f -- "^[^ ]*qemu-system[^ ]* .*-uuid $1") || exit 3
echo "pid $pid"
for task in /proc/$pid/task/*; do
    allowed=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "$task/status")
    echo "thread $(cat "$task/comm")	$allowed"
done
echo maps
cat "/proc/$pid/numa_maps"
"""
_POLICY = re.compile(r"\b(bind|interleave|prefer)(?: \(many\))?(?:=[a-z|]+)?:([0-9,-]+)")
_PAGES = re.compile(r"\bN(\d+)=(\d+)")
_VCPU_THREAD = re.compile(r"CPU (\d+)/(?:KVM|TCG)")


class Runs(Protocol):
    """A place where a command can be run: a lab host, or this machine."""

    def exec(self, argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command and return its exit code and output."""


@dataclass(frozen=True, slots=True)
class GuestMapping:
    """A mapping with a NUMA policy of its own: guest memory, since QEMU's heap has none."""

    policy: str
    """`bind`, `interleave` or `prefer`."""
    nodeset: CpuSet
    resident_bytes: dict[int, int]
    """Resident bytes per host cell."""
    huge: bool


@dataclass(frozen=True, slots=True)
class KernelView:
    """Threads and guest memory of one QEMU process."""

    pid: int
    threads: dict[str, CpuSet]
    """Allowed CPUs by thread name; several threads of a name: what any of them may use."""
    mappings: tuple[GuestMapping, ...]

    def vcpu_affinity(self) -> dict[int, CpuSet]:
        """Return the allowed CPUs of each vCPU's thread."""
        found = {_VCPU_THREAD.fullmatch(name): cpus for name, cpus in self.threads.items()}
        return {int(match[1]): cpus for match, cpus in found.items() if match}

    def resident_bytes(self) -> dict[int, int]:
        """Return the guest memory that is resident on each host cell, in bytes."""
        total: dict[int, int] = {}
        for mapping in self.mappings:
            for cell, amount in mapping.resident_bytes.items():
                total[cell] = total.get(cell, 0) + amount
        return total


def kernel_view(host: Runs, uid: str) -> KernelView | None:
    """Return what the kernel says of the VM with this uid, or None where no such process runs.

    Raises:
        LabError: the host could not be asked.
    """
    done = host.exec(["sh", "-c", _SCRIPT, "kernel-view", uid], check=False)
    if done.returncode == 3:  # noqa: PLR2004 - the script's own code for "no such process"
        return None
    if done.returncode != 0:
        raise LabError(f"reading /proc of VM {uid}: exit code {done.returncode}\n{done.stderr}")
    return parse_kernel_view(done.stdout)


def parse_kernel_view(text: str) -> KernelView:
    """Return the view that the script's output describes."""
    head, _, maps = text.partition("\nmaps\n")
    pid = 0
    threads: dict[str, CpuSet] = {}
    for line in head.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "pid":
            pid = int(rest)
        elif kind == "thread":
            name, _, cpus = rest.partition("\t")
            threads[name] = threads.get(name, CpuSet()) | CpuSet.parse(cpus)
    mappings = (_mapping(line) for line in maps.splitlines())
    return KernelView(pid, threads, tuple(one for one in mappings if one is not None))


def _mapping(line: str) -> GuestMapping | None:
    policy = _POLICY.search(line)
    if policy is None:
        return None
    page = int(found[1]) * 1024 if (found := re.search(r"kernelpagesize_kB=(\d+)", line)) else 4096
    resident = {int(cell): int(pages) * page for cell, pages in _PAGES.findall(line)}
    return GuestMapping(policy[1], CpuSet.parse(policy[2]), resident, " huge" in line)
