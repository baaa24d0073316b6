"""Living with a kubelet: what it promised is not handed out, and an overlap is said with the edit that ends it."""

import pytest

from numavm_agent.reconcile.host_state import cells_now
from numavm_agent.reconcile.kubelet_finding import pools_exclusive
from numavm_agent.topology.allocatable import OwnResident, allocatable_memory, allocatable_pages
from numavm_agent.topology.readings import CellReading, HostTopology, MemoryReading, PagePool
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import HostCell, NumaHostSpec
from numavm_api.others import KubeletMemory, KubeletUse
from numavm_api.pools import OtherUsers, effective_pools
from numavm_api.quantity import BASE_PAGE, MEBIBYTE, Bytes
from support.agent_values import cells

HUGE = Bytes(2 * MEBIBYTE)
NAMED = NumaHostSpec(dedicated_cpus=CpuSet.of(1, 3))
"""Of the host with CPUs 0-1 and 2-3."""


def mib(amount: int) -> Bytes:
    return Bytes(amount * MEBIBYTE)


def reading(free: int, pages: tuple[int, int] = (0, 0)) -> CellReading:
    memory = MemoryReading(total=mib(4096), free=mib(free), reclaimable=Bytes(0))
    return CellReading(0, (), memory, (PagePool(HUGE, *pages),), ())


def kubelet(exclusive: str = "", allocatable: str = "0,2", **memory: int) -> OtherUsers:
    blocks = [
        KubeletMemory(cell=int(cell.removeprefix("cell")), page_size=BASE_PAGE, amount=mib(amount))
        for cell, amount in memory.items()
    ]
    use = KubeletUse(
        exclusive_cpus=CpuSet.parse(exclusive),
        allocatable_cpus=CpuSet.parse(allocatable),
        allocatable_memory=blocks,
    )
    return OtherUsers(kubelet_runs=True, kubelet=use)


@pytest.mark.parametrize(
    ("free", "promised", "expected"),
    [
        (4096, 0, 4096 - 400),
        (4096, 1000, 4096 - 400 - 1000),  # promised, and not yet used
        (3096, 1000, 4096 - 400 - 1000),  # the pod uses it all: not counted twice
        (1096, 1000, 4096 - 3000 - 200),  # others use more than was promised
        (4096, 5000, 0),
    ],
)
def test_memory_that_was_promised_to_pods_is_not_handed_out(
    free: int, promised: int, expected: int
) -> None:
    found = allocatable_memory(
        reading(free), mib(400), OwnResident(), {(0, BASE_PAGE): mib(promised)}
    )
    assert found == mib(expected)


@pytest.mark.parametrize(
    ("free", "own", "promised", "expected"),
    [(100, 0, 0, 100), (100, 0, 30, 70), (70, 0, 30, 70), (60, 10, 20, 70), (0, 0, 200, 0)],
)
def test_huge_pages_that_were_promised_to_pods_are_not_handed_out(
    free: int, own: int, promised: int, expected: int
) -> None:
    pool = PagePool(HUGE, 100, free)
    resident = OwnResident(huge={(0, HUGE): own})
    found = allocatable_pages(0, pool, resident, {(0, HUGE): Bytes(promised * HUGE)})
    assert found == expected


def test_a_promise_counts_while_a_domain_is_made_too() -> None:
    host = HostTopology("boot", (reading(4096, (64, 64)),), CpuSet(), ())
    before = cells_now(host, NumaHostSpec(), OwnResident(), [], changing=False)
    promised = {(0, BASE_PAGE): mib(1024), (0, HUGE): Bytes(16 * HUGE)}
    after = cells_now(host, NumaHostSpec(), OwnResident(), before, changing=True, promised=promised)
    handed = before[0].memory.allocatable - after[0].memory.allocatable
    assert (handed, after[0].hugepages[0].allocatable) == (mib(1024), 48)


def test_cpus_of_pods_are_in_no_pool_and_shown_as_foreign() -> None:
    pools = effective_pools(NAMED, cells(), others=kubelet(exclusive="3"))
    assert (pools.dedicated, pools.shared, pools.foreign) == (
        CpuSet.of(1),
        CpuSet.of(1),
        CpuSet.of(3),
    )


@pytest.mark.parametrize(
    ("spec", "others", "status", "reason", "words"),
    [
        (NumaHostSpec(), OtherUsers(), "True", "NoKubelet", ["No kubelet"]),
        (NAMED, kubelet(), "True", "Exclusive", ["other CPUs"]),
        (NumaHostSpec(), kubelet(allocatable="0-3"), "True", "Exclusive", ["other CPUs"]),
        (
            NAMED,
            kubelet(allocatable="0-3"),
            "False",
            "Overlap",
            ["CPU 1,3", "reservedSystemCPUs hold '1,3'", "strict-cpu-reservation", "dedicatedCpus"],
        ),
        (
            NAMED,
            kubelet(exclusive="3", allocatable="0,2-3"),
            "False",
            "Overlap",
            ["CPU 3 of NumaVM's pools", "a pod holds 3 now"],
        ),
        (
            NAMED,
            kubelet(allocatable=""),
            "False",
            "Overlap",
            ["cpuManagerPolicy: static", "strict-cpu-reservation", "reservedSystemCPUs hold '1,3'"],
        ),
        (NAMED, kubelet(cell0=384), "True", "Exclusive", ["other CPUs and memory"]),
        (
            NAMED,
            kubelet(cell0=896),
            "False",
            "Overlap",
            ["host cell 0", "896Mi to pods", "512Mi to VMs", "512Mi more", "reservedMemory"],
        ),
        (
            NAMED,
            OtherUsers(kubelet_runs=True, kubelet_error="UNAVAILABLE: gone"),
            "Unknown",
            "KubeletUnavailable",
            ["UNAVAILABLE: gone"],
        ),
    ],
)
def test_overlap_is_a_condition_with_the_words_to_end_it(
    spec: NumaHostSpec, others: OtherUsers, status: str, reason: str, words: list[str]
) -> None:
    host: list[HostCell] = cells()
    found = pools_exclusive(spec, host, others)
    assert (found.status, found.reason) == (status, reason)
    assert [word for word in words if word not in found.message] == []
