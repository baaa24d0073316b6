"""What `numavm topology`, `describe` and `freeze` make of objects."""

from io import StringIO

import pytest
from rich.console import Console, RenderableType

from numavm_api.cpuset import CpuSet
from numavm_api.errors import RejectedError
from numavm_api.quantity import GIBIBYTE, MEBIBYTE
from numavm_api.reading import read_spec
from numavm_cli.views.freeze import frozen_manifest
from numavm_cli.views.host import CpuUse, PagesView, host_view
from numavm_cli.views.topology import bar, host_map, human
from numavm_cli.views.vm import vm_view
from numavm_cli.views.vm_text import vm_screen
from support.fleet_objects import db, host_a, web


def text_of(screen: RenderableType) -> str:
    out = StringIO()
    Console(file=out, width=160, highlight=False).print(screen)
    return out.getvalue()


def test_each_cpu_has_its_owner_and_use() -> None:
    view = host_view(host_a(), [db(), web()])

    uses = {cpu.id: (cpu.use, cpu.vm, cpu.vcpu) for cell in view.cells for cpu in cell.cpus}
    assert uses == {
        0: (CpuUse.HOUSEKEEPING, None, None),
        1: (CpuUse.FREE, None, None),
        2: (CpuUse.VCPU, "prod/db", 0),
        3: (CpuUse.VCPU, "prod/db", 1),
        4: (CpuUse.HOUSEKEEPING, None, None),
        5: (CpuUse.FREE, None, None),
        6: (CpuUse.EMULATOR, "prod/db", None),
        7: (CpuUse.KEPT_FREE, "prod/db", None),
    }


def test_a_claim_that_the_host_does_not_report_yet_counts_once_and_is_marked() -> None:
    view = host_view(host_a(), [db(), web()])

    assert [(vm.name, vm.running) for vm in view.vms] == [("prod/db", True), ("prod/web", False)]
    assert view.cells[0].floating == {}
    assert view.cells[1].floating == {"prod/web": 3}


def test_memory_held_is_by_page_size_and_cell() -> None:
    view = host_view(host_a(), [web()])

    held = {(cell.id, int(page.page_size)): page.held for cell in view.cells for page in cell.pages}
    assert held == {
        (0, 4096): 0,
        (0, 2 * MEBIBYTE): GIBIBYTE,
        (1, 4096): (256 + 512 + 128) * MEBIBYTE,
        (1, 2 * MEBIBYTE): 0,
    }
    assert view.cells[0].pages[0].total == 6 * GIBIBYTE


def test_the_map_shows_cores_owners_and_devices() -> None:
    text = text_of(host_map(host_view(host_a(), [db(), web()])))

    flat = text.replace("\u00a0", " ")
    assert "[0:h 1:.] [2:A0 3:A1]" in flat
    assert "[4:h 5:.] [6:Ae 7:A-]" in flat
    assert "A prod/db  0->0 Dedicated" in flat
    assert "claimed, not reported yet" in flat
    assert "0000:65:00.0 cell 1 8086:10d3" in flat
    assert "B 3 vCPU" in flat


def test_a_device_that_a_vm_holds_is_shown_with_both() -> None:
    held = {"name": "nic", "address": "0000:65:00.0", "hostCell": 1, "cell": 0}
    host, vm = host_a(), db()
    host["status"]["claims"][0]["placement"]["devices"] = [held]
    vm["status"]["placement"]["devices"] = [held]

    view = host_view(host, [vm])
    assert [(device.address, device.vm) for device in view.devices] == [("0000:65:00.0", "prod/db")]
    assert "IOMMU group 7 A prod/db" in text_of(host_map(view))
    assert vm_view(vm).devices[0].address == "0000:65:00.0"
    assert "0000:65:00.0" in text_of(vm_screen(vm_view(vm)))


@pytest.mark.parametrize(
    ("total", "allocatable", "held", "expected"),
    [
        (100, 100, 0, "░░░░░░░░░░"),
        (100, 80, 50, "█████░░░··"),
        (100, 80, 1, "█░░░░░░░··"),
        (100, 0, 0, "··········"),
        (100, 50, 100, "██████████"),
        (0, 0, 0, "··········"),
    ],
)
def test_a_bar_shows_held_to_give_and_out_of_reach(
    total: int, allocatable: int, held: int, expected: str
) -> None:
    page = PagesView.model_validate(
        {
            "pageSize": 4096,
            "total": total,
            "allocatable": allocatable,
            "held": held,
            "free": 0,
        }
    )

    assert bar(page, 10) == expected


