"""Specs with devices by chance: each field has its shape, whether they fit together is `validate`'s to say."""

from typing import Any

from hypothesis import reject
from hypothesis import strategies as st

from numavm_agent.domain.model import HostFacts, VmToRender
from numavm_api.cpuset import CpuSet
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import PlacedDevice, Placement
from support.domains import claim_for, spec_of

MEBI = ["64Mi", "128Mi", "256Mi"]
BUSES = st.sampled_from(["virtio", "virtio", "sata", "scsi"])
CACHES = st.sampled_from([None, "none", "writeback", "writethrough", "directsync", "unsafe"])
WAYS = st.sampled_from([None, "threads", "native", "io_uring"])
CONNECTIONS = st.sampled_from(
    [{"user": {}}, {"bridge": {"name": "br0.1"}}, {"network": {"name": "lan_1"}}]
)
SWITCH = st.sampled_from(["Enabled", "Disabled"])


def _some(draw: st.DrawFn, fields: dict[str, st.SearchStrategy[Any]]) -> dict[str, Any]:
    """Return some of the fields; a value of None leaves one out."""
    drawn = draw(st.fixed_dictionaries({}, optional=fields))
    return {name: value for name, value in drawn.items() if value is not None}


@st.composite
def modules(draw: st.DrawFn, cells: int) -> list[dict[str, Any]]:
    """Return memory modules of all kinds."""
    found = []
    for number in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["dimm", "dimm", "virtioMem", "nvdimm", "virtioPmem"]))
        module: dict[str, Any] = {"name": f"m{number}", "size": draw(st.sampled_from(MEBI))}
        if kind != "virtioPmem":
            module["cell"] = draw(st.integers(0, cells - 1))
        path = {"path": f"/srv/module{number}.img"}
        module[kind] = {
            "dimm": _some(draw, {"slot": st.integers(8, 15)}),
            "virtioMem": {
                "requested": draw(st.sampled_from(["0", "4Mi", "64Mi"])),
                **_some(draw, {"block": st.sampled_from(["2Mi", "4Mi"])}),
            },
            "nvdimm": {
                **path,
                **_some(
                    draw,
                    {
                        "label": st.sampled_from(["128Ki", "1Mi"]),
                        "alignSize": st.sampled_from(["4Ki", "2Mi"]),
                        "readOnly": SWITCH,
                    },
                ),
            },
            "virtioPmem": path,
        }[kind]
        if kind in {"dimm", "virtioMem"}:
            module |= _some(
                draw,
                {
                    "hostBinding": st.sampled_from(
                        [None, {"hostCells": "0"}, {"hostCells": "0-1"}]
                    ),
                    "hugepages": st.sampled_from([None, {"pageSize": "2Mi"}]),
                },
            )
        found.append(module)
    return found


@st.composite
def disks(draw: st.DrawFn, cells: int) -> list[dict[str, Any]]:
    """Return disks and CD-ROM drives."""
    found = []
    for number in range(draw(st.integers(0, 5))):
        disk: dict[str, Any] = {"name": f"d{number}"}
        if draw(st.integers(0, 4)) == 0:
            disk["cdrom"] = {"bus": draw(st.sampled_from(["sata", "scsi"]))}
        else:
            bus = draw(BUSES)
            disk["disk"] = {"bus": bus}
            if bus == "virtio":
                disk |= _some(
                    draw, {"cell": st.integers(0, cells - 1), "dedicatedIOThread": st.booleans()}
                )
        disk |= _some(draw, {"cache": CACHES})
        ways = (
            WAYS
            if disk.get("cache") in {"none", "directsync"}
            else st.sampled_from(["threads", "io_uring"])
        )
        found.append({**disk, **_some(draw, {"io": ways})})
    return found


@st.composite
def specs(draw: st.DrawFn) -> NumaVMSpec:
    """Return a spec with devices."""
    cells = draw(st.integers(1, 4))
    machine = draw(st.sampled_from(["q35", "pc"]))
    boot_cell = st.integers(0, cells - 1)
    plugged = draw(modules(cells))
    cards = [
        {
            "name": f"n{number}",
            **_some(draw, {"cell": boot_cell, "model": st.sampled_from(["virtio", "e1000e"])}),
        }
        for number in range(draw(st.integers(0, 3)))
    ]
    drives = draw(disks(cells))
    memory: dict[str, Any] = {"maxGuest": "16Gi"} if plugged or draw(st.booleans()) else {}
    if draw(st.booleans()):
        place = {"cell": boot_cell} if machine == "pc" else {}
        memory["balloon"] = _some(
            draw,
            {
                "target": st.just(f"{32 * cells}Mi"),
                "statsPeriodSeconds": st.integers(1, 60),
                "autodeflate": SWITCH,
                "freePageReporting": SWITCH,
                **place,
            },
        )
    if draw(st.booleans()):
        memory["hugepages"] = {"pageSize": "2Mi"}
    devices = {
        "memory": draw(st.permutations(plugged)),
        "disks": draw(st.permutations(drives)),
        "interfaces": draw(st.permutations(cards)),
        "hostDevices": [
            {
                "name": f"h{number}",
                "source": {"address": f"0000:65:00.{number}"},
                **_some(draw, {"cell": boot_cell}),
            }
            for number in range(draw(st.integers(0, 3)))
        ],
        "pciExpanders": [
            {
                "name": f"x{number}",
                "cell": draw(boot_cell),
                **_some(draw, {"busNr": st.just(100 + 20 * number)}),
            }
            for number in range(draw(st.integers(0, 2)))
        ],
    }
    domain: dict[str, Any] = {
        "machine": {"type": machine},
        "cpu": {"dedicatedCpuPlacement": draw(st.booleans())},
        "memory": memory,
        "devices": devices,
    }
    if draw(st.booleans()):
        domain["ioThreads"] = {"count": draw(st.integers(1, 4))}
        if domain["cpu"]["dedicatedCpuPlacement"] and draw(st.booleans()):
            domain["ioThreads"]["placement"] = "Dedicated"
    return spec_of(
        domain,
        cells=cells,
        networks=[{"name": card["name"], **draw(CONNECTIONS)} for card in cards],
        volumes=[
            {"name": drive["name"], "hostDisk": {"path": f"/srv/{drive['name']}.img"}}
            for drive in drives
        ],
    )


def claim_with_devices(vm: VmToRender, host: HostFacts) -> Placement:
    """Return a simple claim that also holds the VM's host devices and CPUs of its I/O threads."""
    wanted = vm.effective
    claim = claim_for(wanted, host)
    first = claim.cells[0].host_cells.first()
    held = claim.dedicated_cpus
    threads = []
    for _ in range(wanted.dedicated_io_threads):
        free = host.pools.dedicated - held
        if not free:
            reject()  # a claim is only made where there is room
        cpu = (host.cells[first] & free or free).first()
        threads.append(CpuSet.of(cpu))
        held = held | CpuSet.of(cpu)
    devices = [
        PlacedDevice(name=one.name, address=min(one.addresses), host_cell=first)
        for one in wanted.host_devices
    ]
    return claim.model_copy(
        update={"devices": devices, "io_thread_cpus": threads, "dedicated_cpus": held}
    )
