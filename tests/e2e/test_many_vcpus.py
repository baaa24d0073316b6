"""A guest with more vCPUs than xAPIC can number: all of them come up, each in its cell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from numavm_api.cpuset import CpuSet
from numavm_lab.hosts import LabHost
from numavm_lab.kernel_view import kernel_view
from support.guests import wait_report
from support.vms import Vms, vm_manifest

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(2400)]

EACH = 129
"""vCPUs of a cell: two have 258, and an xAPIC's id has eight bits."""


@pytest.fixture
def room(vms: Vms, host_a: LabHost) -> Iterator[None]:
    """An administrator who lets host-a's shared CPUs be promised to many."""
    vms.patch_host(host_a.name, cpuAllocationPercent=10000)
    yield
    vms.delete_and_wait()
    vms.patch_host(host_a.name, cpuAllocationPercent=None)


@pytest.mark.usefixtures("room")
def test_a_guest_of_more_than_255_vcpus_has_them_all(vms: Vms, host_a: LabHost) -> None:
    manifest = vm_manifest("wide", [(EACH, "640Mi")] * 2, boots=True, dedicated=False)
    manifest["spec"]["nodeSelector"] = {"kubernetes.io/hostname": host_a.name}
    vms.create(manifest)
    vm = vms.wait_ready("wide", 600)
    assert vm["status"]["domain"]["type"] == "KVM"
    report = wait_report(host_a, vm["metadata"]["uid"], deadline_seconds=1500)
    assert report.online_cpus == CpuSet.parse(f"0-{2 * EACH - 1}")
    assert [node.cpus for node in report.nodes] == [
        CpuSet.parse(f"0-{EACH - 1}"),
        CpuSet.parse(f"{EACH}-{2 * EACH - 1}"),
    ]
    view = kernel_view(host_a, vm["metadata"]["uid"])
    assert view is not None
    assert len(view.vcpu_affinity()) == 2 * EACH
