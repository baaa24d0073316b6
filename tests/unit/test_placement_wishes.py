"""What a VM can ask for beside cells: by examples small enough to check by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numavm_api.cpuset import CpuSet
from numavm_api.effective import DerivedCells, EffectiveHostDevice, EffectiveVM, effective
from numavm_api.host_devices import NumaAffinity
from numavm_api.numavm import LastLevelCache, NumaVMSpec
from numavm_api.quantity import BASE_PAGE, GIBIBYTE, MEBIBYTE, Bytes
from numavm_operator.placement import (
    Cause,
    Fleet,
    Policy,
    Request,
    Undecided,
    place,
    request_for,
    summary,
)
from support.placement_examples import TWO_CELLS, cause, fleet, host, pcpus, placed, vm

HUGE = Bytes(2 * MEBIBYTE)


def asking(spec: dict[str, Any], **wishes: Any) -> Request:
    return wanting(replace(effective(NumaVMSpec.model_validate(spec)), **wishes))


def wanting(one: EffectiveVM, **more: Any) -> Request:
    return request_for(
        one,
        uid="vm",
        namespace="default",
        name="vm",
        placement_id="claim",
        epoch=1,
        request_hash="hash",
        **more,
    )


def device(name: str, affinity: NumaAffinity, cell: int | None = None) -> EffectiveHostDevice:
    return EffectiveHostDevice(name, frozenset(), ("8086", "10d3"), cell, affinity)


def with_nics(one: dict[str, Any], **cells: int) -> dict[str, Any]:
    one["status"]["permitted"] = {"pciDevices": [{"vendor": "8086", "device": "10d3"}]}
    one["status"]["pciDevices"] = [
        {
            "address": f"0000:{at:02x}:00.0",
            "cell": cell,
            "vendor": "8086",
            "device": "10d3",
            "class": "020000",
        }
        for at, cell in enumerate(cells.values())
    ]
    one["status"]["permitted"] |= {"pciDevices": [{"vendor": "8086", "device": "10d3"}]}
    return one


def test_hand_pins_choose_the_host_cell_and_each_vcpu_gets_a_cpu_of_its_own() -> None:
    pins = dict.fromkeys(range(2), CpuSet.parse("5-6"))

    outcome = placed(asking(vm(cores=2, memory="64Mi"), vcpu_candidates=pins), fleet(host()))

    assert pcpus(outcome) == "5-6"
    three = asking(
        vm(cores=3, memory="64Mi"), vcpu_candidates=dict.fromkeys(range(3), CpuSet.parse("5-6"))
    )
    assert cause(three, fleet(host())) is Cause.PINNED_CPUS


def test_a_vcpu_makes_way_for_another_that_has_less_choice() -> None:
    pins = {0: CpuSet.parse("1-2"), 1: CpuSet.parse("1")}

    outcome = placed(asking(vm(cores=2, memory="64Mi"), vcpu_candidates=pins), fleet(host()))

    assert [str(one) for one in outcome.placement.cells[0].pcpus] == ["2", "1"]


def test_many_pinned_vcpus_are_refused_and_not_undecided() -> None:
    pins = dict.fromkeys(range(40), CpuSet.parse("1-39"))
    wide = fleet(host(cells=1, cores=64))

    assert (
        cause(asking(vm(cores=40, memory="64Mi"), vcpu_candidates=pins), wide) is Cause.PINNED_CPUS
    )


def test_a_cell_falls_back_to_the_next_page_size_only_where_it_must() -> None:
    spec = vm({"cpus": "0", "memory": "64Mi"}, {"cpus": "1", "memory": "64Mi"}, cores=2)
    base = effective(NumaVMSpec.model_validate(spec))
    cells = tuple(
        replace(cell, page_size=HUGE, fallback_page_sizes=(BASE_PAGE,)) for cell in base.cells
    )
    one = host(huge=64)
    one["status"]["cells"][1]["hugepages"] = []

    outcome = placed(wanting(replace(base, cells=cells)), fleet(one))

    by_host_cell = {str(cell.host_cells): cell.page_size for cell in outcome.placement.cells}
    assert by_host_cell == {"0": HUGE, "1": BASE_PAGE}
    assert outcome.fallbacks == 1


def test_derived_cells_are_the_fewest_that_fit_with_memory_by_vcpu_share() -> None:
    spec = vm(cores=5, memory="1Gi", numa=None)
    wanted = asking(spec, derived_cells=DerivedCells(None))

    outcome = placed(wanted, fleet(host(cells=4)))

    cells = outcome.placement.cells
    assert [str(cell.vcpus) for cell in cells] == ["0-2", "3-4"]
    assert sum(cell.memory for cell in cells) == GIBIBYTE
    assert abs(cells[0].memory * 2 - cells[1].memory * 3) <= 5 * BASE_PAGE
    assert len({str(cell.host_cells) for cell in cells}) == 2
    three = placed(asking(spec, derived_cells=DerivedCells(3)), fleet(host(cells=4)))
    assert len(three.placement.cells) == 3


def test_a_required_device_draws_its_guest_cell_to_its_host_cell() -> None:
    where = fleet(with_nics(host(cells=3), a=2))
    for guest in (0, 1):
        nic = device("nic", NumaAffinity.REQUIRED, guest)
        claim = placed(asking(TWO_CELLS, host_devices=(nic,)), where).placement
        assert claim.cells[guest].host_cells == CpuSet.of(2)
        assert [(one.address, one.host_cell, one.cell) for one in claim.devices] == [
            ("0000:00:00.0", 2, guest)
        ]


def test_a_device_is_claimed_by_one_vm_and_its_iommu_group_with_it() -> None:
    one = with_nics(host(), a=0, b=0, c=1)
    for nic, group in zip(one["status"]["pciDevices"], (7, 7, 8), strict=True):
        nic["iommuGroup"] = group
    wanted = asking(vm(cores=1, memory="64Mi"), host_devices=(device("nic", NumaAffinity.NONE),))
    first = placed(wanted, fleet(one))
    held = fleet(one).with_claim("host-a", "other", first.placement)

    second = placed(wanted, held)
    assert {first.placement.devices[0].address, second.placement.devices[0].address} == {
        "0000:00:00.0",
        "0000:02:00.0",
    }
    both = held.with_claim("host-a", "third", second.placement)
    assert cause(wanted, both) is Cause.DEVICES


def test_a_device_that_the_administrator_does_not_permit_is_not_there() -> None:
    one = with_nics(host(), a=0)
    one["status"]["permitted"] = {"pciDevices": [{"address": "0000:09:00.0"}]}
    wanted = asking(vm(cores=1, memory="64Mi"), host_devices=(device("nic", NumaAffinity.NONE),))

    assert cause(wanted, fleet(one)) is Cause.DEVICES


def test_a_preferred_device_is_near_where_it_can_be() -> None:
    nic = device("nic", NumaAffinity.PREFERRED)
    wanted = asking(vm(cores=2, memory="64Mi"), host_devices=(nic,))

    near = placed(wanted, fleet(with_nics(host(), a=1)))
    assert (near.placement.host_cells, near.astray) == (CpuSet.of(1), 0)
    nowhere = placed(wanted, fleet(with_nics(host(), a=-1)))
    assert nowhere.astray == 1


def test_the_same_socket_is_near_enough_and_no_cell_is_not() -> None:
    nic = device("nic", NumaAffinity.SAME_SOCKET)
    one = with_nics(host(cells=4), a=1)
    for at, cell in enumerate(one["status"]["cells"]):
        for cpu in cell["cpus"]:
            cpu["socket"] = at // 2
    pins = {0: CpuSet.parse("1")}
    other = {0: CpuSet.parse("9")}
    wanted = vm({"cpus": "0", "memory": "64Mi"}, cores=1)

    assert placed(asking(wanted, host_devices=(nic,), vcpu_candidates=pins), fleet(one))
    assert (
        cause(asking(wanted, host_devices=(nic,), vcpu_candidates=other), fleet(one))
        is Cause.DEVICES
    )
    lost = with_nics(host(), a=-1)
    assert cause(asking(wanted, host_devices=(nic,)), fleet(lost)) is Cause.DEVICES


def test_cells_with_devices_are_spared_for_vms_that_ask_for_them() -> None:
    where = fleet(with_nics(host(), a=0))

    assert placed(asking(vm(cores=1, memory="64Mi")), where).placement.host_cells == CpuSet.of(1)


def test_io_threads_go_beside_any_cell_of_the_vm() -> None:
    wanted = asking(
        vm({"cpus": "0-2", "memory": "64Mi"}, {"cpus": "3", "memory": "64Mi"}, cores=4),
        dedicated_io_threads=2,
    )

    claim = placed(wanted, fleet(host())).placement

    assert len(claim.dedicated_cpus) == 6
    assert {cpus.first() // 4 for cpus in claim.io_thread_cpus} == {
        claim.cells[1].host_cells.first()
    }
    assert cause(replace_io(wanted, 3), fleet(host())) is Cause.IO_THREADS


def replace_io(wanted: Request, count: int) -> Request:
    return wanting(replace(wanted.vm, dedicated_io_threads=count))


def test_a_whole_cache_is_the_vms_own() -> None:
    where = fleet(host(cells=1, cores=8, caches=4))
    wanted = asking(vm(cores=3, memory="64Mi"), last_level_cache=LastLevelCache.WHOLE)

    claim = placed(wanted, where).placement

    assert claim.dedicated_cpus == CpuSet.parse("2-5")
    assert len(claim.cells[0].pcpus) == 3
    six = asking(vm(cores=7, memory="64Mi"), last_level_cache=LastLevelCache.WHOLE)
    assert cause(six, where) is Cause.WHOLE_CACHES


def test_room_for_what_may_be_added_is_held_only_where_asked_for() -> None:
    some = {"online_vcpus": CpuSet.of(0), "max_memory": Bytes(3 * GIBIBYTE)}
    spec = vm(cores=3, memory="1Gi")

    bare = placed(asking(spec, **some), fleet(host())).placement
    assert [str(cpus) for cpus in bare.cells[0].pcpus] == ["1", "", ""]
    assert (bare.cells[0].held_vcpus, bare.cells[0].plugged) == (CpuSet.of(0), None)
    full = placed(asking(spec, **some, reserve_maximum=True), fleet(host())).placement
    assert pcpus_of(full) == "1-3"
    assert full.cells[0].plugged == 2 * GIBIBYTE
    assert full.memory_by_host_cell()[0, BASE_PAGE] == 3 * GIBIBYTE + full.overhead


def pcpus_of(claim: Any) -> str:
    return str(CpuSet.union_of(claim.cells[0].pcpus))


def test_plugged_memory_is_booked_with_the_boot_memory() -> None:
    base = effective(NumaVMSpec.model_validate(vm(cores=1, memory="1Gi")))
    plugged = replace(base, cells=(replace(base.cells[0], plugged=Bytes(2 * GIBIBYTE)),))

    assert placed(wanting(plugged), fleet(host(memory="4Gi")))
    assert cause(wanting(plugged), fleet(host(cells=1, memory="2Gi"))) is Cause.MEMORY


def test_a_memory_only_guest_cell_takes_a_host_cell_without_cpus_only_by_name() -> None:
    base = effective(NumaVMSpec.model_validate(vm({"cpus": "0", "memory": "64Mi"}, cores=1)))
    far = replace(base.cells[0], id=1, vcpus=CpuSet())
    one = host()
    one["status"]["cells"][1]["cpus"] = []
    one["status"]["pools"] |= {"dedicated": "1-3", "housekeeping": "0"}

    unnamed = wanting(replace(base, cells=(base.cells[0], far)))
    assert cause(unnamed, fleet(one)) is Cause.HOST_CELLS
    named = replace(far, host_cells=CpuSet.of(1))
    claim = placed(wanting(replace(base, cells=(base.cells[0], named))), fleet(one)).placement
    assert [str(cell.host_cells) for cell in claim.cells] == ["0", "1"]
    assert claim.cells[1].pcpus == []


def with_dimm(**own: Any) -> dict[str, Any]:
    spec = vm(
        {"cpus": "0", "memory": "64Mi"}, {"cpus": "1", "memory": "64Mi"}, cores=2, memory=None
    )
    spec["domain"]["memory"] = {"maxGuest": "4Gi"}
    spec["domain"]["devices"] = {
        "memory": [{"name": "d", "cell": 0, "size": "1Gi", "dimm": {}, **own}]
    }
    return spec


def test_a_module_with_host_cells_of_its_own_is_booked_there_and_not_with_its_cell() -> None:
    one = host(memory="4Gi")
    one["status"]["cells"][0]["memory"]["allocatable"] = "512Mi"
    bound = with_dimm(hostBinding={"hostCells": "1"})
    bound["domain"]["cpu"]["numa"]["cells"][0]["hostBinding"] = {"hostCells": "0"}

    claim = placed(asking(bound), fleet(one)).placement
    (module,) = claim.modules
    assert (module.name, str(module.host_cells), module.mode) == ("d", "1", "Strict")
    assert [cell.plugged for cell in claim.cells] == [None, None]
    assert claim.memory_by_host_cell()[1, BASE_PAGE] >= GIBIBYTE
    one["status"]["cells"][1]["memory"]["allocatable"] = "1Gi"
    assert cause(asking(bound), fleet(one)) is Cause.MEMORY


def test_a_module_in_pages_of_its_own_is_booked_in_them_where_its_cell_is() -> None:
    without, there = host(), host("host-b", huge=512)

    outcome = placed(asking(with_dimm(hugepages={"pageSize": "2Mi"})), fleet(without, there))

    (module,) = outcome.placement.modules
    assert (outcome.node_name, module.page_size) == ("host-b", HUGE)
    assert module.host_cells == outcome.placement.cells[0].host_cells
    assert cause(asking(with_dimm(hugepages={"pageSize": "2Mi"})), fleet(without)) is (
        Cause.HUGE_PAGES
    )


def test_a_module_bound_to_a_host_cell_that_is_not_there_names_it() -> None:
    spec = with_dimm(hostBinding={"hostCells": "7"})
    assert "without host cell 7" in summary(place(asking(spec), fleet(host())))


def with_classes(**classes: str) -> dict[str, Any]:
    """Return a host of two cells with CPUs and of cells without, from number 2 on, of these classes."""
    one = host(cells=2 + len(classes))
    every = ["DRAM", "DRAM", *classes.values()]
    for cell, kind in zip(one["status"]["cells"], every, strict=True):
        cell["class"] = kind
    for cell in one["status"]["cells"][2:]:
        cell["cpus"] = []
    one["status"]["pools"] |= {"dedicated": "1-3,5-7", "housekeeping": "0,4"}
    return one


def of_class(kind: str, **more: Any) -> dict[str, Any]:
    spec = vm(
        {"cpus": "0", "memory": "64Mi"},
        {"memory": "64Mi", "hostCellClass": kind, **more},
        cores=1,
    )
    spec["domain"]["memory"]["backing"] = {"allocation": "OnDemand"}
    return spec


def test_a_guest_cell_of_a_class_is_on_a_host_cell_of_that_class_also_without_cpus() -> None:
    there = fleet(with_classes(two="HBM", three="CXL"))

    for kind, cell in (("HBM", "2"), ("CXL", "3")):
        claim = placed(asking(of_class(kind)), there).placement
        assert str(claim.cells[1].host_cells) == cell
        assert claim.overhead_cell in (0, 1)
    dram = placed(asking(of_class("DRAM")), there).placement
    assert str(dram.cells[1].host_cells) in ("0", "1")


def test_memory_that_is_taken_at_start_needs_cpus_beside_it() -> None:
    one = with_classes(two="DRAM")
    one["status"]["cells"][1]["memory"]["allocatable"] = "32Mi"
    later, at_start = of_class("DRAM"), of_class("DRAM")
    at_start["domain"]["memory"] = {}

    claim = placed(asking(later), fleet(one)).placement
    assert str(claim.cells[1].host_cells) == "2"
    assert cause(asking(at_start), fleet(one)) is Cause.HOST_CELLS


def test_of_two_cells_of_a_class_the_nearer_one_is_taken() -> None:
    one = with_classes(two="CXL", three="CXL")
    for cell, others in enumerate(((10, 20, 30, 22), (20, 10, 24, 26))):
        one["status"]["cells"][cell]["distances"] = [
            {"cell": other, "value": value} for other, value in enumerate(others)
        ]

    claim = placed(asking(of_class("CXL")), fleet(one)).placement
    assert [str(cell.host_cells) for cell in claim.cells] == ["0", "3"]


def test_a_class_that_no_host_cell_has_is_a_cause_that_names_it() -> None:
    there = fleet(with_classes(two="CXL"))
    assert cause(asking(of_class("HBM")), there) is Cause.HOST_CELL_CLASS
    assert "class HBM" in summary(place(asking(of_class("HBM")), there))
    elsewhere = of_class("CXL", hostBinding={"hostCells": "1"})
    assert "CXL on host cell 1" in summary(place(asking(elsewhere), there))


def test_hosts_alike_but_for_the_class_of_a_cell_get_answers_of_their_own() -> None:
    cxl, hbm = with_classes(two="CXL"), with_classes(two="HBM")
    hbm["metadata"] = {"name": "host-b"}

    assert placed(asking(of_class("HBM")), fleet(cxl, hbm)).node_name == "host-b"
    assert placed(asking(of_class("CXL")), fleet(cxl, hbm)).node_name == "host-a"


def test_more_ways_than_are_looked_at_leave_the_answer_open() -> None:
    cells = [{"cpus": str(at), "memory": f"{64 + 2 * at}Mi"} for at in range(10)]
    base = effective(NumaVMSpec.model_validate(vm(*cells, cores=10)))
    many = tuple(
        replace(cell, page_size=HUGE, fallback_page_sizes=(BASE_PAGE,)) for cell in base.cells
    )

    outcome = place(wanting(replace(base, cells=many)), fleet(host(cells=8)), Policy())

    assert isinstance(outcome, Undecided), summary(outcome)


def test_an_empty_fleet_refuses() -> None:
    assert place(asking(TWO_CELLS), Fleet.empty()).hosts == 0
