"""The spec with its defaults, and the digest that a claim is made for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numavm_api.cpu import BindingMode
from numavm_api.effective import effective
from numavm_api.memory import BackingSource
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import BASE_PAGE, GIBIBYTE, MEBIBYTE
from numavm_api.request_hash import request_hash
from support.manifests import GOOD, KERNEL_BOOT, NO_CELLS, TWO_CELLS, WITH_DEVICES, cell, changed


def spec(raw: dict[str, Any]) -> NumaVMSpec:
    return NumaVMSpec.model_validate(raw)


def test_without_numa_there_is_one_preferred_cell_with_everything() -> None:
    vm = effective(spec(NO_CELLS))
    only = vm.cells[0]

    assert not vm.cells_declared
    assert len(vm.cells) == 1
    assert str(only.vcpus) == "0-1"
    assert only.memory == 512 * MEBIBYTE
    assert only.mode is BindingMode.PREFERRED
    assert only.host_cells is None
    assert only.page_size == BASE_PAGE


def test_declared_cells_are_strict_and_in_the_order_of_their_ids() -> None:
    raw = changed(TWO_CELLS, "domain.cpu.numa.cells", [cell(1, "4-7"), cell(0, "0-3")])
    vm = effective(spec(raw))

    assert vm.cells_declared
    assert [one.id for one in vm.cells] == [0, 1]
    assert {BindingMode.STRICT} == {one.mode for one in vm.cells}
    assert vm.memory == 2 * GIBIBYTE


def test_a_cells_mode_goes_before_the_whole_guests_and_nodesets_intersect() -> None:
    raw = changed(
        TWO_CELLS, "domain.cpu.numa.hostBinding", {"hostCells": "0-2", "mode": "Preferred"}
    )
    raw = changed(
        raw, "domain.cpu.numa.cells.1.hostBinding", {"hostCells": "1-3", "mode": "Interleave"}
    )
    first, second = effective(spec(raw)).cells

    assert (first.mode, str(first.host_cells)) == (BindingMode.PREFERRED, "0-2")
    assert (second.mode, str(second.host_cells)) == (BindingMode.INTERLEAVE, "1-2")


@pytest.mark.parametrize(
    ("memory", "source"),
    [
        ({}, BackingSource.ANONYMOUS),
        ({"backing": {"access": "Shared"}}, BackingSource.MEMFD),
        ({"hugepages": {"pageSize": "2Mi"}}, BackingSource.MEMFD),
        ({"hugepages": {"pageSize": "4Ki"}}, BackingSource.ANONYMOUS),
        ({"backing": {"source": "Memfd"}}, BackingSource.MEMFD),
    ],
)
def test_memory_comes_from_a_memfd_where_it_must(
    memory: dict[str, Any], source: BackingSource
) -> None:
    raw = changed(NO_CELLS, "domain.memory", {"guest": "1Gi", **memory})

    assert source is effective(spec(raw)).backing.source


def test_cores_of_a_cell_are_runs_of_threads() -> None:
    vm = effective(spec(TWO_CELLS))

    assert [str(core) for core in vm.cores_of(vm.cells[1])] == ["4-5", "6-7"]


@pytest.mark.parametrize("name", GOOD)
def test_the_digest_is_of_the_effective_spec(name: str) -> None:
    short = spec(GOOD[name])
    in_full = spec(short.model_dump(mode="json", by_alias=True, exclude_none=True))

    assert request_hash(short) == request_hash(in_full)


@pytest.mark.parametrize(
    ("base", "path", "value"),
    [
        (TWO_CELLS, "runStrategy", "Halted"),
        (TWO_CELLS, "restartToken", "2"),
        (TWO_CELLS, "terminationGracePeriodSeconds", 5),
        (TWO_CELLS, "priorityClassName", "urgent"),
        (TWO_CELLS, "affinity", {"nodeAffinity": {}}),
        (TWO_CELLS, "placement", {"lastLevelCache": "Prefer", "reserveMaximum": False}),
        (TWO_CELLS, "domain.memory.guest", "2Gi"),
        (TWO_CELLS, "domain.cpu.numa.hostBinding", {"mode": "Strict"}),
        (TWO_CELLS, "domain.memory.hugepages", {"pageSize": "4Ki"}),
        (NO_CELLS, "domain.cpu.model", "host-model"),
        (WITH_DEVICES, "domain.devices.disks.0.bootOrder", 3),
        (KERNEL_BOOT, "domain.firmware.kernelBoot.args", "debug"),
    ],
)
def test_a_change_that_leaves_the_placement_alone_keeps_the_digest(
    base: dict[str, Any], path: str, value: object
) -> None:
    assert request_hash(spec(base)) == request_hash(spec(changed(base, path, value)))


@pytest.mark.parametrize(
    ("base", "path", "value"),
    [
        (TWO_CELLS, "nodeSelector", {"a": "b"}),
        (TWO_CELLS, "domain.type", "TCG"),
        (TWO_CELLS, "domain.machine.type", "pc"),
        (TWO_CELLS, "domain.cpu.threadPolicy", "Isolate"),
        (TWO_CELLS, "domain.cpu.dedicatedCpuPlacement", False),
        (TWO_CELLS, "domain.cpu.isolateEmulatorThread", True),
        (TWO_CELLS, "domain.cpu.numa.cells.0.memory", "2Gi"),
        (TWO_CELLS, "domain.cpu.numa.hostBinding", {"mode": "Interleave"}),
        (TWO_CELLS, "domain.memory.hugepages", {"pageSize": "2Mi"}),
        (TWO_CELLS, "placement", {"cellSharing": "Allow"}),
        (TWO_CELLS, "placement", {"lastLevelCache": "Whole"}),
        (TWO_CELLS, "placement", {"reserveMaximum": True}),
        (TWO_CELLS, "tolerations", [{"operator": "Exists"}]),
        (
            TWO_CELLS,
            "affinity",
            {
                "nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": 1, "preference": {"matchExpressions": []}}
                    ]
                }
            },
        ),
        (NO_CELLS, "domain.cpu.cores", 3),
        (NO_CELLS, "domain.memory.backing", {"locked": True}),
        (TWO_CELLS, "domain.cpu.numa.cells.0.hostCellClass", "DRAM"),
        (TWO_CELLS, "domain.cpu.realtime", {"mask": "0"}),
        (WITH_DEVICES, "volumes.0.hostDisk.path", "/srv/other.img"),
        (KERNEL_BOOT, "domain.firmware.kernelBoot.kernel", "/srv/vmlinuz"),
    ],
)
def test_a_change_that_the_placement_depends_on_changes_the_digest(
    base: dict[str, Any], path: str, value: object
) -> None:
    assert request_hash(spec(base)) != request_hash(spec(changed(base, path, value)))


@given(st.permutations(range(4)))
def test_the_order_of_cells_changes_nothing(order: list[int]) -> None:
    def raw(numbers: list[int]) -> dict[str, Any]:
        cells = [cell(number, str(number)) for number in numbers]
        return {"domain": {"cpu": {"sockets": 4, "numa": {"cells": cells}}}}

    assert request_hash(spec(raw([0, 1, 2, 3]))) == request_hash(spec(raw(order)))


def test_host_cells_are_no_part_of_the_digest_because_the_claim_names_them() -> None:
    bound = changed(TWO_CELLS, "domain.cpu.numa.cells.0.hostBinding", {"hostCells": "0"})
    assert request_hash(spec(TWO_CELLS)) == request_hash(spec(bound))
