"""What the kernel says of a QEMU process, understood. Pure.

Formats: Documentation/filesystems/proc.rst (maps, numa_maps, status) and admin-guide/cgroup-v2.rst
    of the kernel; the policies are those of mpol_to_str() in mm/mempolicy.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from numavm_api.cpuset import CpuSet
from numavm_api.quantity import BASE_PAGE, KIBIBYTE, Bytes

_VCPU_NAME: Final = re.compile(r"CPU (?P<vcpu>\d+)/(?:KVM|TCG)")
_IO_THREAD_NAME: Final = re.compile(r"IO iothread(?P<id>\d+)")
"""QEMU's name for the thread of an iothread object that libvirt named (iothread_complete() in iothread.c)."""
_KVM_WORKERS: Final = frozenset({"kvm-nx-lpage-re"})
"""The kernel's name, cut to 15 characters, for the thread of a KVM process that gives huge pages back their rights to
execute (kvm-nx-lpage-recovery in arch/x86/kvm/mmu/mmu.c). Since Linux 6.13 it is a thread of the process itself, made
by the first vCPU that runs, with that vCPU's affinity."""
_POLICY: Final = re.compile(
    r"(?P<start>[0-9a-f]+) "
    r"(?P<mode>default|local|prefer \(many\)|prefer|bind|weighted interleave|interleave)"
    r"(?:=[a-z|]+)?(?::(?P<nodes>[0-9,-]+))?(?P<rest>(?: .*)?)"
)
_RANGE: Final = re.compile(
    r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<permissions>\S{4}) [0-9a-f]+ "
    r"(?P<device>\S+) (?P<inode>\d+)\s*(?P<name>.*)"
)


OTHER: Final = "SCHED_OTHER"
NOTHING: Final = Bytes(0)
_SCHEDULERS: Final = {0: OTHER, 1: "SCHED_FIFO", 2: "SCHED_RR", 3: "SCHED_BATCH", 5: "SCHED_IDLE"}


class UnreadableProcFile(ValueError):  # noqa: N818 - reads as a sentence after `raises`
    """A file of the kernel has another form than the kernel documents."""


class Policy(StrEnum):
    """The kernel's memory policies, in its own words."""

    DEFAULT = "default"
    LOCAL = "local"
    PREFER = "prefer"
    PREFER_MANY = "prefer (many)"
    BIND = "bind"
    INTERLEAVE = "interleave"
    WEIGHTED_INTERLEAVE = "weighted interleave"


@dataclass(frozen=True, slots=True)
class ThreadState:
    """A thread and where it may run."""

    tid: int
    name: str
    allowed: CpuSet
    scheduling: str = OTHER
    """`SCHED_FIFO 1` for a realtime thread with its priority, else the policy's name."""
    locked: Bytes = NOTHING
    """Memory of its process that cannot be swapped out."""

    @property
    def vcpu(self) -> int | None:
        """The vCPU that this thread runs; None: it belongs to the emulator."""
        found = _VCPU_NAME.fullmatch(self.name)
        return int(found["vcpu"]) if found else None

    @property
    def is_kvm_worker(self) -> bool:
        """Whether KVM itself made the thread, for its own work on the guest's page tables."""
        return self.name in _KVM_WORKERS

    @property
    def io_thread(self) -> int | None:
        """The I/O thread that this is; None: it is none."""
        found = _IO_THREAD_NAME.fullmatch(self.name)
        return int(found["id"]) if found else None


@dataclass(frozen=True, slots=True)
class MemoryMapping:
    """A range of a process's memory."""

    start: int
    size: Bytes
    permissions: str
    """`rw-p`, `rw-s` …."""
    name: str
    """File or kind; empty for plain anonymous memory."""
    inode: int
    """Of the file; 0 for anonymous memory."""
    policy: Policy
    nodes: CpuSet
    """Host cells that the policy names."""
    page_size: Bytes
    resident: Mapping[int, Bytes]
    """Host cell -> bytes resident there."""

    @property
    def end(self) -> int:
        """First address after it."""
        return self.start + self.size