@pytest.mark.parametrize(
    ("amount", "words"),
    [(0, "0"), (512, "512"), (1536 * MEBIBYTE, "1.5Gi"), (8 * GIBIBYTE, "8Gi"), (2048, "2Ki")],
)
def test_amounts_for_people(amount: int, words: str) -> None:
    assert human(amount) == words


def test_a_vm_is_described_with_promise_and_proof() -> None:
    view = vm_view(db())

    assert [(row.vcpu, row.promised, row.confirmed) for row in view.threads] == [
        (0, CpuSet.of(2), True),
        (1, CpuSet.of(3), True),
    ]
    assert view.resident[0].megabytes == {0: 1022.0, 1: 2.0}
    assert view.resident[0].total == 1024
    assert (view.cells[0].pinned, view.cells[0].aligned) == (True, False)
    assert view.pending == [
        "spec.domain.cpu.cores 2 -> 4",
        "spec.domain.machine.type q35 -> pc",
    ]


def test_the_screen_has_the_views_of_numastat_and_taskset() -> None:
    text = text_of(vm_screen(vm_view(db())))

    assert "Node 0" in text
    assert "1022.00" in text
    assert "Pending until a restart" in text
    assert "PagesMisplaced" in text
    assert " NO" in text


def test_a_vm_without_status_is_described_too() -> None:
    vm = db()
    del vm["status"]

    text = text_of(vm_screen(vm_view(vm)))

    assert "prod/db" in text
    assert "neither operator nor agent has seen it" in text


def test_a_frozen_manifest_names_node_host_cells_and_keeps_the_rest() -> None:
    manifest = frozen_manifest(db())

    assert manifest["metadata"] == {"name": "db", "namespace": "prod", "labels": {"app": "db"}}
    assert "status" not in manifest
    assert manifest["spec"]["nodeSelector"] == {
        "disk": "fast",
        "kubernetes.io/hostname": "host-a",
    }
    assert manifest["spec"]["domain"]["cpu"]["numa"]["cells"] == [
        {
            "id": 0,
            "cpus": "0-1",
            "memory": "1Gi",
            "hugepages": {"pageSize": "2Mi"},
            "hostBinding": {"hostCells": "0", "mode": "Strict"},
        }
    ]
    assert not isinstance(read_spec(manifest["spec"]), list)


def test_each_vcpu_is_pinned_to_the_cpu_that_it_has() -> None:
    assert frozen_manifest(db())["spec"]["domain"]["cpu"]["pinning"] == {
        "vcpus": [{"vcpu": 0, "cpuset": "2"}, {"vcpu": 1, "cpuset": "3"}]
    }


def test_derived_cells_are_declared_with_the_hosts_distances() -> None:
    vm = db()
    vm["spec"]["domain"]["memory"] = {"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}}
    vm["spec"]["domain"]["cpu"]["numa"] = {"guestMappingPassthrough": {"cells": 1}}
    manifest = frozen_manifest(vm)

    numa = manifest["spec"]["domain"]["cpu"]["numa"]
    assert numa["distances"] == "FromHost"
    assert [cell["memory"] for cell in numa["cells"]] == ["1Gi"]
    assert not isinstance(read_spec(manifest["spec"]), list)


def test_cells_that_nobody_declared_are_declared_when_frozen() -> None:
    manifest = frozen_manifest(web())

    assert manifest["spec"]["domain"]["cpu"]["numa"]["cells"] == [
        {
            "id": 0,
            "memory": "512Mi",
            "cpus": "0-2",
            "hostBinding": {"hostCells": "1", "mode": "Preferred"},
        }
    ]
    assert not isinstance(read_spec(manifest["spec"]), list)


def test_what_has_no_place_cannot_be_frozen() -> None:
    vm = db()
    del vm["status"]["placement"]

    with pytest.raises(RejectedError, match=r"status\.placement is empty"):
        frozen_manifest(vm)
