"""What is promised is what the kernel and the guest say: one booted guest, many checks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from numavm_api.cpuset import CpuSet
from numavm_api.quantity import parse_bytes
from numavm_lab.guest import Report
from numavm_lab.hosts import LabHost
from numavm_lab.kernel_view import KernelView, kernel_view
from numavm_lab.stack import Stack
from support.examples import example
from support.guests import wait_report
from support.vms import Manifest, Vms, condition

pytestmark = pytest.mark.lab

MEBIBYTE = 1024**2


@pytest.fixture(scope="module")
def two_cells(module_vms: Vms) -> Iterator[Manifest]:
    """The shipped example, running: two guest cells, dedicated CPUs, strict memory."""
    module_vms.create(example("two-cells"))
    yield module_vms.wait_ready("two-cells")
    module_vms.delete_and_wait("two-cells")


@pytest.fixture(scope="module")
def host(stack: Stack, two_cells: Manifest) -> LabHost:
    """The host that the scheduler chose."""
    return stack.lab.host(two_cells["status"]["nodeName"])


@pytest.fixture(scope="module")
def kernel(host: LabHost, two_cells: Manifest) -> KernelView:
    """What the host's kernel says of it."""
    view = kernel_view(host, two_cells["metadata"]["uid"])
    assert view is not None
    return view


@pytest.fixture(scope="module")
def guest(host: LabHost, two_cells: Manifest) -> Report:
    """The guest's own report on its serial console."""
    return wait_report(host, two_cells["metadata"]["uid"], deadline_seconds=300)


def test_each_vcpu_thread_is_allowed_on_exactly_its_one_cpu(
    two_cells: Manifest, kernel: KernelView
) -> None:
    promised = {
        vcpu: CpuSet.parse(pcpu)
        for cell in two_cells["status"]["placement"]["cells"]
        for vcpu, pcpu in zip(CpuSet.parse(cell["vcpus"]), cell["pcpus"], strict=True)
    }

    assert promised == kernel.vcpu_affinity()
    assert [len(cpus) for cpus in promised.values()] == [1, 1, 1, 1]
    assert len(CpuSet.union_of(promised.values())) == 4


def test_no_other_thread_of_the_vm_may_run_on_a_promised_cpu(
    two_cells: Manifest, kernel: KernelView
) -> None:
    dedicated = CpuSet.parse(two_cells["status"]["placement"]["dedicatedCpus"])
    others = {
        name: cpus & dedicated
        for name, cpus in kernel.threads.items()
        if not name.startswith("CPU ")
    }

    assert {name: str(cpus) for name, cpus in others.items() if cpus} == {}


def test_every_guest_page_is_bound_to_and_resident_on_its_promised_cell(
    two_cells: Manifest, kernel: KernelView
) -> None:
    promised = {
        CpuSet.parse(cell["hostCells"]).first(): parse_bytes(cell["memory"])
        for cell in two_cells["status"]["placement"]["cells"]
    }

    assert {"bind"} == {mapping.policy for mapping in kernel.mappings}
    for mapping in kernel.mappings:
        assert set(mapping.resident_bytes) <= set(mapping.nodeset)
        assert len(mapping.nodeset) == 1
    assert promised == kernel.resident_bytes()


def test_the_cpus_of_a_guest_cell_are_cpus_of_its_host_cell(
    two_cells: Manifest, host: LabHost
) -> None:
    for cell in two_cells["status"]["placement"]["cells"]:
        path = f"/sys/devices/system/node/node{cell['hostCells']}/cpulist"
        of_host_cell = CpuSet.parse(host.exec(["cat", path]).stdout)

        assert CpuSet.union_of(map(CpuSet.parse, cell["pcpus"])) <= of_host_cell


def test_the_guest_sees_the_cells_of_its_spec(two_cells: Manifest, guest: Report) -> None:
    declared = two_cells["spec"]["domain"]["cpu"]["numa"]["cells"]

    assert [cell["id"] for cell in declared] == [node.id for node in guest.nodes]
    assert [CpuSet.parse(cell["cpus"]) for cell in declared] == [node.cpus for node in guest.nodes]
    for cell, node in zip(declared, guest.nodes, strict=True):
        size = parse_bytes(cell["memory"]) // 1024
        # MemTotal is less than the cell: the kernel keeps its own image and page structs out of it.
        assert 0.7 * size < node.memory_kib <= size


def test_status_says_what_the_kernel_says(two_cells: Manifest, kernel: KernelView) -> None:
    status = two_cells["status"]
    said = {
        one["hostCell"]: one["bytes"]
        for cell in status["numa"]["cells"]
        for one in cell["resident"]
    }

    assert said == kernel.resident_bytes()
    assert all(cell["pinned"] and cell["aligned"] for cell in status["numa"]["cells"])
    assert condition(two_cells, "NumaAligned")["status"] == "True"
    assert status["printableStatus"] == "Running"
    assert status["placement"]["id"] == status["domain"]["placementId"]
    assert two_cells["metadata"]["uid"] == status["domain"]["uuid"]


def test_libvirt_knows_the_domain_as_transient_and_by_the_uid(
    two_cells: Manifest, host: LabHost
) -> None:
    info = host.exec(["virsh", "dominfo", two_cells["metadata"]["uid"]]).stdout
    said = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)

    assert said["Persistent"].strip() == "no"
    assert said["State"].strip() == "running"


def test_the_host_reports_the_claim(two_cells: Manifest, module_vms: Vms) -> None:
    host = module_vms.host(two_cells["status"]["nodeName"])
    claims = {one["uid"]: one["placement"] for one in host["status"]["claims"]}

    assert two_cells["status"]["placement"] == claims[two_cells["metadata"]["uid"]]
