"""What libvirt and QEMU make of devices: modules, the balloon, expander buses, I/O threads, disks, host devices."""

import json
from typing import Any

import pytest
from lxml import etree

from numavm_agent.domain.model import Accelerator, CannotRender
from numavm_agent.domain.render import render
from numavm_api.numavm import NumaVMSpec
from support.domains import claim_for, facts_of, rendered, spec_of, vm_of
from support.embedded_libvirt import Argv, EmbeddedLibvirt
from support.libvirt_schema import schema_errors
from support.random_devices import claim_with_devices

MIB = 2**20
PC = {"machine": "pc-i440fx-7.2"}

pytestmark = pytest.mark.xdist_group("embedded-libvirt")


def with_modules(*modules: dict[str, Any], cells: int = 2, **memory: Any) -> NumaVMSpec:
    return spec_of(
        {"memory": {"maxGuest": "4Gi", **memory}, "devices": {"memory": list(modules)}}, cells=cells
    )


def with_disks(*disks: dict[str, Any], **domain: Any) -> NumaVMSpec:
    volumes = [
        {"name": disk["name"], "hostDisk": {"path": f"/srv/{disk['name']}.img"}} for disk in disks
    ]
    return spec_of({"devices": {"disks": list(disks)}, **domain}, cells=2, volumes=volumes)


def argv_of(libvirt: EmbeddedLibvirt, spec: NumaVMSpec, **host: Any) -> Argv:
    vm, facts = vm_of(spec), facts_of(4, **host)
    xml = render(vm, claim_with_devices(vm, facts), facts).xml
    assert schema_errors(xml) == []
    return libvirt.argv(xml)


@pytest.mark.parametrize("cells", [1, 2, 3, 4])
def test_a_dimm_is_bound_as_its_cell_is(libvirt: EmbeddedLibvirt, cells: int) -> None:
    last = cells - 1
    argv = argv_of(
        libvirt, with_modules({"name": "m", "cell": last, "size": "64Mi", "dimm": {}}, cells=cells)
    )

    (dimm,) = argv.devices("pc-dimm")
    backend = argv.objects("memory-backend-ram")[dimm["memdev"]]
    assert (dimm["node"], dimm["slot"]) == (last, 0)
    assert (backend["size"], backend["host-nodes"], backend["policy"]) == (64 * MIB, [last], "bind")
    assert backend["prealloc"]
    assert argv.value("-m") == f"size={64 * cells * 1024}k,slots=16,maxmem={4 * 1024 * 1024}k"


def test_slots_are_the_users_or_the_lowest_free_in_the_order_of_names(
    libvirt: EmbeddedLibvirt,
) -> None:
    names = {"c": {}, "a": {}, "b": {"slot": 0}, "d": {}}
    modules = [
        {"name": name, "cell": 0, "size": "64Mi", "dimm": slot} for name, slot in names.items()
    ]

    dimms = argv_of(libvirt, with_modules(*modules)).devices("pc-dimm")

    assert {one["id"].removeprefix("ua-mem-"): one["slot"] for one in dimms} == {
        "a": 1,
        "b": 0,
        "c": 2,
        "d": 3,
    }


def test_virtio_mem(libvirt: EmbeddedLibvirt) -> None:
    module = {
        "name": "v",
        "cell": 1,
        "size": "256Mi",
        "virtioMem": {"requested": "64Mi", "block": "4Mi"},
    }
    argv = argv_of(libvirt, with_modules(module))

    (device,) = argv.devices("virtio-mem-pci")
    backend = argv.objects("memory-backend-ram")[device["memdev"]]
    assert (device["node"], device["requested-size"], device["block-size"]) == (
        1,
        64 * MIB,
        4 * MIB,
    )
    assert (backend["size"], backend["reserve"], backend["host-nodes"]) == (256 * MIB, False, [1])


def test_modules_of_a_cell_in_huge_pages_are_in_huge_pages(libvirt: EmbeddedLibvirt) -> None:
    modules = [
        {"name": "d", "cell": 0, "size": "64Mi", "dimm": {}},
        {"name": "v", "cell": 1, "size": "64Mi", "virtioMem": {"requested": "0"}},
    ]
    argv = argv_of(libvirt, with_modules(*modules, hugepages={"pageSize": "2Mi"}))

    backends = argv.objects("memory-backend-memfd")
    assert {backends[f"memua-mem-{name}"]["hugetlbsize"] for name in "dv"} == {2 * MIB}


