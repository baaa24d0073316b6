"""Which CPUs a VM gets and which it must leave to others, by example."""

from __future__ import annotations

from numavm_api.cpuset import CpuSet
from numavm_operator.placement import (
    Cause,
)
from support.placement_examples import (
    cause,
    fleet,
    host,
    pcpus,
    placed,
    refused,
    request,
    vm,
)


def test_require_puts_a_guest_cores_threads_on_siblings() -> None:
    spec = vm(cores=2, threads=2, memory="1Gi", threadPolicy="Require")

    outcome = placed(request(spec), fleet(host(threads=2)))

    assert [str(cpu) for cpu in outcome.placement.cells[0].pcpus] == ["2", "3", "4", "5"]


def test_require_pairs_single_threads_and_leaves_an_odd_one_alone() -> None:
    spec = vm(cores=3, memory="1Gi", threadPolicy="Require")

    outcome = placed(request(spec), fleet(host(threads=2)))

    assert [str(cpu) for cpu in outcome.placement.cells[0].pcpus] == ["2", "3", "4"]


def test_require_refuses_hosts_without_siblings() -> None:
    spec = vm(cores=2, threads=2, memory="1Gi", threadPolicy="Require")

    assert cause(request(spec), fleet(host(threads=1))) is Cause.NO_SIBLINGS


def test_isolate_claims_the_siblings_and_leaves_them_empty() -> None:
    spec = vm(cores=2, memory="1Gi", threadPolicy="Isolate", isolateEmulatorThread=True)

    claim = placed(request(spec), fleet(host(threads=2))).placement

    assert [str(cpu) for cpu in claim.cells[0].pcpus] == ["2", "4"]
    assert claim.emulator_cpus == CpuSet.of(6)
    assert claim.dedicated_cpus == CpuSet.parse("2-7")


def test_prefer_uses_single_leftovers_before_it_breaks_a_core() -> None:
    one_cell = fleet(host(cells=1, threads=2))
    first = placed(request(vm(cores=3, memory="64Mi"), "first"), one_cell)
    assert pcpus(first) == "2-4"
    later = one_cell.with_claim("host-a", "first", first.placement)

    assert pcpus(placed(request(vm(cores=1, memory="64Mi"), "second"), later)) == "5"
    pair = placed(request(vm(cores=1, threads=2, memory="64Mi"), "third"), later)
    assert pcpus(pair) == "6-7"


def test_a_guest_cell_that_fits_in_one_last_level_cache_gets_one() -> None:
    one_cell = fleet(host(cells=1, cores=8, caches=2))

    outcome = placed(request(vm(cores=4, memory="64Mi")), one_cell)

    assert pcpus(outcome) == "4-7"


def test_the_emulators_own_cpu_is_one_more_on_the_cell_of_its_overhead() -> None:
    cell = {"cpus": "0-2", "memory": "64Mi"}
    spec = vm(cell, cores=3, isolateEmulatorThread=True)

    assert cause(request(spec), fleet(host(cores=4))) is Cause.DEDICATED_CPUS
    claim = placed(request(spec), fleet(host(cores=5))).placement
    assert claim.emulator_cpus == CpuSet.of(4)
    assert claim.overhead_cell == 0


def test_a_floating_emulator_needs_a_cpu_to_float_over() -> None:
    bare = host(cells=1, cores=4)
    bare["status"]["pools"] |= {"dedicated": "0-3", "housekeeping": ""}

    assert placed(request(vm(cores=3, memory="64Mi")), fleet(bare))
    assert cause(request(vm(cores=4, memory="64Mi")), fleet(bare)) is Cause.EMULATOR_CPUS


def test_no_claim_takes_the_last_cpu_that_another_emulator_floats_over() -> None:
    bare = host(cells=1, cores=4)
    bare["status"]["pools"] |= {"dedicated": "0-3", "housekeeping": ""}
    first = placed(request(vm(cores=2, memory="64Mi"), "first"), fleet(bare))
    later = fleet(bare).with_claim("host-a", "first", first.placement)
    second = vm(cores=1, memory="64Mi", isolateEmulatorThread=True)

    assert cause(request(second, "second"), later) is Cause.DEDICATED_CPUS


def test_shared_vcpus_keep_the_share_they_were_promised() -> None:
    one_cell = fleet(host(cells=1, cores=5, spec={"cpuAllocationPercent": 200}))
    shared = vm(cores=4, memory="64Mi", dedicatedCpuPlacement=False)
    first = placed(request(shared, "first"), one_cell)
    assert first.placement.cells[0].pcpus == []
    later = one_cell.with_claim("host-a", "first", first.placement)

    dedicated = refused(request(vm(cores=3, memory="64Mi"), "second"), later).counts[0]
    assert (dedicated.cause, dedicated.nearest.available) == (Cause.DEDICATED_CPUS, 2)
    more = vm(cores=5, memory="64Mi", dedicatedCpuPlacement=False)
    room = refused(request(more, "third"), later).counts[0]
    assert (room.cause, room.nearest.available) == (Cause.SHARED_CPUS, 4)


def test_cpus_of_a_nodeset_come_from_all_its_cells() -> None:
    cell = {
        "cpus": "0-5",
        "memory": "64Mi",
        "hostBinding": {"hostCells": "0-1", "mode": "Interleave"},
    }

    assert pcpus(placed(request(vm(cell, cores=6)), fleet(host()))) == "1-3,5-7"
