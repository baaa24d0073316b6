"""Random specs: each field has its shape; whether they fit together is `validate`'s to say.

Most are accepted: what belongs together is drawn together, and a few strays show the refusals.
"""

from typing import Any

from hypothesis import strategies as st

from numavm_api.numavm import NumaVMSpec

CELLS = 8
SIZES = {"4Ki": ["64Mi", "1Gi", "1027Mi"], "2Mi": ["64Mi", "2Gi"], "1Gi": ["1Gi", "3Gi"]}
BINDINGS = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["Strict", "Preferred", "Interleave", "Restrictive"]),
        "hostCells": st.sampled_from(["0", "1", "0-1", "0-3,^2", "0,2,4-7"]),
    },
)
PATHS = st.from_regex(r"\A/[A-Za-z0-9._@:+,=-]{1,20}/[A-Za-z0-9_@:+,=-]{1,40}\Z")
NAMES = st.lists(st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?\Z"), max_size=4, unique=True)
HOST_CPUS = st.sampled_from(["0-2399", "1-2399,^3", "0-50,100-2399,^300-310"])
"""In every cell of a host of eight with 300 CPUs each."""
ACCESS = st.sampled_from(["Private", "Shared"])
SWITCH = st.sampled_from(["Enabled", "Disabled"])
KINDS = st.sampled_from(["Access", "Read", "Write"])


def one_of_three(draw: st.DrawFn) -> bool:
    """Tell whether an optional part is there this time."""
    return draw(st.integers(0, 2)) == 0


@st.composite
def figures(draw: st.DrawFn, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return interconnects of cells; where a cell has caches, with the figures that they need."""
    initiators = [cell["id"] for cell in cells if "cpus" in cell]
    keys = draw(
        st.lists(
            st.tuples(
                st.sampled_from(initiators), st.sampled_from([cell["id"] for cell in cells]), KINDS
            ),
            max_size=8,
            unique=True,
        )
    )
    if draw(st.integers(0, 9)):  # libvirt takes one direction between two cells
        keys = [key for key in keys if key[0] <= key[1]]
    must = [(initiators[0], cell["id"], "Access") for cell in cells if cell.get("caches")]
    links = [
        {"initiator": initiator, "target": target, "type": kind}
        for initiator, target, kind in dict.fromkeys([*keys, *must])
    ]
    return {
        "latencies": [
            {**link, "latencyNanoseconds": draw(st.integers(1, 65534))} for link in links
        ],
        "bandwidths": [
            {**link, "bytesPerSecond": f"{draw(st.integers(1, 1000))}Gi"} for link in links
        ],
    }


@st.composite
def cell_extras(draw: st.DrawFn, count: int) -> dict[str, Any]:
    """Return what else a cell of `count` may say."""
    extras: dict[str, Any] = {}
    if one_of_three(draw):
        extras["hostBinding"] = draw(BINDINGS)
    if one_of_three(draw):
        extras["access"] = draw(ACCESS)
    if one_of_three(draw):
        extras["discard"] = draw(SWITCH)
    if one_of_three(draw):
        extras["caches"] = [
            {"level": level, "size": f"{8 * level}Ki", "lineBytes": 64}
            for level in range(1, draw(st.integers(1, 3)) + 1)
        ]
    others = draw(st.lists(st.integers(0, count - 1), max_size=3, unique=True))
    extras["distances"] = [{"cell": other, "value": draw(st.integers(11, 255))} for other in others]
    return extras


def cells_of(draw: st.DrawFn, vcpus: int, threads: int, page: str) -> list[dict[str, Any]]:
    """Return cells that have every vCPU between them, some perhaps memory only."""
    cores = vcpus // threads
    count = draw(st.integers(1, min(cores, CELLS)))
    home = [
        core if core < count else draw(st.integers(0, count - 1)) for core in range(cores)
    ]  # each cell has a core, the rest go anywhere
    memory_only = draw(st.integers(0, min(2, CELLS - count)))
    cells = []
    for cell in range(count + memory_only):
        numbers = [
            str(core * threads + thread)
            for core in range(cores)
            if home[core] == cell
            for thread in range(threads)
        ]
        one: dict[str, Any] = {"id": cell, "memory": draw(st.sampled_from(SIZES[page]))}
        if numbers:
            one["cpus"] = ",".join(numbers)
        one |= draw(cell_extras(count + memory_only))
        classes = ["DRAM"] if numbers or page != "4Ki" else ["DRAM", "HBM", "CXL"]
        if one_of_three(draw):
            one["hostCellClass"] = draw(st.sampled_from(classes))
        one["distances"] = [each for each in one["distances"] if each["cell"] != cell]
        cells.append(one)
    return cells


@st.composite
def numa_and_memory(draw: st.DrawFn, vcpus: int, threads: int) -> tuple[Any, dict[str, Any]]:
    """Return `cpu.numa`, or None, and `memory`."""
    kind = draw(st.sampled_from(["none", "derived", "declared", "declared", "declared"]))
    if kind == "none":
        return None, {"guest": draw(st.sampled_from(SIZES["4Ki"]))}
    numa: dict[str, Any] = {}
    if one_of_three(draw):
        numa["hostBinding"] = draw(BINDINGS)
    if kind == "derived":
        numa["guestMappingPassthrough"] = {"cells": draw(st.sampled_from([1, 2]))}
        return numa, {"guest": "1Gi"}
    page = draw(st.sampled_from(list(SIZES)))
    cells = cells_of(draw, vcpus, threads, page)
    if one_of_three(draw):
        numa["distances"] = "FromHost"
        cells = [{**cell, "distances": []} for cell in cells]
    if one_of_three(draw) or any(cell.get("caches") for cell in cells):
        numa["interconnects"] = draw(figures(cells))
    memory = {} if page == "4Ki" else {"hugepages": {"pageSize": page}}
    return {**numa, "cells": draw(st.permutations(cells))}, memory


@st.composite
def boot_vcpus(draw: st.DrawFn, sockets: int, count: int) -> dict[str, Any]:
    """Return which vCPUs are on at boot, in one of the ways to say it."""
    match draw(st.sampled_from(["all", "all", "sockets", "number", "names"])):
        case "sockets":
            return {"maxSockets": sockets + draw(st.integers(0, 2))}
        case "number":
            return {"vcpus": draw(st.integers(1, count))}
        case "names":
            picked = draw(st.sets(st.integers(0, count - 1)))
            return {"onlineVcpus": ",".join(map(str, sorted({0, *picked})))}
        case _:
            return {}


@st.composite
def cpu_extras(draw: st.DrawFn) -> dict[str, Any]:
    """Return what else `cpu` may say."""
    extras: dict[str, Any] = {}
    if one_of_three(draw):
        extras["pinning"] = {"cpuset": draw(HOST_CPUS), "vcpus": [{"vcpu": 0, "cpuset": "1-2399"}]}
    if one_of_three(draw):
        extras["tuning"] = {"shares": draw(st.integers(2, 10000)), "quotaMicroseconds": 20000}
    if one_of_three(draw):
        names = draw(st.lists(st.sampled_from(["avx2", "sse4.2", "x2apic"]), unique=True))
        policies = st.sampled_from(["force", "optional", "disable"])
        extras["features"] = [{"name": name, "policy": draw(policies)} for name in names]
    if one_of_three(draw):
        emulated = {"level": 3, "mode": "emulate"}
        caches = [emulated, {"mode": "disable"}, {"mode": "passthrough"}]
        extras["cache"] = draw(st.sampled_from(caches))
    return extras


@st.composite
def cpus(draw: st.DrawFn) -> dict[str, Any]:
    """Return `cpu` without `numa`."""
    cpu: dict[str, Any] = {
        "sockets": draw(st.integers(1, 4)),
        "dies": draw(st.integers(1, 2)),
        "cores": draw(st.integers(1, 4)),
        "threads": draw(st.sampled_from([1, 2, 4])),
        "model": draw(st.sampled_from(["host-passthrough", "host-passthrough", "EPYC-v4"])),
        "dedicatedCpuPlacement": draw(st.booleans()),
    }
    count = cpu["sockets"] * cpu["dies"] * cpu["cores"] * cpu["threads"]
    if cpu["dedicatedCpuPlacement"]:
        cpu["isolateEmulatorThread"] = draw(st.booleans())
        if one_of_three(draw):
            cpu["realtime"] = {"mask": draw(st.sampled_from(["0", "0-1"])), "priority": 3}
    return {**cpu, **draw(boot_vcpus(cpu["sockets"], count)), **draw(cpu_extras())}


@st.composite
def specs(draw: st.DrawFn) -> NumaVMSpec:
    """Return a spec whose fields each have their shape; whether they fit together is `validate`'s to say."""
    cpu = draw(cpus())
    sockets = cpu.get("maxSockets", cpu["sockets"])
    vcpus = sockets * cpu["dies"] * cpu["cores"] * cpu["threads"]
    numa, memory = draw(numa_and_memory(vcpus, cpu["threads"]))
    if numa:
        cpu["numa"] = numa
    memory["backing"] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "source": st.sampled_from(["Anonymous", "Memfd", "File"]),
                "access": ACCESS,
                "allocation": st.sampled_from(["Immediate", "Immediate", "OnDemand"]),
                "allocationThreads": st.integers(1, 64),
                "samePageMerging": SWITCH,
                "coreDump": SWITCH,
                "locked": st.booleans(),
            },
        )
    )
    disks, cards = draw(NAMES), draw(NAMES)
    paths = draw(st.lists(PATHS, min_size=len(disks), max_size=len(disks), unique=True))
    domain: dict[str, Any] = {
        "cpu": cpu,
        "memory": memory,
        "machine": {"type": draw(st.sampled_from(["q35", "pc"]))},
        "devices": {
            "disks": [
                {"name": name, "disk": {"bus": draw(st.sampled_from(["virtio", "sata", "scsi"]))}}
                for name in disks
            ],
            "interfaces": [
                {"name": name, "model": draw(st.sampled_from(["virtio", "e1000e"]))}
                for name in cards
            ],
        },
    }
    if draw(st.booleans()):
        args = draw(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
        domain["firmware"] = {"kernelBoot": {"kernel": draw(PATHS), "args": args}}
    rest: dict[str, Any] = {
        "networks": [{"name": name, "user": {}} for name in cards],
        "volumes": [
            {"name": name, "hostDisk": {"path": path}}
            for name, path in zip(disks, paths, strict=True)
        ],
    }
    if draw(st.booleans()):
        rest["restartToken"] = draw(st.text(max_size=64))
    return NumaVMSpec.model_validate({"domain": domain, **rest})