@pytest.mark.parametrize(
    ("kind", "driver"), [("nvdimm", "nvdimm"), ("virtioPmem", "virtio-pmem-pci")]
)
def test_modules_on_files_write_through_to_them(
    libvirt: EmbeddedLibvirt, kind: str, driver: str
) -> None:
    module: dict[str, Any] = {"name": "f", "size": "64Mi", kind: {"path": "/srv/f.img"}}
    if kind == "nvdimm":
        module = {**module, "cell": 1, kind: {"path": "/srv/f.img", "label": "128Ki"}}
    argv = argv_of(libvirt, with_modules(module))

    (device,) = argv.devices(driver)
    backend = argv.objects("memory-backend-file")[device["memdev"]]
    assert (backend["mem-path"], backend["share"], backend["size"]) == (
        "/srv/f.img",
        True,
        64 * MIB,
    )
    assert device.get("node") == module.get("cell")
    assert device.get("label-size") == (128 * 1024 if kind == "nvdimm" else None)


def test_an_nvdimm_is_aligned_and_unarmed_as_asked(libvirt: EmbeddedLibvirt) -> None:
    nvdimm = {"path": "/dev/dax0.0", "alignSize": "2Mi", "readOnly": "Enabled", "label": "128Ki"}
    module = {"name": "f", "cell": 1, "size": "64Mi", "nvdimm": nvdimm}
    argv = argv_of(libvirt, with_modules(module))

    (device,) = argv.devices("nvdimm")
    backend = argv.objects("memory-backend-file")[device["memdev"]]
    assert (backend["align"], device["unarmed"]) == (2 * MIB, True)
    assert (backend["mem-path"], device["label-size"]) == ("/dev/dax0.0", 128 * 1024)


def test_persistent_memory_is_told_to_libvirt() -> None:
    """QEMU takes `pmem=on` only where it was built with libpmem, so libvirt's schema is the judge here."""
    module = {
        "name": "f",
        "cell": 0,
        "size": "64Mi",
        "nvdimm": {"path": "/dev/dax0.0", "pmem": "Enabled"},
    }
    vm, facts = vm_of(with_modules(module)), facts_of(4)
    xml = render(vm, claim_with_devices(vm, facts), facts).xml

    assert schema_errors(xml) == []
    assert etree.fromstring(xml.encode()).find("devices/memory/source/pmem") is not None


def test_a_module_on_host_cells_of_its_own_and_in_pages_of_its_own(
    libvirt: EmbeddedLibvirt,
) -> None:
    modules = [
        {
            "name": "d",
            "cell": 0,
            "size": "64Mi",
            "dimm": {},
            "hostBinding": {"hostCells": "1,3"},
            "hugepages": {"pageSize": "2Mi"},
        },
        {
            "name": "v",
            "cell": 1,
            "size": "64Mi",
            "virtioMem": {"requested": "0"},
            "hostBinding": {"hostCells": "2"},
        },
        {"name": "w", "cell": 1, "size": "64Mi", "dimm": {}},
    ]
    argv = argv_of(libvirt, with_modules(*modules))

    backends = argv.objects("memory-backend-memfd")
    found = {name: backends[f"memua-mem-{name}"] for name in "dvw"}
    assert {name: one["host-nodes"] for name, one in found.items()} == {
        "d": [1, 3],
        "v": [2],
        "w": [1],
    }
    assert {name: one["policy"] for name, one in found.items()} == dict.fromkeys("dvw", "bind")
    assert {name: one.get("hugetlbsize") for name, one in found.items()} == {
        "d": 2 * MIB,
        "v": None,
        "w": None,
    }
    assert [dimm["node"] for dimm in argv.devices("pc-dimm")] == [0, 1]
    # Base pages of a memfd are taken once only where they are shared.
    assert found["w"]["share"]


def test_shared_memory_is_shared_in_modules_too(libvirt: EmbeddedLibvirt) -> None:
    module = {"name": "m", "cell": 0, "size": "64Mi", "dimm": {}}
    argv = argv_of(libvirt, with_modules(module, backing={"access": "Shared"}))

    assert argv.objects("memory-backend-memfd")["memua-mem-m"]["share"] is True


def test_the_balloon_has_its_switches_and_its_target(libvirt: EmbeddedLibvirt) -> None:
    balloon = {
        "target": "96Mi",
        "statsPeriodSeconds": 7,
        "autodeflate": "Enabled",
        "freePageReporting": "Enabled",
    }
    spec = spec_of({"memory": {"balloon": balloon}}, cells=2)

    (device,) = argv_of(libvirt, spec).devices("virtio-balloon-pci")

    domain = etree.fromstring(rendered(spec, facts_of(2)).xml)
    assert (device["deflate-on-oom"], device["free-page-reporting"]) == (True, True)
    assert device["bus"].startswith("pci.")  # a root port: behind an expander it would be dead
    assert domain.findtext("currentMemory") == str(96 * 1024)
    assert domain.xpath("string(devices/memballoon/stats/@period)") == "7"


