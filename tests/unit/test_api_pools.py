"""CPU pools after defaults and after what others took."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import EffectivePools, HostCell, HostCpu, HostMemory, NumaHostSpec
from numavm_api.placement import CpuPlacement, PlacedCell, Placement
from numavm_api.pools import OtherUsers, effective_pools, pool_violations
from numavm_api.quantity import GIBIBYTE, Bytes

KUBELET = OtherUsers(kubelet_runs=True)


def host(cells: int, cores: int, threads: int) -> list[HostCell]:
    """Return cells numbered as on most machines: second threads after all first ones."""
    total = cells * cores
    return [
        HostCell(
            id=cell,
            cpus=[
                HostCpu(
                    id=first + thread * total,
                    siblings=CpuSet.of(*(first + each * total for each in range(threads))),
                    socket=cell,
                    last_level_cache=cell,
                )
                for first in range(cell * cores, (cell + 1) * cores)
                for thread in range(threads)
            ],
            memory=HostMemory(
                total=Bytes(GIBIBYTE), free=Bytes(GIBIBYTE), allocatable=Bytes(GIBIBYTE)
            ),
        )
        for cell in range(cells)
    ]


def holding(cpus: str) -> Placement:
    """Return a claim that keeps CPUs to itself."""
    return Placement(
        id="c1",
        epoch=1,
        request_hash="0",
        cpu_placement=CpuPlacement.DEDICATED,
        summary="0->0",
        cells=[
            PlacedCell(
                id=0,
                host_cells=CpuSet.of(0),
                mode=BindingMode.STRICT,
                memory=Bytes(GIBIBYTE),
                vcpus=CpuSet.of(0),
            )
        ],
        dedicated_cpus=CpuSet.parse(cpus),
        overhead=Bytes(0),
        overhead_cell=0,
    )


def pools(spec: dict[str, str], **more: object) -> dict[str, str]:
    """Return the pools of a host of 2 cells with 4 CPUs each, as text."""
    found = effective_pools(NumaHostSpec.model_validate(spec), host(2, 4, 1), **more)
    return {name: str(getattr(found, name)) for name in ("dedicated", "shared", "housekeeping")}


@pytest.mark.parametrize(
    ("spec", "dedicated", "shared", "housekeeping"),
    [
        ({}, "1-3,5-7", "1-3,5-7", "0,4"),
        ({"reservedCpus": "0-1"}, "2-7", "2-7", "0-1"),
        ({"dedicatedCpus": "2-7"}, "2-7", "2-7", "0-1"),
        ({"dedicatedCpus": "2-5", "sharedCpus": "6-7"}, "2-5", "6-7", "0-1"),
        ({"sharedCpus": "0-1"}, "2-7", "0-1", ""),
        ({"reservedCpus": "0", "dedicatedCpus": "2-7"}, "2-7", "2-7", "0"),
        ({"reservedCpus": "0", "sharedCpus": "4-5"}, "1-3,6-7", "4-5", "0"),
        ({"reservedCpus": "0-2", "dedicatedCpus": "2-9", "sharedCpus": "2-4"}, "5-7", "3-4", "0-2"),
    ],
)
def test_pools_by_what_is_named(
    spec: dict[str, str], dedicated: str, shared: str, housekeeping: str
) -> None:
    expected = {"dedicated": dedicated, "shared": shared, "housekeeping": housekeeping}

    assert expected == pools(spec)


def test_the_first_core_is_kept_with_its_siblings() -> None:
    found = effective_pools(NumaHostSpec(), host(2, 2, 2))

    assert str(found.housekeeping) == "0,2,4,6"
    assert str(found.dedicated) == "1,3,5,7"


def test_a_cell_with_one_core_keeps_nothing_back() -> None:
    found = effective_pools(NumaHostSpec(), host(2, 1, 2))

    assert str(found.housekeeping) == ""
    assert str(found.dedicated) == "0-3"


def test_shared_cpus_are_what_dedicated_vms_leave() -> None:
    found = effective_pools(NumaHostSpec(), host(2, 4, 1), [holding("1-2"), holding("5")])

    assert found.shared_follows_dedicated
    assert str(found.shared) == "3,6-7"
    assert str(found.dedicated) == "1-3,5-7"


def test_cpus_of_others_are_not_offered() -> None:
    others = OtherUsers(domain_cpus=CpuSet.parse("2,6"))
    expected = {"dedicated": "1,3,5,7", "shared": "1,3,5,7", "housekeeping": "0,4"}

    assert expected == pools({}, others=others)


@pytest.mark.parametrize(
    ("spec", "dedicated", "shared"),
    [
        ({}, "", ""),
        ({"reservedCpus": "0"}, "", ""),
        ({"sharedCpus": "6-7"}, "", "6-7"),
        ({"dedicatedCpus": "4-7"}, "4-7", "4-7"),
    ],
)
def test_beside_a_kubelet_only_named_cpus_are_handed_out(
    spec: dict[str, str], dedicated: str, shared: str
) -> None:
    found = pools(spec, others=KUBELET)

    assert (dedicated, shared) == (found["dedicated"], found["shared"])


@pytest.mark.parametrize(
    ("spec", "others", "says"),
    [
        ({"dedicatedCpus": "4-9"}, OtherUsers(), ["spec.dedicatedCpus", "'4-9'", "CPU 8-9", "0-7"]),
        (
            {"reservedCpus": "0-2", "dedicatedCpus": "2-7"},
            OtherUsers(),
            ["spec.dedicatedCpus", "CPU 2", "spec.reservedCpus '0-2'"],
        ),
        (
            {"sharedCpus": "4", "dedicatedCpus": "4-7"},
            OtherUsers(),
            ["spec.dedicatedCpus", "CPU 4", "spec.sharedCpus '4'"],
        ),
        (
            {"reservedMemory": [{"cell": 2, "memory": "1Gi"}]},
            OtherUsers(),
            ["spec.reservedMemory[0].cell", "2", "0-1"],
        ),
        ({}, KUBELET, ["spec.dedicatedCpus", "nothing", "kubelet", "reservedSystemCPUs"]),
    ],
)
def test_senseless_pools_are_told(
    spec: dict[str, object], others: OtherUsers, says: list[str]
) -> None:
    found = pool_violations(NumaHostSpec.model_validate(spec), host(2, 4, 1), others)

    assert len(found) == 1
    assert not [part for part in says if part not in str(found[0])], str(found[0])


def test_sensible_pools_are_not() -> None:
    spec = NumaHostSpec.model_validate(
        {"reservedCpus": "0", "sharedCpus": "1", "dedicatedCpus": "2-7"}
    )

    assert pool_violations(spec, host(2, 4, 1)) == []


cpusets = st.none() | st.frozensets(st.integers(0, 9), min_size=1).map(CpuSet)


@given(cpusets, cpusets, cpusets, st.frozensets(st.integers(0, 7)), st.booleans())
def test_no_cpu_is_offered_twice_whatever_is_named(
    reserved: CpuSet | None,
    dedicated: CpuSet | None,
    shared: CpuSet | None,
    foreign: frozenset[int],
    kubelet: bool,  # noqa: FBT001 - hypothesis hands arguments over by position
) -> None:
    spec = NumaHostSpec(reserved_cpus=reserved, dedicated_cpus=dedicated, shared_cpus=shared)
    others = OtherUsers(kubelet_runs=kubelet, domain_cpus=CpuSet(foreign))
    held = holding("5-6")
    found: EffectivePools = effective_pools(spec, host(2, 4, 1), [held], others)

    offered = found.dedicated | found.shared
    assert offered <= CpuSet.parse("0-7")
    assert offered.isdisjoint(CpuSet(foreign))
    assert found.shared.isdisjoint(held.dedicated_cpus)
    assert offered.isdisjoint(reserved or CpuSet())
    if not found.shared_follows_dedicated:
        assert found.dedicated.isdisjoint(found.shared)
