"""The NUMA model on real host cells: one booted guest that has it all, and an idle one bound by its cgroup only.

The oracles are the host's kernel (numa_maps, scheduling of threads, locked memory) and the guest's own sysfs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from numavm_api.cpuset import CpuSet
from numavm_lab.guest import Report
from numavm_lab.guest.report import GuestAccess, GuestCache
from numavm_lab.hosts import LabHost
from numavm_lab.kernel_view import GuestMapping, KernelView, kernel_view
from numavm_lab.stack import Stack
from support.guests import wait_booted, wait_report
from support.vms import Manifest, Vms, vm_manifest

pytestmark = pytest.mark.lab

MEBIBYTE = 2**20
HOST = "host-a"
"""Two cells of four CPUs, huge pages of 2Mi on both."""
SIZES = {0: 128, 1: 160, 2: 192}
"""MiB of each guest cell, all different, so that each mapping tells whose it is."""
STRICT = {"hostCells": "1", "mode": "Strict"}
PREFERRED = {"hostCells": "0", "mode": "Preferred"}
INTERLEAVE = {"hostCells": "0-1", "mode": "Interleave"}
CELLS: list[dict[str, Any]] = [
    {
        "id": 0,
        "cpus": "0-1",
        "memory": "128Mi",
        "hostBinding": STRICT,
        "hugepages": {"pageSize": "2Mi"},
        "distances": [{"cell": 1, "value": 21}, {"cell": 2, "value": 31}],
    },
    {"id": 1, "cpus": "2-3", "memory": "160Mi", "hostBinding": PREFERRED},
    {
        "id": 2,
        "memory": "192Mi",
        "hostBinding": INTERLEAVE,
        "caches": [{"level": 1, "policy": "Writeback", "size": "64Mi", "lineBytes": 64}],
    },
]
LINKS = {
    "latencies": [
        {"initiator": 0, "target": 0, "type": "Access", "latencyNanoseconds": 80},
        {"initiator": 1, "target": 1, "type": "Access", "latencyNanoseconds": 90},
        {"initiator": 0, "target": 2, "type": "Access", "latencyNanoseconds": 200},
    ],
    "bandwidths": [
        {"initiator": 0, "target": 0, "type": "Access", "bytesPerSecond": "100Gi"},
        {"initiator": 1, "target": 1, "type": "Access", "bytesPerSecond": "100Gi"},
        {"initiator": 0, "target": 2, "type": "Access", "bytesPerSecond": "25Gi"},
    ],
}


def all_of_it() -> Manifest:
    """Return a VM of three guest cells, one of them memory only, with one vCPU off and one under SCHED_FIFO."""
    manifest = vm_manifest("all-of-it", [], boots=True, spec={"nodeSelector": {}})
    cpu = {
        "sockets": 2,
        "cores": 2,
        "onlineVcpus": "0-2",
        "dedicatedCpuPlacement": True,
        "realtime": {"mask": "1", "priority": 5},
        "numa": {"cells": CELLS, "interconnects": LINKS},
    }
    manifest["spec"]["domain"] |= {"cpu": cpu, "memory": {"backing": {"allocationThreads": 2}}}
    return manifest


@pytest.fixture(scope="module")
def host(stack: Stack) -> LabHost:
    return stack.lab.host(HOST)


@pytest.fixture(scope="module")
def permitted(module_vms: Vms) -> Iterator[Vms]:
    """The host's administrator permits realtime threads for as long as these tests run."""
    module_vms.patch_host(HOST, permitted={"realtime": True, "lockedMemory": True})
    for other in module_vms.hosts():
        if other["metadata"]["name"] != HOST:
            module_vms.patch_host(other["metadata"]["name"], unschedulable=True)
    yield module_vms
    module_vms.patch_host(HOST, permitted={"realtime": None, "lockedMemory": None})
    for other in module_vms.hosts():
        module_vms.patch_host(other["metadata"]["name"], unschedulable=None)