def test_devices_of_a_cell_on_q35_are_behind_root_ports_of_its_expander(
    libvirt: EmbeddedLibvirt,
) -> None:
    spec = with_disks({"name": "a", "cell": 1}, {"name": "b", "cell": 1}, {"name": "c"})
    argv = argv_of(libvirt, spec)

    (expander,) = argv.devices("pxb-pcie")
    ports = [one for one in argv.devices("pcie-root-port") if one["bus"] == expander["id"]]
    disks = {one["id"]: one["bus"] for one in argv.devices("virtio-blk-pci")}
    behind = {port["id"] for port in ports}
    assert expander["numa_node"] == 1
    assert len(ports) == 3  # one to spare
    assert expander["bus_nr"] + len(ports) == 255  # the last numbers there are
    assert {disks["ua-disk-a"], disks["ua-disk-b"]} < behind
    assert disks["ua-disk-c"] not in behind


def test_devices_of_a_cell_on_pc_are_on_its_expander(libvirt: EmbeddedLibvirt) -> None:
    spec = with_disks({"name": "a", "cell": 1}, {"name": "b", "cell": 0}, machine={"type": "pc"})
    argv = argv_of(libvirt, spec, **PC)

    cells = {one["id"]: one["numa_node"] for one in argv.devices("pxb")}
    disks = {one["id"]: cells[one["bus"]] for one in argv.devices("virtio-blk-pci")}
    assert disks == {"ua-disk-a": 1, "ua-disk-b": 0}
    assert sorted(one["bus_nr"] for one in argv.devices("pxb")) == [252, 254]


def test_a_cell_with_an_expander_of_the_users_gets_no_other(libvirt: EmbeddedLibvirt) -> None:
    devices = {
        "interfaces": [{"name": "n", "cell": 1}],
        "pciExpanders": [{"name": "mine", "cell": 1, "busNr": 64, "pciAddress": "0000:00:0a.0"}],
    }
    argv = argv_of(
        libvirt, spec_of({"devices": devices}, cells=2, networks=[{"name": "n", "user": {}}])
    )

    (expander,) = argv.devices("pxb-pcie")
    assert (expander["bus_nr"], expander["addr"], expander["numa_node"]) == (64, "0xa", 1)


def test_cd_rom_drives_caches_and_ways_of_io(libvirt: EmbeddedLibvirt) -> None:
    spec = with_disks(
        {"name": "iso", "cdrom": {"bus": "scsi"}},
        {"name": "raw", "cache": "none", "io": "native"},
    )
    argv = argv_of(libvirt, spec)

    layers = [json.loads(value) for value in argv.values("-blockdev")]
    files = {one["filename"]: one for one in layers if one["driver"] == "file"}
    (drive,) = argv.devices("scsi-cd")
    assert files["/srv/raw.img"]["aio"] == "native"
    assert files["/srv/raw.img"]["cache"] == {"direct": True, "no-flush": False}
    medium = next(one for one in layers if one["node-name"] == drive["drive"])
    assert medium["read-only"] is True


def test_disks_share_the_threads_and_one_may_have_its_own(libvirt: EmbeddedLibvirt) -> None:
    spec = with_disks(
        {"name": "a"},
        {"name": "b", "bootOrder": 1},
        {"name": "c", "dedicatedIOThread": True},
        {"name": "d"},
        {"name": "s", "disk": {"bus": "sata"}},
        ioThreads={"threads": [{"id": 5}, {"id": 2, "poolMin": 1, "poolMax": 3}]},
    )
    argv = argv_of(libvirt, spec)

    served = {one["id"]: one["iothread"] for one in argv.devices("virtio-blk-pci")}
    threads = argv.objects("iothread")
    assert served == {
        "ua-disk-b": "iothread2",  # the first to boot
        "ua-disk-a": "iothread5",
        "ua-disk-d": "iothread2",
        "ua-disk-c": "iothread6",
    }
    assert (threads["iothread2"]["thread-pool-min"], threads["iothread2"]["thread-pool-max"]) == (
        1,
        3,
    )


def test_io_threads_run_where_the_emulator_does_or_on_cpus_of_their_own() -> None:
    dedicated = {"dedicatedCpuPlacement": True}
    shared = with_disks({"name": "a"}, cpu=dedicated, ioThreads={"count": 1})
    own = with_disks({"name": "a"}, cpu=dedicated, ioThreads={"count": 2, "placement": "Dedicated"})
    host = facts_of(2)

    def pins(spec: NumaVMSpec) -> list[str]:
        vm = vm_of(spec)
        domain = etree.fromstring(render(vm, claim_with_devices(vm, host), host).xml)
        return [str(pin.get("cpuset")) for pin in domain.iterfind("cputune/iothreadpin")]

    claim = claim_with_devices(vm_of(own), host)
    assert pins(own) == [str(cpus) for cpus in claim.io_thread_cpus]
    assert pins(shared) != []
    assert "1" not in pins(shared)[0].split(",")  # vCPU 0's