def parse_task_status(status: str, stat: str | None = None) -> ThreadState:
    """Return what `/proc/PID/task/TID/status` says of a thread, and `stat` beside it of its scheduling.

    Raises:
        UnreadableProcFile: its number, name or CPUs are missing.
    """
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    try:
        return ThreadState(
            tid=int(fields["Pid"]),
            name=fields["Name"].strip(),
            allowed=CpuSet.parse(fields["Cpus_allowed_list"]),
            scheduling=OTHER if stat is None else _scheduling(stat),
            locked=Bytes(int(fields.get("VmLck", "0 kB").split()[0]) * KIBIBYTE),
        )
    except KeyError as error:
        raise UnreadableProcFile(f"status of a thread: no line {error}") from error


def _scheduling(stat: str) -> str:
    """Return policy and realtime priority: fields 41 and 40 of proc(5)'s stat; names are those of sched(7)."""
    after_name = stat.rpartition(")")[2].split()
    try:
        priority, policy = int(after_name[37]), int(after_name[38])
    except (IndexError, ValueError) as error:
        raise UnreadableProcFile(f"stat of a thread: cannot read {stat!r}") from error
    name = _SCHEDULERS.get(policy, f"policy {policy}")
    return f"{name} {priority}" if priority else name


def parse_mappings(numa_maps: str, maps: str) -> tuple[MemoryMapping, ...]:
    """Return a process's mappings, by address, from its `numa_maps` and its `maps`.

    Only `maps` says how large a mapping is. The two are read one after the other: a mapping that
    only one of them has came or went meanwhile, and is left out; guest memory does neither.

    Raises:
        UnreadableProcFile: a line has another form than the kernel documents.
    """
    ranges = {int(found["start"], 16): found for found in _lines(_RANGE, maps, "maps")}
    return tuple(
        _mapping(ranges[start], found)
        for found in _lines(_POLICY, numa_maps, "numa_maps")
        if (start := int(found["start"], 16)) in ranges
    )


def parse_numa_stat(text: str) -> dict[str, dict[int, int]]:
    """Return `memory.numa_stat` or `hugetlb.<size>.numa_stat`: counter -> host cell -> amount.

    Both forms are read: `anon N0=4096 N1=0` of cgroup v2, `total=1 N0=1` of v1, whose memory
    counters are pages and whose hugetlb counters are bytes; the reader knows which it opened.
    """
    found: dict[str, dict[int, int]] = {}
    for line in text.splitlines():
        name, *pairs = line.split()
        found[name.split("=")[0]] = _per_cell(pairs)
    return found


def _lines(pattern: re.Pattern[str], text: str, file: str) -> Iterator[re.Match[str]]:
    for line in text.splitlines():
        found = pattern.fullmatch(line)
        if found is None:
            raise UnreadableProcFile(f"{file}: cannot read the line {line!r}")
        yield found


def _mapping(place: re.Match[str], found: re.Match[str]) -> MemoryMapping:
    words = found["rest"].split()
    page_size = _page_size(words)
    return MemoryMapping(
        start=int(place["start"], 16),
        size=Bytes(int(place["end"], 16) - int(place["start"], 16)),
        permissions=place["permissions"],
        name=place["name"],
        inode=int(place["inode"]),
        policy=Policy(found["mode"]),
        nodes=CpuSet.parse(found["nodes"] or ""),
        page_size=page_size,
        resident={
            cell: Bytes(pages * page_size) for cell, pages in _per_cell(words).items() if pages
        },
    )


def _page_size(words: list[str]) -> Bytes:
    for word in words:
        key, _, value = word.partition("=")
        if key == "kernelpagesize_kB":
            return Bytes(int(value) * KIBIBYTE)
    return BASE_PAGE


def _per_cell(words: list[str]) -> dict[int, int]:
    pairs = (word.partition("=") for word in words)
    return {
        int(key[1:]): int(value)
        for key, _, value in pairs
        if key[:1] == "N" and key[1:].isdigit() and value.isdigit()
    }
