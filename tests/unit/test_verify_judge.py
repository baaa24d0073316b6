"""The verdict on real QEMU processes, as a two-cell lab host's kernel described them, and on what could go wrong.

`data/qemu_process/*` are numa_maps, maps (both without shared libraries) and the threads' status of paused domains
rendered from specs as below: two guest cells of 128Mi, vCPUs on CPUs 1 and 5, the emulator wide.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from numavm_agent.domain.pins import Pins
from numavm_agent.verify.judge import Verdict, thread_problems, verify
from numavm_agent.verify.parsers import (
    MemoryMapping,
    Policy,
    ThreadState,
    UnreadableProcFile,
    parse_mappings,
    parse_numa_stat,
    parse_task_status,
)
from numavm_api.conditions import Reason
from numavm_api.cpuset import CpuSet
from numavm_api.effective import effective
from numavm_api.quantity import MEBIBYTE, Bytes
from support.domains import claim_for, facts_of, interleaved, spec_of

DATA = Path(__file__).parent / "data" / "qemu_process"
CELL = Bytes(128 * MEBIBYTE)
HUGE = Bytes(2 * MEBIBYTE)


class Process:
    """What the kernel said of one QEMU."""

    def __init__(self, name: str, mode: str = "Strict", pages: str | None = None) -> None:
        directory = DATA / name
        self.mappings = parse_mappings(
            (directory / "numa_maps").read_text(), (directory / "maps").read_text()
        )
        texts = (directory / "threads").read_text().split("Name:")[1:]
        self.threads = [parse_task_status(f"Name:{text}") for text in texts]
        hugepages = {"hugepages": {"pageSize": pages}} if pages else {}
        cells = [
            {"id": cell, "cpus": str(cell), "memory": "128Mi", "hostBinding": {"mode": mode}}
            | hugepages
            for cell in (0, 1)
        ]
        self.spec = spec_of({"cpu": {"sockets": 2, "cores": 1, "numa": {"cells": cells}}})
        self.placement = claim_for(effective(self.spec), facts_of(2, cpus=4))
        self.pins = Pins(
            vcpus={
                thread.vcpu: thread.allowed for thread in self.threads if thread.vcpu is not None
            },
            emulator=CpuSet.parse("0-7"),
        )

    def verdict(self, mappings: tuple[MemoryMapping, ...] | None = None) -> Verdict:
        """Return the verdict on it, or on what its mappings might have been."""
        seen = self.mappings if mappings is None else mappings
        vm = effective(self.spec)
        return verify(self.placement, vm, self.pins, self.threads, seen, "2026-01-01T00:00:00Z")

    def guest_memory(self) -> list[MemoryMapping]:
        """Cell 0 first: it is mapped first, and the kernel maps downwards."""
        found = [one for one in self.mappings if one.size == CELL and one.permissions[:2] == "rw"]
        return sorted(found, key=lambda one: one.start, reverse=True)

    def with_cell(self, cell: int, **changes: object) -> tuple[MemoryMapping, ...]:
        """Return its mappings with the memory of one guest cell changed."""
        wrong = self.guest_memory()[cell]
        changed = replace(wrong, **changes)  # type: ignore[arg-type]  # fields by name
        return tuple(changed if one is wrong else one for one in self.mappings)


@pytest.mark.parametrize(
    ("name", "mode", "pages"),
    [
        ("anon-kvm", "Strict", None),
        ("huge-kvm", "Strict", "2Mi"),
        ("memfd-tcg", "Strict", None),
        ("pref-tcg", "Preferred", None),
    ],
)
def test_a_process_as_promised(name: str, mode: str, pages: str | None) -> None:
    verdict = Process(name, mode, pages).verdict()

    assert verdict.problems == ()
    assert verdict.reason is Reason.KERNEL_CONFIRMS
    assert [{one.host_cell: one.bytes for one in cell.resident} for cell in verdict.numa.cells] == [
        {0: CELL},
        {1: CELL},
    ]
    assert all(cell.aligned and cell.pinned for cell in verdict.numa.cells)


def test_pcpus_in_the_status_are_the_kernels_word() -> None:
    verdict = Process("anon-kvm").verdict()

    assert [str(cell.pcpus) for cell in verdict.numa.cells] == ["1", "5"]


def test_restrictive_memory_that_one_thread_allocated_on_one_cell_is_not_aligned() -> None:
    """Measured: nothing but the cgroup binds it, and that is the whole VM's."""
    verdict = Process("restr-tcg", "Restrictive").verdict()

    assert verdict.reason is Reason.PAGES_MISPLACED
    assert verdict.message == "guest cell 0: 128Mi on host cell 1 instead of on 0"
    assert [cell.aligned for cell in verdict.numa.cells] == [False, True]


