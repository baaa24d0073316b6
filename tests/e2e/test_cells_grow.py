"""Guests of several cells on real host cells grow and shrink cell by cell, by the word of both kernels."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from numavm_api.cpuset import CpuSet
from numavm_api.quantity import parse_bytes
from numavm_lab.guest import Report
from numavm_lab.hosts import LabHost
from numavm_lab.kernel_view import kernel_view
from support.guests import wait_report
from support.vms import Manifest, Vms, condition, is_ready, vm_manifest

pytestmark = [pytest.mark.lab, pytest.mark.long]

NAME = "four"
MORE = 128
"""MiB of each module: a whole block of Linux."""
DIMM_CELL, VIRTIO_CELL, VCPU_CELL = 2, 1, 3
DIMM = {"name": "stick", "cell": DIMM_CELL, "size": f"{MORE}Mi", "dimm": {}}
NOTHING: Mapping[int, int] = {}


def virtio(requested: int) -> dict[str, object]:
    """Return the module of cell 1, with so many MiB requested."""
    return {
        "name": "rubber",
        "cell": VIRTIO_CELL,
        "size": f"{MORE}Mi",
        "virtioMem": {"requested": f"{requested}Mi"},
    }


def four_cells() -> Manifest:
    """Return a guest of four cells, a vCPU each; the last cell has room for one more."""
    manifest = vm_manifest(
        NAME, [(1, "128Mi"), (1, "128Mi"), (1, "128Mi"), (2, "128Mi")], boots=True
    )
    domain = manifest["spec"]["domain"]
    domain["cpu"] |= {"cores": 1, "sockets": 4, "maxSockets": 5}
    domain["firmware"]["kernelBoot"]["args"] += " memhp_default_state=online_movable"
    domain |= {"type": "TCG", "memory": {"maxGuest": "2Gi"}, "devices": {"memory": [virtio(0)]}}
    manifest["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "host-b"}
    return manifest


def test_four_cells_grow_and_shrink_one_by_one(vms: Vms, host_b: LabHost) -> None:
    vms.create(four_cells())
    vm = vms.wait_ready(NAME, 400)
    uid = vm["metadata"]["uid"]
    booted = guest_says(host_b, uid, {}, NOTHING, cpus="0-3")

    vms.patch(NAME, domain={"devices": {"memory": [virtio(MORE), DIMM]}, "cpu": {"sockets": 5}})
    vm = settled(vms)
    more = {DIMM_CELL: MORE, VIRTIO_CELL: MORE}
    seen = guest_says(host_b, uid, memory_of(booted), more, cpus="0-4")
    assert [str(node.cpus) for node in seen.nodes] == ["0", "1", "2", "3-4"]
    assert_the_host_confirms(host_b, vm, more)

    vms.patch(NAME, domain={"devices": {"memory": [virtio(0)]}})
    vm = settled(vms)
    guest_says(host_b, uid, memory_of(booted), NOTHING, cpus="0-4")
    assert_the_host_confirms(host_b, vm, NOTHING)
    assert vm["status"]["domain"]["starts"] == 1


def memory_of(report: Report) -> dict[int, int]:
    return {node.id: node.memory_kib for node in report.nodes}


def guest_says(
    host: LabHost, uid: str, base: Mapping[int, int], more: Mapping[int, int], *, cpus: str
) -> Report:
    """Wait until the guest's last word is these CPUs, and so many MiB more than `base` on each node."""
    expected = {cell: size + more.get(cell, 0) * 1024 for cell, size in base.items()}
    return wait_report(
        host,
        uid,
        lambda seen: str(seen.online_cpus) == cpus and expected in ({}, memory_of(seen)),
        deadline_seconds=300,
        describe=f"the guest says CPUs {cpus}, memory {expected} KiB",
    )


def assert_the_host_confirms(host: LabHost, vm: Manifest, more: Mapping[int, int]) -> None:
    """Hold each vCPU's thread and each cell's pages against the host cells that were promised."""
    view = kernel_view(host, vm["metadata"]["uid"])
    assert view is not None
    placed = {cell["id"]: cell for cell in vm["status"]["placement"]["cells"]}
    assert len({cell["hostCells"] for cell in placed.values()}) == len(placed)
    affinity = view.vcpu_affinity()
    for cell in placed.values():
        for vcpu, pcpu in zip(CpuSet.parse(cell["vcpus"]), cell["pcpus"], strict=True):
            assert affinity.get(vcpu, CpuSet.parse(pcpu)) == CpuSet.parse(pcpu)
    assert view.resident_bytes() == {
        CpuSet.parse(cell["hostCells"]).first(): parse_bytes(cell["memory"])
        + (more.get(number, 0) << 20)
        for number, cell in placed.items()
    }


def settled(vms: Vms, name: str = NAME) -> Manifest:
    """Wait until this very spec is what the guest has."""
    kinds = ("HotVCPUChange", "HotMemoryChange")
    return vms.wait(
        name,
        lambda vm: (
            is_ready(vm) and all(condition(vm, kind).get("status") == "True" for kind in kinds)
        ),
        300,
        "Ready with what was asked for",
    )


def test_derived_cells_grow_by_their_share_of_the_vcpus(vms: Vms, host_b: LabHost) -> None:
    manifest = vm_manifest("derived", [(2, "128Mi"), (1, "128Mi")], boots=True)
    domain = manifest["spec"]["domain"]
    domain["cpu"] = {
        "cores": 3,
        "dedicatedCpuPlacement": True,
        "numa": {"guestMappingPassthrough": {"cells": 2}},
    }
    domain["firmware"]["kernelBoot"]["args"] += " memhp_default_state=online_movable"
    domain |= {"type": "TCG", "memory": {"guest": "384Mi", "maxGuest": "2Gi"}}
    manifest["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "host-b"}
    vms.create(manifest)
    vm = vms.wait_ready("derived", 400)
    uid = vm["metadata"]["uid"]
    booted = guest_says(host_b, uid, {}, NOTHING, cpus="0-2")
    assert [str(node.cpus) for node in booted.nodes] == ["0-1", "2"]

    vms.patch("derived", domain={"memory": {"guest": "768Mi"}})
    vm = settled(vms, "derived")
    more = {0: 2 * MORE, 1: MORE}
    guest_says(host_b, uid, memory_of(booted), more, cpus="0-2")
    assert_the_host_confirms(host_b, vm, more)
    assert condition(vm, "RestartRequired")["status"] == "False"

    vms.patch("derived", domain={"memory": {"guest": "384Mi"}})
    vm = settled(vms, "derived")
    guest_says(host_b, uid, memory_of(booted), NOTHING, cpus="0-2")
    assert_the_host_confirms(host_b, vm, NOTHING)
    assert vm["status"]["domain"]["starts"] == 1
