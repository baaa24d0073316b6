"""What libvirt makes of rendered domains: its schema, its own QEMU command line, and QEMU's start.

Expectations come from the spec and the claim, not from the renderer. Each test is about one element.
"""

import json
from typing import Any

import pytest
from lxml import etree

from numavm_agent.domain.metadata import read_metadata
from numavm_agent.domain.model import Accelerator, CannotRender
from numavm_agent.domain.render import render
from numavm_api.cpuset import CpuSet
from support.domains import claim_for, facts_of, interleaved, rendered, spec_of, vm_of
from support.embedded_libvirt import Argv, EmbeddedLibvirt, LibvirtRefusalError
from support.libvirt_schema import schema_errors

SHAPES = [1, 2, 3, 4, 8]
MIB = 2**20
DISKS = {
    "volumes": [
        {"name": name, "hostDisk": {"path": f"/srv/{name}.img"}}
        for name in ("data", "root", "scratch")
    ]
}
BOOT_FROM = {
    "firmware": {
        "kernelBoot": {
            "kernel": "/boot/vmlinuz",
            "initrd": "/boot/initrd",
            "args": "console=ttyS0 a='b c' \"<&>\" x=,,y",
        }
    }
}

pytestmark = pytest.mark.xdist_group("embedded-libvirt")


@pytest.mark.parametrize("cells", SHAPES)
def test_each_guest_cell_has_its_memory_on_its_host_cell(
    libvirt: EmbeddedLibvirt, cells: int
) -> None:
    domain = rendered(
        spec_of({"cpu": {"dedicatedCpuPlacement": True}}, cells=cells), facts_of(cells)
    )

    argv = libvirt.argv(domain.xml)

    assert schema_errors(domain.xml) == []
    backends = argv.objects("memory-backend-ram")
    assert {name: one["host-nodes"] for name, one in backends.items()} == {
        f"ram-node{cell}": [cell] for cell in range(cells)
    }
    assert {one["policy"] for one in backends.values()} == {"bind"}
    assert {one["size"] for one in backends.values()} == {64 * MIB}
    assert all(one["prealloc"] for one in backends.values())
    assert argv.values("-numa") == [
        f"node,nodeid={cell},cpus={2 * cell}-{2 * cell + 1},memdev=ram-node{cell}"
        for cell in range(cells)
    ]
    assert argv.value("-smp") == f"{2 * cells},sockets={cells},dies=1,cores=2,threads=1"
    assert argv.value("-m") == str(64 * cells)


@pytest.mark.parametrize("cells", SHAPES)
def test_a_vm_without_cells_has_one_on_one_host_cell(libvirt: EmbeddedLibvirt, cells: int) -> None:
    argv = libvirt.argv(rendered(spec_of(), facts_of(cells)).xml)

    backend = argv.objects("memory-backend")["ram-node0"]
    assert (backend["policy"], backend["host-nodes"]) == ("preferred", [0])
    assert argv.values("-numa") == ["node,nodeid=0,cpus=0-1,memdev=ram-node0"]


@pytest.mark.parametrize("cells", SHAPES[1:])
def test_a_vm_that_spans_host_cells_is_interleaved(libvirt: EmbeddedLibvirt, cells: int) -> None:
    host = facts_of(cells)
    vm = vm_of(spec_of())
    claim = interleaved(claim_for(vm.effective, host), CpuSet(frozenset(range(cells))))

    backend = libvirt.argv(render(vm, claim, host).xml).objects("memory-backend")["ram-node0"]

    assert (backend["policy"], backend["host-nodes"]) == ("interleave", list(range(cells)))


@pytest.mark.parametrize(
    ("mode", "policy"),
    [("Strict", "bind"), ("Preferred", "preferred"), ("Interleave", "interleave")],
)
def test_binding_modes(libvirt: EmbeddedLibvirt, mode: str, policy: str) -> None:
    binding = {"mode": mode, "hostCells": "1"}
    cell = {"id": 0, "cpus": "0-1", "memory": "64Mi", "hostBinding": binding}
    domain = rendered(spec_of({"cpu": {"numa": {"cells": [cell]}}}), facts_of(2))

    backend = libvirt.argv(domain.xml).objects("memory-backend")["ram-node0"]

    assert (backend["policy"], backend["host-nodes"]) == (policy, [1])


