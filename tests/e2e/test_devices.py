"""Devices on real host cells: modules, expander buses of both machines, a host device by VFIO, the balloon at boot.

The oracles are the guest's sysfs and the host's numa_maps. The host has an IOMMU and a network card on the bus of its
cell 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from numavm_api.cpuset import CpuSet
from numavm_lab.guest import Report
from numavm_lab.hosts import LabHost
from numavm_lab.kernel_view import KernelView, kernel_view
from numavm_lab.stack import Stack
from support.guests import wait_booted, wait_report
from support.vms import Manifest, Vms, is_ready, vm_manifest

pytestmark = pytest.mark.lab

HOST = "host-a"
CARD = {"vendor": "8086", "device": "10d3"}
"""Intel 82574L, QEMU's e1000e: what the host gives away."""
BALLOON = ("1af4", "1002")
MEBIBYTE = 2**20
CELL, DIMM, VIRTIO_MEM, REQUESTED, TARGET = 160, 128, 256, 128, 288
"""MiB: a guest cell, the module of cell 0, the module of cell 1 and what is requested of it, the balloon's target.

The balloon takes little: QEMU gives its pages back one by one under its lock, which costs much on an emulated host, and
its vCPUs wait for that lock. With 128 MiB to give back, a vCPU of this guest was once seen to stand still for 55 s.
"""


def booting(name: str, **domain: Any) -> Manifest:
    """Return a VM of two cells that boots the witness, and takes memory that is plugged in into use by itself."""
    size = f"{CELL}Mi"
    manifest = vm_manifest(name, [(1, size), (1, size)], boots=True, dedicated=False)
    given = manifest["spec"]["domain"]
    # No bounce buffer of 64 MiB, which Linux sets aside of one cell where memory may be plugged in.
    given["firmware"]["kernelBoot"]["args"] += " memhp_default_state=online_movable swiotlb=noforce"
    manifest["spec"] |= {
        "networks": [{"name": "net", "user": {}}],
        "nodeSelector": {"kubernetes.io/hostname": HOST},
    }
    manifest["spec"]["domain"] = {**given, **domain}
    return manifest


EXPRESS = booting(
    "express",
    memory={"maxGuest": "2Gi", "slots": 4},
    devices={
        "interfaces": [{"name": "net", "cell": 0}],
        "memory": [
            {"name": "stick", "cell": 0, "size": f"{DIMM}Mi", "dimm": {"slot": 2}},
            {
                "name": "rubber",
                "cell": 1,
                "size": f"{VIRTIO_MEM}Mi",
                "virtioMem": {"requested": f"{REQUESTED}Mi"},
            },
        ],
        "hostDevices": [{"name": "card", "cell": 1, "source": {"selector": CARD}}],
    },
)
CONVENTIONAL = booting(
    "conventional",
    machine={"type": "pc"},
    memory={"balloon": {"target": f"{TARGET}Mi", "statsPeriodSeconds": 2, "cell": 1}},
    devices={"interfaces": [{"name": "net", "cell": 0, "model": "virtio"}]},
)


@pytest.fixture(scope="module")
def host(stack: Stack) -> LabHost:
    return stack.lab.host(HOST)


@pytest.fixture(scope="module")
def vms(module_vms: Vms) -> Iterator[Vms]:
    """Both VMs, on their way; the administrator permits the card."""
    module_vms.patch_host(HOST, permitted={"pciDevices": [CARD]})
    module_vms.create(EXPRESS)
    module_vms.create(CONVENTIONAL)
    yield module_vms
    module_vms.delete_and_wait()
    module_vms.patch_host(HOST, permitted={"pciDevices": None})


def figures(vm: Manifest) -> dict[str, Any]:
    return dict(vm.get("status", {}).get("memory", {}))


def has_grown(vm: Manifest) -> bool:
    """Tell whether the guest has all that is requested of the virtio-mem device."""
    modules = figures(vm).get("devices", [])
    grown = [one for one in modules if one["model"] == "virtio-mem"]
    return is_ready(vm) and bool(grown) and grown[0].get("current") == f"{REQUESTED}Mi"


def has_shrunk(vm: Manifest) -> bool:
    """Tell whether the guest has given back what the balloon asks for, and speaks of itself."""
    balloon = figures(vm).get("balloon", {})
    return is_ready(vm) and balloon.get("actual") == f"{TARGET}Mi" and balloon.get("stale") is False


@pytest.fixture(scope="module")
def express(vms: Vms, host: LabHost) -> Manifest:
    wait_booted(vms, host, "express")
    return vms.wait("express", has_grown, 300, "Ready, virtio-mem at what is requested")