@pytest.fixture(scope="module")
def vm(permitted: Vms, host: LabHost) -> Iterator[Manifest]:
    permitted.create(all_of_it())
    wait_booted(permitted, host, "all-of-it")
    yield permitted.wait_ready("all-of-it", deadline_seconds=180)
    permitted.delete_and_wait("all-of-it")


@pytest.fixture(scope="module")
def kernel(host: LabHost, vm: Manifest) -> KernelView:
    view = kernel_view(host, vm["metadata"]["uid"])
    assert view is not None
    return view


@pytest.fixture(scope="module")
def guest(host: LabHost, vm: Manifest) -> Report:
    return wait_report(host, vm["metadata"]["uid"])


def memory_of(kernel: KernelView, cell: int) -> GuestMapping:
    (found,) = [
        one for one in kernel.mappings if sum(one.resident_bytes.values()) == SIZES[cell] * MEBIBYTE
    ]
    return found


def test_a_strict_cell_in_huge_pages_is_bound_to_its_host_cell(kernel: KernelView) -> None:
    memory = memory_of(kernel, 0)

    assert (memory.policy, str(memory.nodeset), memory.huge) == ("bind", "1", True)
    assert memory.resident_bytes == {1: 128 * MEBIBYTE}


def test_a_preferred_cell_lies_where_it_was_preferred(kernel: KernelView) -> None:
    memory = memory_of(kernel, 1)

    assert (memory.policy, str(memory.nodeset), memory.huge) == ("prefer", "0", False)
    assert memory.resident_bytes == {0: 160 * MEBIBYTE}


def test_an_interleaved_cell_lies_half_and_half(kernel: KernelView) -> None:
    memory = memory_of(kernel, 2)

    assert (memory.policy, str(memory.nodeset)) == ("interleave", "0-1")
    assert memory.resident_bytes == {0: 96 * MEBIBYTE, 1: 96 * MEBIBYTE}


def test_a_vcpu_that_is_off_has_no_thread(kernel: KernelView, guest: Report) -> None:
    assert sorted(kernel.vcpu_affinity()) == [0, 1, 2]
    assert str(guest.online_cpus) == "0-2"
    assert str(guest.possible_cpus) == "0-3"


def test_one_vcpu_runs_under_sched_fifo(host: LabHost, kernel: KernelView) -> None:
    script = 'for t in /proc/$1/task/*; do echo "$(cat $t/comm)|$(chrt -p ${t##*/} | tr "\\n" " ")"; done'
    lines = host.exec(["sh", "-c", script, "chrt", str(kernel.pid)]).stdout.splitlines()
    said = dict(line.split("|", 1) for line in lines)
    vcpus = {name.partition("/")[0]: text for name, text in said.items() if "CPU " in name}

    assert {name for name, text in vcpus.items() if "SCHED_FIFO" in text} == {"CPU 1"}
    assert "priority: 5" in vcpus["CPU 1"]


def test_realtime_brings_locked_memory_along(host: LabHost, kernel: KernelView) -> None:
    text = host.exec(["grep", "VmLck", f"/proc/{kernel.pid}/status"]).stdout
    locked = int(text.split()[1]) * 1024

    # Huge pages are never swapped out, and the kernel does not count them.
    assert locked >= (SIZES[1] + SIZES[2]) * MEBIBYTE


def test_the_guest_sees_a_cell_without_cpus(guest: Report) -> None:
    assert {node.id: str(node.cpus) for node in guest.nodes} == {0: "0-1", 1: "2", 2: ""}
    assert guest.nodes[2].memory_kib > 0.7 * SIZES[2] * 1024


def test_the_guest_sees_the_distances(guest: Report) -> None:
    assert [node.distances for node in guest.nodes] == [(10, 21, 31), (21, 10, 20), (31, 20, 10)]


