"""What NumaVM may hand out of a cell's memory, and how calm the report of it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numavm_agent.topology.allocatable import (
    MEMORY_STEP,
    OwnResident,
    allocatable_memory,
    allocatable_pages,
    calm,
    report_cells,
    reserve_of,
)
from numavm_agent.topology.readings import CellReading, MemoryReading, PagePool
from numavm_api.numahost import HostCpu, NumaHostSpec
from numavm_api.quantity import GIBIBYTE, MEBIBYTE, Bytes

RESERVE = Bytes(400 * MEBIBYTE)
HUGE = Bytes(2 * MEBIBYTE)
NOTHING = OwnResident()


def mib(amount: float) -> Bytes:
    return Bytes(int(amount * MEBIBYTE))


def reading(
    total: float = 4096, free: float = 4096, cache: float = 0, pages: tuple[int, int] = (0, 0)
) -> CellReading:
    return CellReading(
        id=0,
        cpus=tuple[HostCpu, ...](),
        memory=MemoryReading(total=mib(total), free=mib(free), reclaimable=mib(cache)),
        page_pools=(PagePool(page_size=HUGE, total=pages[0], free=pages[1]),),
        distances=(),
    )


def own(base_mib: int = 0, pages: int = 0) -> OwnResident:
    return OwnResident(base={0: mib(base_mib)}, huge={(0, HUGE): pages})


@pytest.mark.parametrize(
    ("cell", "held", "expected_mib"),
    [
        (reading(), NOTHING, 4096 - 400),
        (reading(free=3900), NOTHING, 4096 - 400),  # others use 196: less than half the reserve
        (reading(free=3896), NOTHING, 4096 - 400),
        (reading(free=3096), NOTHING, 4096 - 1000 - 200),  # past it, half the reserve stays
        (reading(free=3096, cache=1000), NOTHING, 4096 - 400),  # page cache is given back
        (reading(free=1096), own(base_mib=3000), 4096 - 400),  # own domains are the ledger's
        (reading(pages=(512, 512), free=3072), NOTHING, 3072 - 400),  # a page pool is no base pages
        (reading(pages=(512, 0), free=3072), own(pages=512), 3072 - 400),
        (reading(total=256, free=100), NOTHING, 0),
    ],
)
def test_allocatable_memory(cell: CellReading, held: OwnResident, expected_mib: int) -> None:
    assert allocatable_memory(cell, RESERVE, held) == mib(expected_mib)


@pytest.mark.parametrize(
    ("pages", "held", "expected"),
    [
        ((100, 100), 0, 100),
        ((100, 60), 0, 60),  # somebody else took 40
        ((100, 60), 40, 100),  # they are NumaVM's own
        ((100, 50), 40, 90),
        ((100, 100), 40, 100),  # own domains ended between two readings
        ((0, 0), 0, 0),
    ],
)
def test_allocatable_huge_pages(pages: tuple[int, int], held: int, expected: int) -> None:
    pool = PagePool(page_size=HUGE, total=pages[0], free=pages[1])

    assert allocatable_pages(0, pool, own(pages=held)) == expected


@pytest.mark.parametrize(("total", "expected"), [(1024, 256), (5120, 256), (10240, 512)])
def test_the_reserve_by_default(total: int, expected: int) -> None:
    assert reserve_of(reading(total=total), NumaHostSpec()) == mib(expected)


def test_the_administrators_reserve_wins() -> None:
    spec = NumaHostSpec.model_validate({"reservedMemory": [{"cell": 0, "memory": "1Gi"}]})

    assert reserve_of(reading(), spec) == GIBIBYTE


def test_small_moves_are_not_reported() -> None:
    before = report_cells([reading(free=2960)], NumaHostSpec(), NOTHING)

    later = report_cells([reading(free=3000)], NumaHostSpec(), NOTHING, before)
    much_later = report_cells([reading(free=2000)], NumaHostSpec(), NOTHING, before)

    assert later == before
    assert much_later[0].memory.free < before[0].memory.free


def test_huge_pages_are_reported_to_the_page() -> None:
    before = report_cells([reading(pages=(100, 100))], NumaHostSpec(), NOTHING)

    (after,) = report_cells([reading(pages=(100, 99))], NumaHostSpec(), NOTHING, before)

    assert (after.hugepages[0].free, after.hugepages[0].allocatable) == (99, 99)


amounts = st.integers(0, 2**44).map(Bytes)


@given(total=amounts, now=amounts, before=amounts)
def test_calm_amounts(total: Bytes, now: Bytes, before: Bytes) -> None:
    band = max(MEMORY_STEP, total // 100)

    reported = calm(now, before, total)

    assert reported in {before, now // MEMORY_STEP * MEMORY_STEP}
    assert abs(reported - now) <= band
    assert calm(now, reported, total) == reported  # said twice, said the same