def test_pages_on_the_wrong_cell() -> None:
    process = Process("anon-kvm")
    some = Bytes(4096 * 10)

    verdict = process.verdict(process.with_cell(1, resident={0: some, 1: Bytes(CELL - some)}))

    assert verdict.reason is Reason.PAGES_MISPLACED
    assert verdict.message == "guest cell 1: 40Ki on host cell 0 instead of on 1"


def test_pages_that_are_not_there() -> None:
    process = Process("anon-kvm")

    verdict = process.verdict(process.with_cell(0, resident={0: Bytes(CELL // 2)}))

    assert verdict.reason is Reason.PAGES_MISSING
    assert verdict.message == "guest cell 0: 64Mi of 128Mi are resident"


def test_a_policy_that_somebody_changed() -> None:
    process = Process("anon-kvm")

    verdict = process.verdict(process.with_cell(1, policy=Policy.DEFAULT, nodes=CpuSet()))

    assert verdict.reason is Reason.PAGES_MISPLACED
    assert "its memory policy is default:, promised Strict on 1" in verdict.message


def test_small_pages_where_huge_ones_were_promised() -> None:
    process = Process("huge-kvm", pages="2Mi")

    verdict = process.verdict(process.with_cell(0, page_size=Bytes(4096)))

    assert verdict.message == "guest cell 0: its pages have 4Ki, promised 2Mi"


def test_memory_that_cannot_be_found() -> None:
    process = Process("memfd-tcg")
    gone = process.guest_memory()[0]

    verdict = process.verdict(tuple(one for one in process.mappings if one is not gone))

    assert verdict.reason is Reason.PAGES_MISSING
    assert sum(not cell.aligned for cell in verdict.numa.cells) == 1


def test_a_block_that_the_kernel_split_is_still_one() -> None:
    process = Process("anon-kvm")
    whole = process.guest_memory()[0]
    half = Bytes(CELL // 2)
    low = replace(whole, size=half, resident={0: half})
    high = replace(low, start=whole.start + half)

    verdict = process.verdict(
        tuple(
            part for one in process.mappings for part in ((low, high) if one is whole else (one,))
        )
    )

    assert verdict.problems == ()


def test_two_blocks_swapped_by_a_migration_are_told_apart_by_their_policies() -> None:
    """Both cells are equal in size: which block is whose shows in the policy, and where its pages are is then wrong."""
    process = Process("anon-kvm")
    first, second = process.guest_memory()
    moved = {first.start: {1: CELL}, second.start: {0: CELL}}

    verdict = process.verdict(
        tuple(replace(one, resident=moved.get(one.start, one.resident)) for one in process.mappings)
    )

    assert [cell.aligned for cell in verdict.numa.cells] == [False, False]


def test_a_vm_without_cells_that_spans_host_cells_is_told_so() -> None:
    spec = spec_of({"memory": {"guest": "128Mi"}})
    placement = interleaved(claim_for(effective(spec), facts_of(2)), CpuSet.of(0, 1))
    block = replace(
        Process("anon-kvm").guest_memory()[0],
        policy=Policy.INTERLEAVE,
        nodes=CpuSet.of(0, 1),
        resident={0: Bytes(CELL // 2), 1: Bytes(CELL // 2)},
    )
    cpus = CpuSet.of(1, 9)
    pins = Pins(vcpus={0: cpus, 1: cpus}, emulator=cpus)
    threads = [ThreadState(vcpu, f"CPU {vcpu}/KVM", cpus) for vcpu in (0, 1)]

    verdict = verify(placement, effective(spec), pins, threads, [block], "now")

    assert verdict.reason is Reason.SPANS_CELLS
    assert verdict.numa.cells[0].aligned


TWO_VCPUS = effective(spec_of({"cpu": {"cores": 2}}))
PINS = Pins(vcpus={0: CpuSet.of(2), 1: CpuSet.of(3)}, emulator=CpuSet.of(0, 1))
GOOD = (
    ThreadState(100, "qemu-system-x86", CpuSet.of(0, 1)),
    ThreadState(101, "CPU 0/KVM", CpuSet.of(2)),
    ThreadState(102, "CPU 1/KVM", CpuSet.of(3)),
    ThreadState(103, "TC tc-ram-node0", CpuSet.of(1)),
)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (ThreadState(101, "CPU 0/KVM", CpuSet.of(2, 3)), "vCPU 0 may run on CPUs 2-3, promised 2"),
        (ThreadState(101, "CPU 0/KVM", CpuSet.of(3)), "vCPU 0 may run on CPUs 3, promised 2"),
        (ThreadState(101, "worker", CpuSet.of(0)), "vCPU 0 has no thread"),
        (
            ThreadState(103, "CPU 2/TCG", CpuSet.of(3)),
            "vCPU 2 has a thread, but no CPU was promised to it",
        ),
        (
            ThreadState(103, "kvm-nx-lpage-re", CpuSet.of(2, 4)),
            "thread 103 (kvm-nx-lpage-re) may run on 2,4, promised 0-3",
        ),
        (
            ThreadState(103, "worker", CpuSet.of(1, 2)),
            "thread 103 (worker) may run on 1-2, promised 0-1",
        ),
    ],
)
def test_threads_that_are_not_where_they_should_be(wrong: ThreadState, message: str) -> None:
    threads = [wrong if one.tid == wrong.tid else one for one in GOOD]

    assert thread_problems(PINS, GOOD, TWO_VCPUS) == ()
    assert [one.message for one in thread_problems(PINS, threads, TWO_VCPUS)] == [message]


def test_a_thread_that_kvm_made_may_be_where_the_vcpu_is_that_ran_first() -> None:
    worker = ThreadState(104, "kvm-nx-lpage-re", CpuSet.of(2))

    assert thread_problems(PINS, (*GOOD, worker), TWO_VCPUS) == ()


def test_a_vcpu_that_is_off_needs_no_thread_and_is_watched_once_it_has_one() -> None:
    vm = effective(spec_of({"cpu": {"vcpus": 1}}))
    boot = [one for one in GOOD if one.vcpu != 1]
    plugged = [*boot, ThreadState(102, "CPU 1/KVM", CpuSet.of(2, 3))]

    assert thread_problems(PINS, boot, vm) == ()
    assert [one.message for one in thread_problems(PINS, plugged, vm)] == [
        "vCPU 1 may run on CPUs 2-3, promised 3"
    ]


def test_the_scheduling_that_the_kernel_shows_is_held_against_the_promise() -> None:
    cpu = {"dedicatedCpuPlacement": True, "realtime": {"mask": "1", "priority": 7}}
    vm = effective(spec_of({"cpu": cpu}))
    fifo = [replace(one, scheduling="SCHED_FIFO 7") if one.vcpu == 1 else one for one in GOOD]
    both = [replace(one, scheduling="SCHED_FIFO 7") for one in GOOD]

    assert thread_problems(PINS, fifo, vm) == ()
    assert [one.message for one in thread_problems(PINS, GOOD, vm)] == [
        "vCPU 1 runs under SCHED_OTHER, promised SCHED_FIFO 7"
    ]
    assert [one.message for one in thread_problems(PINS, both, vm)] == [
        "vCPU 0 runs under SCHED_FIFO 7, promised SCHED_OTHER"
    ]


def test_scheduling_and_locked_memory_are_read_as_proc_has_them() -> None:
    """The line is of a Linux 6.1 kernel: fields 40 and 41 of proc(5) are the priority and the policy."""
    status = "Name:\tCPU 1/KVM\nPid:\t812\nVmLck:\t  262144 kB\nCpus_allowed_list:\t3\n"
    stat = (
        "812 (CPU 1/KVM) S 1 811 811 0 -1 4194368 52 0 0 0 3 1 0 0 -8 0 4 0 1234 700000000 9000"
        " 18446744073709551615 1 1 0 0 0 0 268444224 4096 16963 0 0 0 -1 3 7 1 0 0 0 0 0 0 0 0 0 0 0"
    )

    thread = parse_task_status(status, stat)

    assert thread.scheduling == "SCHED_FIFO 7"
    assert thread.locked == 256 * 2**20


def test_memory_that_should_be_locked_and_is_not_is_told() -> None:
    spec = spec_of({"memory": {"backing": {"locked": True}}})
    vm, placement = effective(spec), claim_for(effective(spec), facts_of(1))
    locked = [replace(one, locked=vm.memory) for one in GOOD]

    def told(threads: Sequence[ThreadState]) -> list[str]:
        problems = verify(placement, vm, PINS, threads, [], "now").problems
        return [one.message for one in problems if "locked" in one.message]

    assert told(locked) == []
    assert told(GOOD) == ["0 of the process are locked, promised 64Mi"]


@pytest.mark.parametrize(
    ("line", "policy", "nodes"),
    [
        ("7f00 default anon=1 N0=1", Policy.DEFAULT, ""),
        ("7f00 prefer:1 anon=1", Policy.PREFER, "1"),
        ("7f00 prefer (many):0-1", Policy.PREFER_MANY, "0-1"),
        ("7f00 bind=static:0,2-3 anon=1", Policy.BIND, "0,2-3"),
        ("7f00 interleave:0-1 anon=1", Policy.INTERLEAVE, "0-1"),
        ("7f00 weighted interleave:0-1", Policy.WEIGHTED_INTERLEAVE, "0-1"),
        ("7f00 local", Policy.LOCAL, ""),
    ],
)
def test_every_policy_of_the_kernel(line: str, policy: Policy, nodes: str) -> None:
    (found,) = parse_mappings(line, "7f00-8f00 rw-p 00000000 00:00 0 ")

    assert (found.policy, str(found.nodes), found.size) == (policy, nodes, 0x1000)


def test_a_mapping_that_went_between_two_readings_is_left_out() -> None:
    assert parse_mappings("7f00 default", "8f00-9f00 rw-p 00000000 00:00 0 ") == ()


@pytest.mark.parametrize(
    ("numa_maps", "maps"), [("nonsense", ""), ("7f00 quantum:0", ""), ("", "nonsense")]
)
def test_unknown_lines_are_not_guessed_at(numa_maps: str, maps: str) -> None:
    with pytest.raises(UnreadableProcFile, match="cannot read the line"):
        parse_mappings(numa_maps, maps)


def test_numa_stat_of_both_cgroup_versions() -> None:
    assert parse_numa_stat("anon N0=4096 N1=0\nfile N0=8192 N1=1\n") == {
        "anon": {0: 4096, 1: 0},
        "file": {0: 8192, 1: 1},
    }
    assert parse_numa_stat("total=3 N0=1 N1=2\n") == {"total": {0: 1, 1: 2}}


FILES = """\
7f0df7ffe000 bind:0 file=/var/lib/libvirt/qemu/ram/1-default_vm_c7a5fdbd/ram-node1 anon=16384 dirty=16384 active=1 N0=16384 kernelpagesize_kB=4
7f0dfbfff000 bind:1 file=/var/lib/libvirt/qemu/ram/1-default_vm_c7a5fdbd/ram-node0 anon=16384 dirty=16384 active=1 N1=16384 kernelpagesize_kB=4
"""  # noqa: E501 - lines of the kernel
FILE_MAPS = """\
7f0df7ffe000-7f0dfbffe000 rw-p 00000000 08:01 1311 /var/lib/libvirt/qemu/ram/1-default_vm_c7a5fdbd/ram-node1
7f0dfbfff000-7f0dfffff000 rw-p 00000000 08:01 1310 /var/lib/libvirt/qemu/ram/1-default_vm_c7a5fdbd/ram-node0
"""


def test_memory_in_files_is_found_by_libvirts_names_for_them() -> None:
    """Measured with libvirt 9.0 and QEMU 7.2: private pages of a file obey the policy."""
    cells = [
        {
            "id": cell,
            "cpus": str(cell),
            "memory": "64Mi",
            "hostBinding": {"hostCells": str(1 - cell)},
        }
        for cell in (0, 1)
    ]
    backing = {"backing": {"source": "File"}}
    spec = spec_of({"cpu": {"cores": 2, "numa": {"cells": cells}}, "memory": backing})
    placement = claim_for(effective(spec), facts_of(2))

    numa = verify(
        placement, effective(spec), PINS, GOOD, parse_mappings(FILES, FILE_MAPS), "now"
    ).numa

    assert [(one.aligned, one.resident[0].host_cell) for one in numa.cells] == [
        (True, 1),
        (True, 0),
    ]