def test_the_guest_sees_the_hmat(guest: Report) -> None:
    # Its kernel tells bandwidths in MiB a second; type Access is for reads and writes alike.
    assert guest.nodes[0].access == access(0, 80, 100 * 1024)
    assert guest.nodes[1].access == access(1, 90, 100 * 1024)
    assert guest.nodes[2].access == access(0, 200, 25 * 1024)


def access(initiator: int, latency: int, bandwidth: int) -> GuestAccess:
    return GuestAccess(
        initiators=(initiator,),
        read_latency=latency,
        write_latency=latency,
        read_bandwidth=bandwidth,
        write_bandwidth=bandwidth,
    )


def test_the_guest_sees_the_cache_in_front_of_its_memory(guest: Report) -> None:
    cache = GuestCache(level=1, size=64 * MEBIBYTE, line_size=64, indexing=0, write_policy=0)

    assert guest.nodes[2].caches == (cache,)
    assert guest.nodes[0].caches == ()


def test_status_says_the_same(vm: Manifest) -> None:
    cells = vm["status"]["numa"]["cells"]

    assert [cell["hostCells"] for cell in cells] == ["1", "0", "0-1"]
    assert all(cell["pinned"] and cell["aligned"] for cell in cells)
    assert vm["status"]["currentCPUTopology"]["onlineVcpus"] == "0-2"


def test_restrictive_is_held_by_the_cgroup_alone(host: LabHost, permitted: Vms) -> None:
    restrictive = {"hostCells": "1", "mode": "Restrictive"}
    manifest = vm_manifest("restrictive", [(1, "64Mi")], dedicated=False)
    manifest["spec"]["domain"]["cpu"]["numa"]["hostBinding"] = restrictive
    permitted.create(manifest)
    made = permitted.wait_ready("restrictive", deadline_seconds=120)
    view = kernel_view(host, made["metadata"]["uid"])
    assert view is not None
    script = "cat /proc/$1/status | sed -n 's/^Mems_allowed_list:[[:space:]]*//p'"
    allowed = host.exec(["sh", "-c", script, "mems", str(view.pid)]).stdout.strip()

    assert view.mappings == ()  # no policy of QEMU's
    assert allowed == "1"
    assert made["status"]["numa"]["cells"][0]["resident"][0]["hostCell"] == 1


def test_a_power_that_the_host_does_not_permit_is_refused(permitted: Vms) -> None:
    permitted.patch_host(HOST, permitted={"lockedMemory": None})
    manifest = vm_manifest("locked", [(1, "64Mi")], dedicated=False)
    manifest["spec"]["domain"]["memory"] = {"backing": {"locked": True}}
    permitted.create(manifest)

    made = permitted.wait(
        "locked", lambda seen: bool(refusals(seen)), 60, "refused", poll_seconds=0.5
    )
    assert "spec.permitted.lockedMemory" in refusals(made)[0]["message"]


def refusals(vm: Manifest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = vm.get("status", {}).get("refusals", [])
    return found


def test_a_cpuset_by_hand_is_where_shared_vcpus_float(host: LabHost, permitted: Vms) -> None:
    pinning = {"cpuset": "1-3,^2", "vcpus": [{"vcpu": 1, "cpuset": "2,3"}]}
    numa = {"hostBinding": {"hostCells": "0"}}
    manifest = vm_manifest("by-hand", [(2, "64Mi")], dedicated=False, cpu={"pinning": pinning})
    manifest["spec"]["domain"]["cpu"]["numa"] |= numa
    permitted.create(manifest)
    made = permitted.wait_ready("by-hand", deadline_seconds=120)
    view = kernel_view(host, made["metadata"]["uid"])
    assert view is not None
    pools = permitted.host(HOST)["status"]["pools"]
    shared = CpuSet.parse(pools["shared"])

    assert view.vcpu_affinity() == {
        0: CpuSet.of(1, 3) & shared,
        1: CpuSet.of(2, 3) & shared,
    }
