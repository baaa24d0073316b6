"""Verification of memory modules and I/O threads, and what is told of a balloon and of modules that move."""

import pytest

from numavm_agent.domain.pins import Pins
from numavm_agent.reconcile.balloon_report import target_of
from numavm_agent.reconcile.module_reader import is_worth_telling
from numavm_agent.verify.judge import Verdict, verify
from numavm_agent.verify.module_figures import memory_now, module_figures
from numavm_agent.verify.parsers import MemoryMapping, Policy, ThreadState
from numavm_api.conditions import Reason
from numavm_api.cpuset import CpuSet
from numavm_api.effective import effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import MEBIBYTE, Bytes
from numavm_api.vm_status import BalloonStatus, ModuleStatus
from support.domains import claim_for, facts_of, spec_of

MODULES = [
    {"name": "d", "cell": 1, "size": "128Mi", "dimm": {}},
    {"name": "v", "cell": 0, "size": "256Mi", "virtioMem": {"requested": "128Mi"}},
    {"name": "n", "cell": 0, "size": "32Mi", "nvdimm": {"path": "/srv/n.img"}},
]
SPEC = spec_of(
    {
        "memory": {"maxGuest": "4Gi", "balloon": {"target": "96Mi", "statsPeriodSeconds": 5}},
        "devices": {"memory": MODULES},
        "ioThreads": {"count": 2},
    },
    cells=2,
)
PINS = Pins(vcpus={vcpu: CpuSet.of(vcpu) for vcpu in range(4)}, emulator=CpuSet.parse("8-9"))
START = 0x7F0000000000


def mapping(size: int, cell: int, resident: int | None = None, at: int = 0) -> MemoryMapping:
    """Return an anonymous mapping bound to a host cell, wholly resident there unless said otherwise."""
    amount = size if resident is None else resident
    return MemoryMapping(
        start=START + at * 2**32,
        size=Bytes(size * MEBIBYTE),
        permissions="rw-p",
        name="",
        inode=0,
        policy=Policy.BIND,
        nodes=CpuSet.of(cell),
        page_size=Bytes(4096),
        resident={cell: Bytes(amount * MEBIBYTE)} if amount else {},
    )


def guest(
    dimm: MemoryMapping | None = None, virtio: MemoryMapping | None = None
) -> list[MemoryMapping]:
    """Return the mappings of `SPEC`, or of one whose module is otherwise."""
    return [
        mapping(64, 0, at=1),
        mapping(64, 1, at=2),
        dimm or mapping(128, 1, at=3),
        virtio or mapping(256, 0, resident=100, at=4),
    ]


def threads(io: str = "8-9") -> list[ThreadState]:
    vcpus = [ThreadState(10 + vcpu, f"CPU {vcpu}/KVM", CpuSet.of(vcpu)) for vcpu in range(4)]
    ios = [ThreadState(20 + n, f"IO iothread{n}", CpuSet.parse(io)) for n in (1, 2)]
    return [ThreadState(1, "qemu-system-x86", CpuSet.of(8)), *vcpus, *ios]


def verdict(
    mappings: list[MemoryMapping] | None = None,
    of: list[ThreadState] | None = None,
    pins: Pins = PINS,
    spec: NumaVMSpec = SPEC,
) -> Verdict:
    vm = effective(spec)
    claim = claim_for(vm, facts_of(2))
    return verify(claim, vm, pins, of or threads(), mappings or guest(), "2026-01-01T00:00:00Z")


