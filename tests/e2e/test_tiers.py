"""Memory of a class, and a module that lies apart from its guest cell, on real host cells.

The host is one of its own, with a cell without CPUs of which its HMAT says that it is slow. The oracle is numa_maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from numavm_api.cpuset import CpuSet
from numavm_lab.hosts import LabHost
from numavm_lab.hosts.model import load_hosts
from numavm_lab.kernel_view import kernel_view
from numavm_lab.stack import Stack
from support.lab_stacks import lab_stack
from support.vms import Manifest, Vms, vm_manifest
from support.wait import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.long]

HOSTS = Path(__file__).resolve().parents[2] / "deploy" / "lab" / "tiers.yaml"
HOST = "host-t"
MEBIBYTE = 2**20
CELL, DIMM, SLOW_CELL, WRITTEN = 96, 128, 160, 64
"""MiB: a guest cell, the module, a guest cell of slow memory, what its guest writes to there."""
SLOW = 2
"""The host cell without CPUs."""


def apart() -> Manifest:
    """Return an idle VM on host cell 0 with a module in huge pages of host cell 1."""
    made = vm_manifest("apart", [(1, f"{CELL}Mi")])
    made["spec"]["domain"]["cpu"]["numa"]["cells"][0]["hostBinding"] = {"hostCells": "0"}
    module = {
        "name": "stick",
        "cell": 0,
        "size": f"{DIMM}Mi",
        "dimm": {},
        "hostBinding": {"hostCells": "1"},
        "hugepages": {"pageSize": "2Mi"},
    }
    made["spec"]["domain"] |= {
        "memory": {"maxGuest": "1Gi", "slots": 2},
        "devices": {"memory": [module]},
    }
    return made


def tiered() -> Manifest:
    """Return a guest with slow memory in a cell of its own, to which it writes."""
    made = vm_manifest("tiered", [(1, "128Mi")], boots=True)
    domain = made["spec"]["domain"]
    domain["cpu"]["numa"]["cells"].append(
        {"id": 1, "memory": f"{SLOW_CELL}Mi", "hostCellClass": "CXL"}
    )
    domain["memory"] = {"backing": {"allocation": "OnDemand"}}
    domain["firmware"]["kernelBoot"]["args"] += f" numavm.write=1:{WRITTEN}M"
    return made


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A whole of its own, with the one host."""
    with lab_stack(load_hosts(HOSTS)) as made:
        yield made


@pytest.fixture(scope="module")
def host(stack: Stack) -> LabHost:
    return stack.lab.host(HOST)


@pytest.fixture
def vms(stack: Stack) -> Iterator[Vms]:
    with stack.admin() as api:
        made = Vms(api, "default")
        yield made
        made.delete_and_wait()


def test_a_cell_without_cpus_has_the_class_that_its_hmat_tells(vms: Vms) -> None:
    cells = {cell["id"]: cell["class"] for cell in vms.host(HOST)["status"]["cells"]}

    assert cells == {0: "DRAM", 1: "DRAM", SLOW: "CXL"}


def test_a_module_may_lie_apart_from_its_guest_cell_in_pages_of_its_own(
    host: LabHost, vms: Vms
) -> None:
    vms.create(apart())
    vm = vms.wait_ready("apart", 180)
    view = kernel_view(host, vm["metadata"]["uid"])
    assert view is not None
    found = {
        size // MEBIBYTE: (cell, one.huge)
        for one in view.mappings
        if one.policy == "bind"
        for cell, size in one.resident_bytes.items()
    }

    assert found == {CELL: (0, False), DIMM: (1, True)}
    (module,) = vm["status"]["placement"]["modules"]
    assert (module["hostCells"], module["pageSize"]) == ("1", "2Mi")


def test_a_guest_cell_of_a_class_takes_its_pages_there(host: LabHost, vms: Vms) -> None:
    vms.create(tiered())
    vm = vms.wait_ready("tiered", 300)

    def slow_memory() -> int:
        view = kernel_view(host, vm["metadata"]["uid"])
        assert view is not None
        (cell,) = [one for one in view.mappings if str(one.nodeset) == str(SLOW)]
        assert set(cell.resident_bytes) <= {SLOW}
        return cell.resident_bytes.get(SLOW, 0) // MEBIBYTE

    written = wait_for(
        slow_memory,
        until=lambda mebibytes: mebibytes >= WRITTEN,
        deadline_seconds=180,
        poll_seconds=1,
        describe="the guest has written to its slow memory",
    )
    assert written <= SLOW_CELL
    home = {
        cell["id"]: CpuSet.parse(cell["hostCells"]).first()
        for cell in vm["status"]["placement"]["cells"]
    }
    assert home[0] != home[1] == SLOW
