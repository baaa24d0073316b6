"""Random small hosts with holes, and random VMs that just about fit them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.placement import CpuPlacement, PlacedCell, Placement
from numavm_api.quantity import GIBIBYTE, MEBIBYTE, Bytes

BASE = 4096
HUGE = 2 * MEBIBYTE
GIANT = GIBIBYTE


@dataclass(frozen=True)
class Sizes:
    """Bounds of what is drawn."""

    cells: int = 4
    cores: int = 3
    vcpus: int = 8
    guest_cells: int = 3


SMALL = Sizes()


def random_host(random: Random, name: str, sizes: Sizes = SMALL) -> dict[str, Any]:
    """Return a NumaHost of any kind: SMT 1, 2 or 4, offline CPUs, all variants of pools, memory-only cells."""
    threads = random.choice([1, 2, 2, 2, 4])
    count = random.randint(1, sizes.cells)
    ids = sorted(random.sample(range(count + 2), count))
    cells, cpu = [], 0
    for cell_id in ids:
        cores = (
            0 if random.random() < 0.08 else random.randint(1, max(1, sizes.cores * 2 // threads))
        )
        cpus = []
        for core in range(cores):
            online = [cpu + at for at in range(threads) if at == 0 or random.random() > 0.05]
            cpu += threads
            cpus += [
                {
                    "id": one,
                    "siblings": str(CpuSet.of(*online)),
                    "socket": 0,
                    "lastLevelCache": core // 2,
                }
                for one in online
            ]
        cells.append(_cell(random, cell_id, cpus))
    _distances(random, cells)
    cpus_of = [[one["id"] for one in cell["cpus"]] for cell in cells]
    status = {
        "cells": cells,
        "pools": _pools(random, cpus_of),
        "capabilities": _capabilities(random),
        "conditions": [_ready()],
    }
    percent = random.choice([100, 150, 400])
    return {"metadata": {"name": name}, "spec": {"cpuAllocationPercent": percent}, "status": status}


def _cell(random: Random, cell_id: int, cpus: list[dict[str, Any]]) -> dict[str, Any]:
    base = random.choice([0, 128, 256, 512, 1024, 2048]) * MEBIBYTE
    huge = random.choice([0, 0, 32, 128, 512])
    giant = random.choice([0, 0, 0, 1, 2])
    pools = [
        {"pageSize": size, "total": pages, "free": pages, "allocatable": pages}
        for size, pages in (("2Mi", huge), ("1Gi", giant))
        if pages
    ]
    memory = {"total": base, "free": base, "allocatable": base}
    kind = "DRAM" if cpus else random.choice(["DRAM", "HBM", "CXL", None])
    classed = {} if kind is None else {"class": kind}
    return {"id": cell_id, "cpus": cpus, "memory": memory, "hugepages": pools, **classed}


def _distances(random: Random, cells: list[dict[str, Any]]) -> None:
    style = random.choice(["flat", "random", "sockets"])
    for at, cell in enumerate(cells):
        values = {
            "flat": lambda _: 20,
            "random": lambda _: random.randint(11, 40),
            "sockets": lambda other, at=at: 12 if other // 2 == at // 2 else 32,
        }[style]
        cell["distances"] = [
            {"cell": other["id"], "value": 10 if other is cell else values(position)}
            for position, other in enumerate(cells)
        ]


def _pools(random: Random, cpus_of: list[list[int]]) -> dict[str, Any]:
    every = [cpu for cpus in cpus_of for cpu in cpus]
    housekeeping = [cpus[0] for cpus in cpus_of if len(cpus) > 1 and random.random() < 0.5]
    rest = [cpu for cpu in every if cpu not in housekeeping]
    foreign = [cpu for cpu in rest if random.random() < 0.04]
    follows = random.random() < 0.6
    shared = [] if follows else [cpu for cpu in rest if random.random() < 0.3]
    dedicated = [cpu for cpu in rest if cpu not in shared]
    return {
        "dedicated": _text(dedicated),
        "shared": _text(dedicated if follows else shared),
        "sharedFollowsDedicated": follows,
        "housekeeping": _text(housekeeping),
        "foreign": _text(foreign),
    }


def _capabilities(random: Random) -> dict[str, Any]:
    kvm = random.random() < 0.8
    return {
        "kvm": kvm,
        "emulationAllowed": (not kvm) or random.random() < 0.5,
        "libvirtVersion": "9.0.0",
        "qemuVersion": "7.2.22",
        "machineTypes": ["pc-q35-7.2"],
        "maxVcpus": 288,
    }


def _ready() -> dict[str, Any]:
    return {
        "type": "Ready",
        "status": "True",
        "reason": "AgentReady",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def random_holes(random: Random, host: dict[str, Any]) -> list[Placement]:
    """Return claims of other VMs that leave holes: lawful among each other as to CPUs, of any shape."""
    follows = host["status"]["pools"]["sharedFollowsDedicated"]
    pool = CpuSet.parse(host["status"]["pools"]["dedicated"]).members
    claims: list[Placement] = []
    taken: set[int] = set()
    for number in range(random.randint(0, 3)):
        cells = [cell for cell in host["status"]["cells"] if cell["cpus"]]
        if not cells:
            break
        mine = random.sample(cells, min(len(cells), random.randint(1, 2)))
        near = [cpu["id"] for cell in mine for cpu in cell["cpus"]]
        free = [cpu for cpu in near if cpu in pool and cpu not in taken]
        shared = random.random() < 0.35
        held = [] if shared else random.sample(free, random.randint(0, max(0, len(free) - 1)))
        emulator = held[:1] if held and random.random() < 0.5 else []
        if shared and follows and not free:
            continue
        taken |= set(held)
        claims.append(_hole(random, f"hole-{number}", mine, held, emulator, shared=shared))
    return claims


def _hole(
    random: Random,
    name: str,
    cells: list[dict[str, Any]],
    held: list[int],
    emulator: list[int],
    *,
    shared: bool,
) -> Placement:
    nodes = CpuSet(frozenset(cell["id"] for cell in cells))
    page = random.choice([BASE, BASE, HUGE])
    pinned = [cpu for cpu in held if cpu not in emulator]
    vcpus = random.randint(1, 3) if shared else len(pinned)
    return Placement(
        id=name,
        epoch=1,
        request_hash="hole",
        cpu_placement=CpuPlacement.SHARED if shared else CpuPlacement.DEDICATED,
        summary="",
        cells=[
            PlacedCell(
                id=0,
                host_cells=nodes,
                mode=random.choice(list(BindingMode)),
                memory=Bytes(random.choice([2, 8, 64, 256]) * MEBIBYTE),
                page_size=Bytes(page),
                vcpus=CpuSet(frozenset(range(vcpus))),
                pcpus=[CpuSet.of(cpu) for cpu in sorted(pinned)],
            )
        ],
        dedicated_cpus=CpuSet(frozenset(held)),
        emulator_cpus=CpuSet(frozenset(emulator)),
        overhead=Bytes(random.choice([4, 64]) * MEBIBYTE),
        overhead_cell=nodes.first(),
    )


def random_vm(random: Random, sizes: Sizes = SMALL) -> dict[str, Any]:
    """Return a NumaVM's spec: one to `guest_cells` cells or none declared, any policy, pages and binding."""
    threads = random.choice([1, 1, 2, 2, 3, 4])
    cores = random.randint(1, max(1, sizes.vcpus // threads))
    cpu: dict[str, Any] = {
        "cores": cores,
        "threads": threads,
        "dedicatedCpuPlacement": random.random() < 0.75,
        "threadPolicy": random.choice(["Prefer", "Prefer", "Require", "Isolate"]),
        "isolateEmulatorThread": False,
    }
    if cpu["dedicatedCpuPlacement"]:
        cpu["isolateEmulatorThread"] = random.random() < 0.4
    domain: dict[str, Any] = {
        "cpu": cpu,
        "memory": {},
        "type": random.choice(["Auto", "Auto", "KVM", "TCG"]),
    }
    if random.random() < 0.25:
        domain["memory"] = _undeclared_memory(random)
    else:
        cpu["numa"] = {"cells": _guest_cells(random, cores, threads, sizes)}
    sharing = random.choice(["Never", "Never", "Allow"])
    return {"placement": {"cellSharing": sharing}, "domain": domain}


def _undeclared_memory(random: Random) -> dict[str, Any]:
    page = random.choice([None, None, "2Mi", "1Gi"])
    amount = "1Gi" if page == "1Gi" else random.choice(["32Mi", "256Mi", "512Mi", "1Gi", "3Gi"])
    return {"guest": amount} | ({"hugepages": {"pageSize": page}} if page else {})


def _guest_cells(random: Random, cores: int, threads: int, sizes: Sizes) -> list[dict[str, Any]]:
    count = random.randint(1, min(sizes.guest_cells, cores))
    cuts = sorted(random.sample(range(1, cores), count - 1)) if count > 1 else []
    edges = [0, *cuts, cores]
    same = random.random() < 0.5
    draw = [_guest_memory(random) for _ in range(count)]
    return [
        {
            "id": at,
            "cpus": str(CpuSet(frozenset(range(edges[at] * threads, edges[at + 1] * threads)))),
            **(draw[0] if same else draw[at]),
            **_binding(random),
        }
        for at in range(count)
    ]


def _guest_memory(random: Random) -> dict[str, Any]:
    page = random.choice([None, None, None, "2Mi", "1Gi"])
    if page == "1Gi":
        return {"memory": "1Gi", "hugepages": {"pageSize": "1Gi"}}
    amount = random.choice(["16Mi", "64Mi", "64Mi", "256Mi", "512Mi"])
    return {"memory": amount} | ({"hugepages": {"pageSize": page}} if page else {})


def _binding(random: Random) -> dict[str, Any]:
    if random.random() < 0.7:
        return {}
    nodes = random.sample(range(5), random.randint(1, 3))
    binding: dict[str, Any] = {
        "mode": random.choice(["Strict", "Preferred", "Interleave", "Restrictive"])
    }
    if random.random() < 0.8:
        binding["hostCells"] = str(CpuSet.of(*nodes))
    return {"hostBinding": binding}


def _text(cpus: list[int]) -> str:
    return str(CpuSet(frozenset(cpus)))