def test_restrictive_is_left_to_the_cgroup(libvirt: EmbeddedLibvirt) -> None:
    numa = {**_cells(2), "hostBinding": {"mode": "Restrictive"}}
    domain = rendered(spec_of({"cpu": {"sockets": 2, "numa": numa}}), facts_of(2))

    backends = libvirt.argv(domain.xml).objects("memory-backend")

    assert [one.get("policy") for one in backends.values()] == [None, None]
    assert '<memory mode="restrictive" nodeset="0-1"/>' in domain.xml


def test_modes_may_differ_between_cells(libvirt: EmbeddedLibvirt) -> None:
    numa = _cells(2)
    numa["cells"][1]["hostBinding"] = {"mode": "Preferred"}
    domain = rendered(spec_of({"cpu": {"sockets": 2, "numa": numa}}), facts_of(2))

    backends = libvirt.argv(domain.xml).objects("memory-backend")

    assert {name: one["policy"] for name, one in backends.items()} == {
        "ram-node0": "bind",
        "ram-node1": "preferred",
    }
    # The whole domain held to its cells by the cgroup would make Preferred strict.
    assert '<memory mode="preferred" nodeset="0"/>' in domain.xml


def test_huge_pages_per_cell(libvirt: EmbeddedLibvirt) -> None:
    numa = _cells(3)
    numa["cells"][1]["hugepages"] = {"pageSize": "2Mi"}
    numa["cells"][2] |= {"hugepages": {"pageSize": "1Gi"}, "memory": "1Gi"}
    domain = rendered(spec_of({"cpu": {"sockets": 3, "numa": numa}}), facts_of(3))

    backends = libvirt.argv(domain.xml).objects("memory-backend-memfd")

    pages = {name: one.get("hugetlbsize") for name, one in backends.items()}
    assert pages == {"ram-node0": None, "ram-node1": 2 * MIB, "ram-node2": 1024 * MIB}
    # Base pages of a memfd would be taken twice by a private mapping; huge pages are not.
    assert [one.get("share") for one in backends.values()] == [True, False, False]


@pytest.mark.parametrize(
    ("backing", "kind", "share", "prealloc"),
    [
        ({}, "memory-backend-ram", None, True),
        ({"allocation": "OnDemand"}, "memory-backend-ram", None, None),
        ({"source": "Memfd"}, "memory-backend-memfd", True, True),
        ({"access": "Shared"}, "memory-backend-memfd", True, True),
    ],
)
def test_backings(
    libvirt: EmbeddedLibvirt, backing: dict[str, str], kind: str, share: object, prealloc: object
) -> None:
    domain = rendered(spec_of({"memory": {"backing": backing}}, cells=1), facts_of(1))

    backend = libvirt.argv(domain.xml).objects("memory-backend")["ram-node0"]

    found = (backend["qom-type"], backend.get("share"), backend.get("prealloc"))
    assert found == (kind, share, prealloc)


@pytest.mark.parametrize(
    ("model", "accelerator", "expected"),
    [
        ("host-passthrough", Accelerator.TCG, "max,migratable=on"),
        ("qemu64", Accelerator.TCG, "qemu64"),
        ("Conroe", Accelerator.TCG, "Conroe"),
    ],
)
def test_cpu_models(
    libvirt: EmbeddedLibvirt, model: str, accelerator: Accelerator, expected: str
) -> None:
    spec = spec_of({"cpu": {"model": model}})

    assert libvirt.argv(rendered(spec, facts_of(1, accelerator=accelerator)).xml).value("-cpu") == (
        expected
    )


def test_a_model_that_cannot_be_had_is_refused_not_thinned_out(libvirt: EmbeddedLibvirt) -> None:
    spec = spec_of({"cpu": {"model": "Skylake-Server-IBRS"}})

    with pytest.raises(LibvirtRefusalError, match="does not provide required features"):
        libvirt.argv(rendered(spec, facts_of(1)).xml)


def test_kvm_passes_the_hosts_cpu_through() -> None:
    xml = rendered(spec_of(), facts_of(1, accelerator=Accelerator.KVM)).xml

    assert '<domain type="kvm">' in xml
    assert '<cpu mode="host-passthrough" check="none" migratable="on">' in xml
    assert schema_errors(xml) == []


def test_topology_with_dies_and_threads(libvirt: EmbeddedLibvirt) -> None:
    spec = spec_of({"cpu": {"sockets": 2, "dies": 2, "cores": 3, "threads": 2}})

    argv = libvirt.argv(rendered(spec, facts_of(2, cpus=32)).xml)

    assert argv.value("-smp") == "24,sockets=2,dies=2,cores=3,threads=2"


