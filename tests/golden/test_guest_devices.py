"""What a guest's own kernel says of its modules and of the buses of its cells: one boot per machine, under QEMU itself.

All guest cells lie on the one host cell that this machine surely has. Where pages really are is the lab's to prove
(`tests/e2e/test_devices.py`).
"""

from pathlib import Path
from typing import Any

import pytest

from numavm_lab.guest import Report, parse_reports, witness_images
from support.domains import facts_of, rendered, spec_of
from support.embedded_libvirt import EmbeddedLibvirt
from support.wait import wait_for

pytestmark = pytest.mark.xdist_group("embedded-libvirt")

CELL, DIMM, REQUESTED = 160, 128, 128
"""MiB: a guest cell, the DIMM of cell 0, what is requested of the virtio-mem device of cell 1."""
BALLOON = ("1af4", "1002")
PLUGGABLE = "memhp_default_state=online_movable swiotlb=noforce"
"""Memory that is plugged in is taken into use; no bounce buffer of 64 MiB, which Linux takes of one cell otherwise."""
MODULES: list[dict[str, Any]] = [
    {"name": "stick", "cell": 0, "size": f"{DIMM}Mi", "dimm": {}},
    {"name": "rubber", "cell": 1, "size": "256Mi", "virtioMem": {"requested": f"{REQUESTED}Mi"}},
]


def booted(libvirt: EmbeddedLibvirt, directory: Path, machine: str, **domain: Any) -> Report:
    """Boot the witness guest, end it as soon as its report lacks nothing, and return that."""
    kernel, initrd = witness_images()
    arguments = f"console=ttyS0 quiet numavm.report=5 {PLUGGABLE}"
    boot = {"kernel": str(kernel), "initrd": str(initrd), "args": arguments}
    cells = [{"id": cell, "cpus": str(cell), "memory": f"{CELL}Mi"} for cell in (0, 1)]
    memory = {"maxGuest": "2Gi", "backing": {"allocation": "OnDemand"}}
    spec = spec_of(
        {
            "machine": {"type": machine},
            "firmware": {"kernelBoot": boot},
            "cpu": {"cores": 2, "numa": {"cells": cells}},
            **domain,
            "memory": {**memory, **domain.get("memory", {})},
        },
        networks=[{"name": "net", "user": {}}],
    )
    version = {"q35": "pc-q35-7.2", "pc": "pc-i440fx-7.2"}[machine]
    facts = facts_of(1, cpus=2, machine=version, log_directory=str(directory))
    made = rendered(spec, facts)
    path = directory / f"{machine}.xml"
    path.write_text(made.xml)
    libvirt.run("create", str(path))
    try:
        found = wait_for(
            lambda: newest(Path(made.serial_log)),
            until=lambda seen: seen is not None and is_complete(seen),
            deadline_seconds=300,
            poll_seconds=1,
            describe=f"a whole report of the guest on {machine}",
        )
    finally:
        libvirt.run("destroy", made.name)
    assert found is not None
    return found


def newest(log: Path) -> Report | None:
    reports = parse_reports(log.read_text(errors="replace")) if log.exists() else []
    return reports[-1] if reports else None


def is_complete(seen: Report) -> bool:
    """Tell whether the guest has taken its modules into use and found its card."""
    enough = 0.7 * (CELL + min(DIMM, REQUESTED)) * 1024
    return bool(seen.nics) and all(node.memory_kib > enough for node in seen.nodes)


@pytest.fixture(scope="module")
def express(libvirt: EmbeddedLibvirt, tmp_path_factory: pytest.TempPathFactory) -> Report:
    devices = {"memory": MODULES, "interfaces": [{"name": "net", "cell": 1}]}
    return booted(libvirt, tmp_path_factory.mktemp("q35"), "q35", devices=devices)


@pytest.fixture(scope="module")
def conventional(libvirt: EmbeddedLibvirt, tmp_path_factory: pytest.TempPathFactory) -> Report:
    devices = {"memory": MODULES, "interfaces": [{"name": "net", "cell": 0}]}
    return booted(
        libvirt,
        tmp_path_factory.mktemp("pc"),
        "pc",
        devices=devices,
        memory={"balloon": {"cell": 1}},
    )


@pytest.mark.parametrize("machine", ["express", "conventional"])
def test_the_guest_sees_each_module_in_its_cell(
    machine: str, request: pytest.FixtureRequest
) -> None:
    seen: Report = request.getfixturevalue(machine)

    for node in seen.nodes:
        size = (CELL + (DIMM if node.id == 0 else REQUESTED)) * 1024
        # MemTotal is less than the cell: the kernel keeps its own image and page structs out of it.
        assert 0.7 * size < node.memory_kib <= size


def test_a_card_behind_a_pcie_expander_has_the_node_of_its_cell(express: Report) -> None:
    assert [nic.node for nic in express.nics] == [1]


def test_devices_on_a_pci_expander_have_the_node_of_its_cell(conventional: Report) -> None:
    balloons = [one.node for one in conventional.pci if (one.vendor, one.device) == BALLOON]

    assert [nic.node for nic in conventional.nics] == [0]
    assert balloons == [1]
