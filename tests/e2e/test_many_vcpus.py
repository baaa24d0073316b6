"""A guest with more vCPUs than xAPIC can number: all of them come up, each in its cell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from numavm_api.cpuset import CpuSet
from numavm_lab.hosts import HostSpec, LabCell
from numavm_lab.stack import Stack
from support.guests import wait_report
from support.lab_stacks import lab_stack
from support.vms import Vms, condition, vm_manifest

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(2400)]

EACH = 129
"""vCPUs of a cell: two have 258, and an xAPIC's id has eight bits."""
WIDE = HostSpec(name="host-w", kvm=True, cells=(LabCell(cpus=4, memory=4 * 2**30),) * 2)
"""Room for QEMU itself, of which 8 MiB are set aside per vCPU."""

TICKS_LITTLE = "tsc=reliable nowatchdog"
"""Idle vCPUs stop their ticks as soon as the kernel trusts its clock: before, 258 of them take all of eight CPUs."""


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A whole of its own, with the one host."""
    with lab_stack([WIDE]) as made:
        yield made


def test_a_guest_of_more_than_255_vcpus_has_them_all(stack: Stack) -> None:
    host = stack.lab.host(WIDE.name)
    with stack.admin() as api:
        vms = Vms(api, "default")
        vms.patch_host(host.name, cpuAllocationPercent=10000)
        manifest = vm_manifest("wide", [(EACH, "640Mi")] * 2, boots=True, dedicated=False)
        manifest["spec"]["domain"]["firmware"]["kernelBoot"]["args"] += f" {TICKS_LITTLE}"
        vms.create(manifest)
        vm = vms.wait_ready("wide", 600)
        assert vm["status"]["domain"]["type"] == "KVM"
        report = wait_report(host, vm["metadata"]["uid"], deadline_seconds=1500)
        assert report.online_cpus == CpuSet.parse(f"0-{2 * EACH - 1}")
        assert [node.cpus for node in report.nodes] == [
            CpuSet.parse(f"0-{EACH - 1}"),
            CpuSet.parse(f"{EACH}-{2 * EACH - 1}"),
        ]
        # The agent has read each thread's affinity; here it is only counted, by two processes: the host is busy.
        assert condition(vm, "NumaAligned")["status"] == "True"
        names = host.exec(["sh", "-c", "cat /proc/[0-9]*/task/*/comm"], check=False).stdout
        assert len([name for name in names.splitlines() if name.endswith("/KVM")]) == 2 * EACH
        vms.delete_and_wait("wide")
