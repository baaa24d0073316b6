"""Where guest cells, memory and pages go, by examples small enough to check by hand."""

from __future__ import annotations

import pytest

from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.effective import effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import MEBIBYTE
from numavm_operator.placement import (
    Cause,
    Placed,
    Policy,
    overhead_of,
    place,
)
from support.placement_examples import (
    TWO_CELLS,
    cause,
    fleet,
    host,
    pcpus,
    placed,
    refused,
    request,
    vm,
)


def test_two_guest_cells_get_two_host_cells_and_everything_that_is_asked_for() -> None:
    outcome = placed(request(TWO_CELLS), fleet(host()))

    claim = outcome.placement
    assert (claim.id, claim.epoch, claim.request_hash) == ("claim-vm", 3, "hash")
    assert sorted(str(cell.host_cells) for cell in claim.cells) == ["0", "1"]
    assert claim.summary == "0->0,1->1"
    assert [pcpus(outcome, 0), pcpus(outcome, 1)] == ["1-2", "5-6"]
    assert claim.dedicated_cpus == CpuSet.parse("1-2,5-6")
    assert [cell.mode for cell in claim.cells] == [BindingMode.STRICT] * 2


def test_two_guest_cells_on_one_host_cell_only_where_sharing_is_allowed() -> None:
    one_cell = fleet(host(cells=1, cores=6))

    assert cause(request(TWO_CELLS), one_cell) is Cause.HOST_CELLS
    shared = placed(request({**TWO_CELLS, "placement": {"cellSharing": "Allow"}}), one_cell)
    assert shared.placement.dedicated_cpus == CpuSet.parse("1-4")


def test_the_nearest_host_cells_win() -> None:
    three = host(cells=3)
    for cell, row in zip(
        three["status"]["cells"], ((10, 40, 30), (40, 10, 15), (30, 15, 10)), strict=True
    ):
        cell["distances"] = [{"cell": at, "value": value} for at, value in enumerate(row)]

    outcome = placed(request(TWO_CELLS), fleet(three))

    assert outcome.distance == 30
    assert outcome.placement.host_cells == CpuSet.of(1, 2)


def test_a_socket_that_takes_all_that_are_left_goes_before_a_tighter_one() -> None:
    """Found by the first walk: nothing is spent on mending it."""
    three_sockets = host(cells=12)
    for cell in three_sockets["status"]["cells"]:
        mine = cell["id"] // 4
        near = {at: 12 if at // 4 == mine else 32 for at in range(12)} | {cell["id"]: 10}
        cell["distances"] = [{"cell": at, "value": value} for at, value in near.items()]
        amount = {0: "0", 1: "0", 2: "1Gi", 3: "1Gi"}.get(cell["id"], "4Gi")
        cell["memory"] = {"total": amount, "free": amount, "allocatable": amount}
    cells = [{"cpus": str(at), "memory": "64Mi"} for at in range(8)]

    outcome = place(
        request(vm(*cells, cores=8)), fleet(three_sockets), Policy(search_steps=5, improve_steps=0)
    )

    assert isinstance(outcome, Placed)
    assert outcome.placement.host_cells == CpuSet.parse("4-11")
    assert (
        outcome.distance == 12 * 2 * 12 + 16 * 2 * 32
    )  # pairs in a socket, and across; there and back


def test_a_nearer_host_goes_before_a_fuller_one() -> None:
    where = fleet(host("host-a", far=31), host("host-b", far=21))

    assert placed(request(TWO_CELLS), where).node_name == "host-b"


def test_the_former_host_wins_among_those_of_equal_distance_only() -> None:
    where = fleet(host("host-a", far=21), host("host-b", far=21), host("host-c", far=31))

    assert placed(request(TWO_CELLS, former_host="host-b"), where).node_name == "host-b"
    assert placed(request(TWO_CELLS, former_host="host-c"), where).node_name == "host-a"


def test_a_vm_without_cells_spans_host_cells_only_where_it_must() -> None:
    where = fleet(host(cells=4, memory="2Gi"))

    fits = placed(request(vm(cores=2, memory="1Gi"), "small"), where)
    assert (fits.spans_cells, fits.placement.cells[0].mode) == (False, BindingMode.PREFERRED)
    large = placed(request(vm(cores=4, memory="3Gi"), "large"), where)
    assert large.spans_cells
    assert large.placement.cells[0].mode is BindingMode.INTERLEAVE
    assert len(large.placement.host_cells) == 2


@pytest.mark.parametrize(
    ("mode", "fits"),
    [("Strict", False), ("Restrictive", False), ("Interleave", True), ("Preferred", False)],
)
def test_a_nodeset_is_booked_by_its_mode(mode: str, fits: bool) -> None:  # noqa: FBT001 - a table
    cell = {"cpus": "0-1", "memory": "3Gi", "hostBinding": {"hostCells": "0-1", "mode": mode}}

    outcome = place(request(vm(cell, cores=2)), fleet(host(memory="2Gi")))

    assert isinstance(outcome, Placed) == fits


def test_huge_pages_come_from_their_own_pool() -> None:
    cell = {"cpus": "0", "memory": "64Mi", "hugepages": {"pageSize": "2Mi"}}

    assert placed(request(vm(cell, cores=1)), fleet(host(huge=32)))
    miss = refused(request(vm(cell, cores=1)), fleet(host(huge=31))).counts[0].nearest
    assert (miss.cause, miss.missing) == (Cause.HUGE_PAGES, 2 * MEBIBYTE)


def test_qemus_own_memory_is_booked_too() -> None:
    spec = vm(cores=1, memory="1Gi")
    overhead = overhead_of(effective(NumaVMSpec.model_validate(spec)))
    assert overhead == (64 + 8 + 2) * MEBIBYTE

    assert placed(request(spec), fleet(host(memory=str(1024 * MEBIBYTE + overhead))))
    short = fleet(host(cells=1, memory=str(1024 * MEBIBYTE + overhead - 4096)))
    assert cause(request(spec), short) is Cause.QEMU_OVERHEAD