def test_host_devices_are_behind_the_bus_of_their_cell_asked_for_or_placed(
    libvirt: EmbeddedLibvirt,
) -> None:
    devices = [
        {"name": "asked", "cell": 1, "source": {"address": "0000:65:00.0"}},
        {"name": "placed", "source": {"address": "0000:66:1f.7"}},
    ]
    argv = argv_of(libvirt, spec_of({"devices": {"hostDevices": devices}}, cells=2))

    cell_of = {one["id"]: one["numa_node"] for one in argv.devices("pxb-pcie")}
    bus_of = {one["id"]: one["bus"] for one in argv.devices("pcie-root-port")}
    found = {
        one["id"]: (one["host"], cell_of[bus_of[one["bus"]]]) for one in argv.devices("vfio-pci")
    }
    assert found == {
        "ua-hostdev-asked": ("0000:65:00.0", 1),
        "ua-hostdev-placed": ("0000:66:1f.7", 0),  # the claim has it on host cell 0
    }


def test_a_host_device_behind_a_guests_iommu_is_told_what_the_guest_maps() -> None:
    devices = {"hostDevices": [{"name": "nic", "source": {"address": "0000:65:00.0"}}]}
    spec = spec_of({"cpu": {"sockets": 2, "cores": 128}, "devices": devices})
    vm, host = vm_of(spec), facts_of(1, accelerator=Accelerator.KVM)

    xml = render(vm, claim_with_devices(vm, host), host).xml

    assert '<driver intremap="on" caching_mode="on" eim="on"/>' in xml
    assert schema_errors(xml) == []


def test_a_claim_without_room_for_modules_is_not_rendered() -> None:
    spec = with_modules({"name": "m", "cell": 1, "size": "64Mi", "dimm": {}})
    vm, host = vm_of(spec), facts_of(2)
    claim = claim_for(vm.effective, host)
    bare = [cell.model_copy(update={"plugged": None}) for cell in claim.cells]

    with pytest.raises(CannotRender, match=r"cells\[1\]\.plugged is 0, but .* 64Mi into the cell"):
        render(vm, claim.model_copy(update={"cells": bare}), host)


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_qemu_itself_starts(
    libvirt: EmbeddedLibvirt, machine: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With every kind of device but a host's; addresses are those of the plan, also the cards' that argv leaves out."""
    directory = tmp_path_factory.mktemp("qemu")
    files = {name: directory / f"{name}.img" for name in ("root", "nv")}
    for path in files.values():
        path.write_bytes(b"")
        with path.open("r+b") as file:
            file.truncate(64 * MIB)
    modules = [
        {"name": "d", "cell": 1, "size": "64Mi", "dimm": {"slot": 3}},
        {"name": "v", "cell": 0, "size": "64Mi", "virtioMem": {"requested": "0"}},
        {"name": "n", "cell": 0, "size": "64Mi", "nvdimm": {"path": str(files["nv"])}},
    ]
    balloon: dict[str, Any] = {"target": "96Mi", "statsPeriodSeconds": 5}
    spec = spec_of(
        {
            "machine": {"type": machine},
            "memory": {
                "maxGuest": "2Gi",
                "balloon": {**balloon, **({"cell": 1} if machine == "pc" else {})},
            },
            "devices": {
                "memory": modules,
                "disks": [{"name": "root", "cell": 1, "dedicatedIOThread": True}],
                "interfaces": [{"name": "net", "cell": 0}],
            },
        },
        cells=2,
        networks=[{"name": "net", "user": {}}],
        volumes=[{"name": "root", "hostDisk": {"path": str(files["root"])}}],
    )
    facts = facts_of(1, cpus=2, log_directory=str(directory), **(PC if machine == "pc" else {}))
    domain = rendered(spec, facts)

    live = etree.fromstring(libvirt.start_paused_and_destroy(domain.xml, domain.name))

    asked = etree.fromstring(domain.xml)
    for path in ("interface", "disk", "memballoon"):
        address = asked.find(f"devices/{path}/address")
        if address is not None:
            got = live.find(f"devices/{path}/address")
            assert got is not None
            assert dict(address.attrib).items() <= dict(got.attrib).items()
    assert [node.get("model") for node in live.iterfind("devices/memory")] == [
        "dimm",
        "nvdimm",
        "virtio-mem",
    ]