def test_more_than_255_vcpus_come_with_interrupt_remapping() -> None:
    spec = spec_of({"cpu": {"sockets": 2, "cores": 128}})

    xml = rendered(spec, facts_of(1, accelerator=Accelerator.KVM)).xml

    assert '<driver intremap="on" eim="on"/>' in xml
    assert '<ioapic driver="qemu"/>' in xml  # else libvirt refuses the remapping
    assert schema_errors(xml) == []


def test_more_than_255_vcpus_are_refused_where_qemu_would_not_start() -> None:
    spec = spec_of({"cpu": {"sockets": 2, "cores": 128}})

    with pytest.raises(CannotRender, match="256 vCPUs, but TCG emulates at most 255"):
        rendered(spec, facts_of(1, accelerator=Accelerator.TCG))


def test_machine_pc(libvirt: EmbeddedLibvirt) -> None:
    spec = spec_of(
        {
            "machine": {"type": "pc"},
            "devices": {"interfaces": [{"name": "a"}], "disks": [{"name": "root"}]},
        },
        cells=2,
        networks=[{"name": "a", "user": {}}],
        volumes=[{"name": "root", "hostDisk": {"path": "/srv/root.img"}}],
    )

    argv = libvirt.argv(rendered(spec, facts_of(2, machine="pc-i440fx-7.2")).xml)

    assert argv.value("-machine").startswith("pc-i440fx-7.2,")
    assert argv.devices("pcie-root-port") == []
    assert len(argv.devices("virtio-blk-pci")) == 1


def test_a_kernel_boots_with_its_words_unchanged(libvirt: EmbeddedLibvirt) -> None:
    argv = libvirt.argv(rendered(spec_of(BOOT_FROM), facts_of(1)).xml)

    boot = BOOT_FROM["firmware"]["kernelBoot"]
    assert argv.value("-kernel") == boot["kernel"]
    assert argv.value("-initrd") == boot["initrd"]
    assert argv.value("-append") == boot["args"]


def test_disks_in_boot_order_on_their_buses(libvirt: EmbeddedLibvirt) -> None:
    disks = [
        {"name": "data", "disk": {"bus": "scsi"}},
        {"name": "root", "bootOrder": 1},
        {"name": "scratch", "disk": {"bus": "sata"}},
    ]
    argv = libvirt.argv(rendered(spec_of({"devices": {"disks": disks}}, **DISKS), facts_of(1)).xml)

    nodes = {
        one["filename"]: one["node-name"].removesuffix("-storage") for one in _blockdev_files(argv)
    }
    (root,) = argv.devices("virtio-blk-pci")
    (data,) = argv.devices("scsi-hd")
    (scratch,) = argv.devices("ide-hd")
    assert root["bootindex"] == 1
    assert "bootindex" not in data
    assert root["drive"].removesuffix("-format") == nodes["/srv/root.img"]
    assert data["drive"].removesuffix("-format") == nodes["/srv/data.img"]
    assert scratch["drive"].removesuffix("-format") == nodes["/srv/scratch.img"]
    formats = {one["driver"] for one in _blockdevs(argv) if one["node-name"].endswith("-format")}
    assert formats == {"raw"}


def test_reordering_a_manifest_changes_nothing() -> None:
    disks = [{"name": "data"}, {"name": "root", "bootOrder": 1}, {"name": "scratch"}]
    cards = [{"name": "a"}, {"name": "b"}]
    networks = [{"name": "b", "user": {}}, {"name": "a", "user": {}}]

    def devices_of(disks: list[Any], cards: list[Any]) -> str:
        devices = {"devices": {"disks": disks, "interfaces": cards}}
        xml = rendered(spec_of(devices, networks=networks, **DISKS), facts_of(1)).xml
        return xml[xml.index("</metadata>") :]

    assert devices_of(disks, cards) == devices_of(disks[::-1], cards[::-1])


def test_network_cards(libvirt: EmbeddedLibvirt) -> None:
    cards = [
        {"name": "a", "macAddress": "52:54:00:12:34:56"},
        {"name": "b", "model": "e1000e"},
    ]
    networks = [{"name": card["name"], "user": {}} for card in cards]
    spec = spec_of({"devices": {"interfaces": cards}}, networks=networks)

    argv = libvirt.argv(rendered(spec, facts_of(1)).xml)

    (first,), (second,) = argv.devices("virtio-net-pci"), argv.devices("e1000e")
    assert first["mac"] == "52:54:00:12:34:56"
    assert second["mac"].startswith("02:")
    again = rendered(spec, facts_of(2))
    assert second["mac"] in again.xml  # the same at every start, on every host