@pytest.fixture(scope="module")
def conventional(vms: Vms, host: LabHost) -> Manifest:
    wait_booted(vms, host, "conventional")
    return vms.wait("conventional", has_shrunk, 300, "Ready, balloon at its target")


def report_of(host: LabHost, vm: Manifest, until: Callable[[Report], bool]) -> Report:
    """Return the guest's newest report, once it is as `until` wants it."""
    about = f"a report of {vm['metadata']['name']}"
    return wait_report(host, vm["metadata"]["uid"], until, describe=about)


@pytest.fixture(scope="module")
def express_guest(host: LabHost, express: Manifest) -> Report:
    enough = 0.7 * (CELL + REQUESTED) * 1024
    return report_of(
        host, express, lambda seen: min(node.memory_kib for node in seen.nodes) > enough
    )


@pytest.fixture(scope="module")
def kernel(host: LabHost, express: Manifest) -> KernelView:
    view = kernel_view(host, express["metadata"]["uid"])
    assert view is not None
    return view


def home_of(vm: Manifest) -> dict[int, int]:
    """Return guest cell -> host cell, as promised."""
    return {
        cell["id"]: CpuSet.parse(cell["hostCells"]).first()
        for cell in vm["status"]["placement"]["cells"]
    }


def test_the_guest_sees_each_module_in_its_cell(express_guest: Report) -> None:
    sizes = {0: CELL + DIMM, 1: CELL + REQUESTED}

    for node in express_guest.nodes:
        # MemTotal is less than the cell: the kernel keeps its own image and page structs out of it.
        assert 0.7 * sizes[node.id] * 1024 < node.memory_kib <= sizes[node.id] * 1024


def test_each_module_lies_on_the_host_cell_of_its_guest_cell(
    express: Manifest, kernel: KernelView
) -> None:
    home = home_of(express)
    bound = [one for one in kernel.mappings if one.policy == "bind"]
    promised = {home[0]: CELL + DIMM, home[1]: CELL + REQUESTED}

    assert {one.nodeset.first() for one in bound} == set(home.values())
    for mapping in bound:
        assert set(mapping.resident_bytes) <= set(mapping.nodeset)
    assert promised == {cell: size // MEBIBYTE for cell, size in kernel.resident_bytes().items()}


def test_the_claim_holds_the_modules(express: Manifest) -> None:
    plugged = {cell["id"]: cell["plugged"] for cell in express["status"]["placement"]["cells"]}

    assert plugged == {0: f"{DIMM}Mi", 1: f"{REQUESTED}Mi"}


def test_status_lists_the_modules(express: Manifest) -> None:
    memory = figures(express)

    assert memory["devices"] == [
        {
            "name": "rubber",
            "model": "virtio-mem",
            "cell": 1,
            "size": f"{VIRTIO_MEM}Mi",
            "requested": f"{REQUESTED}Mi",
            "current": f"{REQUESTED}Mi",
        },
        {"name": "stick", "model": "dimm", "cell": 0, "size": f"{DIMM}Mi"},
    ]
    assert memory["guestCurrent"] == f"{2 * CELL + DIMM + REQUESTED}Mi"


def test_a_card_behind_a_pcie_expander_has_the_node_of_its_cell(express_guest: Report) -> None:
    assert [nic.node for nic in express_guest.nics] == [0]


def test_the_host_device_is_behind_the_bus_of_its_cell(express_guest: Report) -> None:
    cards = [one for one in express_guest.pci if (one.vendor, one.device) == tuple(CARD.values())]

    assert [card.node for card in cards] == [1]


def test_the_guest_cell_of_the_host_device_is_on_the_devices_host_cell(
    express: Manifest, host: LabHost
) -> None:
    (held,) = express["status"]["placement"]["devices"]
    node = host.exec(["cat", f"/sys/bus/pci/devices/{held['address']}/numa_node"]).stdout.strip()
    driver = host.exec(["readlink", f"/sys/bus/pci/devices/{held['address']}/driver"]).stdout

    assert home_of(express)[1] == int(node) == held["hostCell"] == 1
    assert driver.strip().endswith("/vfio-pci")


def test_the_boot_balloon_is_what_the_guest_has_given_back(conventional: Manifest) -> None:
    balloon = figures(conventional)["balloon"]

    assert (balloon["target"], balloon["actual"]) == (f"{TARGET}Mi", f"{TARGET}Mi")
    assert "usable" in balloon


def test_behind_a_conventional_expander_the_guest_sees_the_node_of_the_cell(
    host: LabHost, conventional: Manifest
) -> None:
    seen = report_of(host, conventional, lambda report: bool(report.nics))
    balloons = [one.node for one in seen.pci if (one.vendor, one.device) == BALLOON]

    assert [nic.node for nic in seen.nics] == [0]
    assert balloons == [1]