def test_modules_as_promised_count_where_they_lie() -> None:
    found = verdict()

    resident = [
        {one.host_cell: one.bytes // MEBIBYTE for one in cell.resident} for cell in found.numa.cells
    ]
    assert found.problems == ()
    assert resident == [{0: 64 + 100}, {1: 64 + 128}]
    assert all(cell.aligned for cell in found.numa.cells)


@pytest.mark.parametrize(
    ("mappings", "reason", "says"),
    [
        (
            guest(dimm=mapping(128, 0, at=3)),
            Reason.PAGES_MISPLACED,
            "memory module d of guest cell 1",
        ),
        (guest(virtio=mapping(256, 1, resident=4, at=4)), Reason.PAGES_MISPLACED, "module v"),
        (guest()[:3], Reason.PAGES_MISSING, "module v of guest cell 0: no mapping of 256Mi"),
    ],
)
def test_a_module_that_is_not_as_promised_is_told(
    mappings: list[MemoryMapping], reason: Reason, says: str
) -> None:
    found = verdict(mappings)

    assert reason in {problem.reason for problem in found.problems}
    assert says in found.message


def test_pages_of_a_dimm_are_missing_only_where_no_balloon_may_have_them() -> None:
    half = guest(dimm=mapping(128, 1, resident=64, at=3))
    document = SPEC.to_api()
    del document["domain"]["memory"]["balloon"]
    without = verdict(half, spec=NumaVMSpec.model_validate(document))

    assert [problem.reason for problem in without.problems] == [Reason.PAGES_MISSING]
    assert "64Mi of 128Mi" in without.message
    assert verdict(half).problems == ()


def test_a_misplaced_module_makes_its_cell_unaligned_and_no_other() -> None:
    found = verdict(guest(dimm=mapping(128, 0, at=3)))

    assert [cell.aligned for cell in found.numa.cells] == [True, False]


def test_a_module_with_host_cells_of_its_own_is_held_to_these() -> None:
    document = SPEC.to_api()
    document["domain"]["devices"]["memory"][0]["hostBinding"] = {"hostCells": "0"}
    own = NumaVMSpec.model_validate(document)
    where = mapping(128, 0, at=3)

    there = verdict(guest(dimm=where), spec=own)
    assert (there.problems, [cell.aligned for cell in there.numa.cells]) == ((), [True, True])
    found = verdict(guest(), spec=own)
    assert "memory module d of guest cell 1: its memory policy is not Strict on 0" in found.message
    assert [cell.aligned for cell in found.numa.cells] == [True, False]


def test_a_module_in_other_pages_than_promised_is_told() -> None:
    document = SPEC.to_api()
    document["domain"]["devices"]["memory"][0]["hugepages"] = {"pageSize": "2Mi"}

    found = verdict(spec=NumaVMSpec.model_validate(document))
    assert "memory module d of guest cell 1: its pages have 4Ki, promised 2Mi" in found.message


def test_io_threads_are_held_to_their_cpus_and_not_to_the_emulators() -> None:
    own = Pins(PINS.vcpus, PINS.emulator, io_threads=(CpuSet.of(4), CpuSet.of(4)))

    assert verdict(of=threads("4"), pins=own).problems == ()
    assert "I/O thread 1 may run on CPUs 8-9, promised 4" in verdict(pins=own).message
    assert "I/O thread 2 may run on CPUs 5, promised 8-9" in verdict(of=threads("5")).message
    assert "I/O thread 1 has no thread" in verdict(of=threads()[:5]).message


LIVE = """
<domain><devices>
  <memory model='dimm'><target><size unit='KiB'>131072</size><node>1</node></target><alias name='ua-mem-d'/></memory>
  <memory model='virtio-mem'><target><size unit='KiB'>262144</size><node>0</node><block unit='KiB'>2048</block>
    <requested unit='KiB'>131072</requested><current unit='KiB'>65536</current></target>
    <alias name='ua-mem-v'/></memory>
  <memory model='nvdimm'><target><size unit='KiB'>32768</size><node>0</node></target><alias name='ua-mem-n'/></memory>
  <memory model='dimm'><target><size unit='KiB'>1024</size></target><alias name='dimm7'/></memory>
  <memballoon model='virtio'/>
</devices></domain>
"""


def modules_at(virtio: int = 64) -> tuple[ModuleStatus, ...]:
    """Return the modules of a guest that has so many of the 128 MiB requested of virtio-mem."""
    return module_figures(LIVE.replace(">65536</current>", f">{virtio * 1024}</current>"))


def test_modules_are_told_with_what_the_guest_has_of_them() -> None:
    assert [(one.name, one.model, one.cell, one.current) for one in modules_at()] == [
        ("d", "dimm", 1, None),
        ("n", "nvdimm", 0, None),
        ("v", "virtio-mem", 0, 64 * MEBIBYTE),
    ]


def test_without_a_balloon_the_guest_has_its_cells_and_modules() -> None:
    found = memory_now(effective(SPEC).memory, modules_at(), None)

    assert found == (2 * 64 + 128 + 64) * MEBIBYTE  # a file is no memory of the guest's


def test_qemus_balloon_does_not_count_virtio_mem() -> None:
    size = Bytes(96 * MEBIBYTE)
    balloon = BalloonStatus(target=size, actual=size)

    assert memory_now(effective(SPEC).memory, modules_at(), balloon) == (96 + 64) * MEBIBYTE


def test_a_balloon_without_a_target_leaves_the_guest_cells_and_dimms() -> None:
    document = SPEC.to_api()
    document["domain"]["memory"]["balloon"] = {}

    assert target_of(NumaVMSpec.model_validate(document)) == (2 * 64 + 128) * MEBIBYTE


@pytest.mark.parametrize(
    ("told", "fresh", "seconds", "news"),
    [
        (64, 80, 5, False),  # on its way: once a minute is enough
        (64, 80, 60, True),
        (64, 128, 5, True),  # it has arrived
        (128, 128, 3600, False),
    ],
)
def test_when_modules_are_told(told: int, fresh: int, seconds: float, *, news: bool) -> None:
    assert is_worth_telling(modules_at(told), modules_at(fresh), seconds=seconds) is news