def test_cards_on_a_bridge_and_on_a_network_of_libvirt(libvirt: EmbeddedLibvirt) -> None:
    cards = [{"name": "a"}, {"name": "b", "model": "e1000e"}]
    networks = [{"name": "a", "bridge": {"name": "br0"}}, {"name": "b", "network": {"name": "lan"}}]
    domain = rendered(spec_of({"devices": {"interfaces": cards}}, networks=networks), facts_of(1))

    bridge, network = etree.fromstring(domain.xml).iterfind("devices/interface")
    assert (bridge.get("type"), dict(bridge.find("source").attrib)) == ("bridge", {"bridge": "br0"})
    assert (network.get("type"), dict(network.find("source").attrib)) == (
        "network",
        {"network": "lan"},
    )
    assert schema_errors(domain.xml) == []
    # libvirt makes the taps itself and hands them to QEMU; where it only prints, it says tap.
    netdevs = [json.loads(net) for net in libvirt.argv(domain.xml).values("-netdev")]
    assert [net["type"] for net in netdevs] == ["tap", "tap"]


def test_q35_has_root_ports_to_spare(libvirt: EmbeddedLibvirt) -> None:
    spec = spec_of({"devices": {"disks": [{"name": "root"}]}}, volumes=DISKS["volumes"][1:2])

    argv = libvirt.argv(rendered(spec, facts_of(1)).xml)

    taken = {one["bus"] for one in argv.devices("virtio-blk-pci")}
    ports = {one["id"] for one in argv.devices("pcie-root-port")}
    assert taken <= ports
    assert len(ports - taken) == 4


def test_nothing_that_nobody_asked_for(libvirt: EmbeddedLibvirt) -> None:
    argv = libvirt.argv(rendered(spec_of(), facts_of(1)).xml)

    drivers = [value for value in argv.values("-device") if "root-port" not in value]
    assert [value for value in drivers if "isa-serial" not in value] == ['{"driver":"pvpanic"}']
    assert argv.value("-display") == "none"
    assert "-no-acpi" not in argv.words


def test_the_console_is_logged(libvirt: EmbeddedLibvirt) -> None:
    domain = rendered(spec_of(), facts_of(1, log_directory="/var/log/elsewhere"))

    (serial,) = [one for one in libvirt.argv(domain.xml).values("-chardev") if "serial" in one]

    assert domain.serial_log == "/var/log/elsewhere/default_vm_c7a5fdbd-serial.log"
    assert f"logfile={domain.serial_log},logappend=on" in serial


@pytest.mark.parametrize("cells", [0, 2])
@pytest.mark.parametrize("source", ["Anonymous", "Memfd"])
def test_qemu_itself_starts(
    libvirt: EmbeddedLibvirt, cells: int, source: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Guest cells share the one host cell that this machine surely has; QEMU's own refusals would show here."""
    directory = tmp_path_factory.mktemp("qemu")
    (directory / "root.img").write_bytes(bytes(MIB))
    spec = spec_of(
        {
            "memory": {"backing": {"source": source}},
            "devices": {"disks": [{"name": "root", "bootOrder": 1}], "interfaces": [{"name": "a"}]},
        },
        cells=cells,
        networks=[{"name": "a", "user": {}}],
        volumes=[{"name": "root", "hostDisk": {"path": str(directory / "root.img")}}],
    )
    domain = rendered(spec, facts_of(1, cpus=2, log_directory=str(directory)))

    live = libvirt.start_paused_and_destroy(domain.xml, domain.name)

    assert f"<uuid>{domain.uuid}</uuid>" in live
    record = read_metadata(live)
    assert record is not None
    assert record.spec == spec


def _cells(count: int) -> dict[str, Any]:
    return {
        "cells": [
            {"id": cell, "cpus": f"{2 * cell}-{2 * cell + 1}", "memory": "64Mi"}
            for cell in range(count)
        ]
    }


def _blockdevs(argv: Argv) -> list[dict[str, Any]]:
    return [json.loads(value) for value in argv.values("-blockdev")]


def _blockdev_files(argv: Argv) -> list[dict[str, Any]]:
    return [one for one in _blockdevs(argv) if one["driver"] == "file"]
