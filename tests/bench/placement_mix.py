"""Fleets and streams of requests that the placers are compared on: deterministic by seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveVM, effective
from numavm_api.numahost import NumaHostSpec, NumaHostStatus
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import GIBIBYTE
from numavm_operator.placement import Host, host_from


@dataclass(frozen=True)
class Model:
    """A kind of server."""

    cells: int
    cores: int
    near: int
    """SLIT distance between cells of a socket."""
    far: int
    cells_per_socket: int
    memory_per_cell: int = 0

    def slit(self, one: int, other: int) -> int:
        """Return the distance between two cells."""
        if one == other:
            return 10
        same = one // self.cells_per_socket == other // self.cells_per_socket
        return self.near if same else self.far


THREADS = 2
GIB_PER_THREAD = 5
HUGE_SHARE = 0.8
HUGE_POOL_SHARE = 0.72
MODELS = (
    Model(cells=2, cores=32, near=21, far=21, cells_per_socket=1),
    Model(cells=4, cores=16, near=12, far=12, cells_per_socket=4),
    Model(cells=8, cores=16, near=12, far=32, cells_per_socket=4),
)
FLAVORS: tuple[tuple[int, int, int], ...] = (
    (2, 1, 22),
    (4, 1, 22),
    (8, 1, 18),
    (16, 1, 12),
    (16, 2, 6),
    (32, 2, 11),
    (32, 4, 2),
    (64, 2, 3),
    (64, 4, 4),
)
"""(vCPUs, guest cells, weight)."""


@dataclass(frozen=True)
class Arrival:
    """One VM of the stream."""

    uid: str
    time: float
    leaves: float
    vcpus: int
    cells: int
    gib_per_vcpu: int
    huge: bool
    vm: EffectiveVM


def hosts(count: int) -> list[Host]:
    """Return a fleet of all models in turn."""
    return [bench_host(f"host-{at:04d}", MODELS[at % len(MODELS)]) for at in range(count)]


def bench_host(name: str, model: Model, smt: int = THREADS) -> Host:
    """Return one server; one core of each cell is the host's, most memory is in 1Gi pages."""
    return host_from(
        name, NumaHostSpec(), NumaHostStatus.model_validate(_status(model, smt)), labels={}
    )


def _status(model: Model, smt: int) -> dict[str, Any]:
    cells = []
    dedicated: list[int] = []
    housekeeping: list[int] = []
    for cell in range(model.cells):
        first = cell * model.cores * smt
        cpus = []
        for core in range(model.cores):
            threads = [first + core * smt + at for at in range(smt)]
            (dedicated if core else housekeeping).extend(threads)
            siblings = str(CpuSet(frozenset(threads)))
            cpus += [
                {
                    "id": cpu,
                    "siblings": siblings,
                    "socket": cell // model.cells_per_socket,
                    "lastLevelCache": cell * 16 + core // 8,
                }
                for cpu in threads
            ]
        gib = model.cores * smt * GIB_PER_THREAD
        pages = int(gib * HUGE_POOL_SHARE)
        base = gib - pages
        cells.append(
            {
                "id": cell,
                "cpus": cpus,
                "memory": {"total": f"{gib}Gi", "free": f"{base}Gi", "allocatable": f"{base}Gi"},
                "hugepages": [
                    {"pageSize": "1Gi", "total": pages, "free": pages, "allocatable": pages}
                ],
                "distances": [
                    {"cell": other, "value": model.slit(cell, other)}
                    for other in range(model.cells)
                ],
            }
        )
    return {
        "cells": cells,
        "pools": {
            "dedicated": str(CpuSet(frozenset(dedicated))),
            "shared": "",
            "sharedFollowsDedicated": True,
            "housekeeping": str(CpuSet(frozenset(housekeeping))),
        },
        "capabilities": {
            "kvm": True,
            "emulationAllowed": False,
            "libvirtVersion": "9.0.0",
            "qemuVersion": "7.2.22",
            "maxVcpus": 288,
        },
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "AgentReady",
                "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }


def capacity(fleet: list[Host]) -> int:
    """Return the CPUs that the fleet can hand out."""
    return sum(cell.dedicated.bit_count() for host in fleet for cell in host.cells)


def stream(seed: int, requests: int, cpus: int, load: float) -> Iterator[Arrival]:
    """Yield VMs that come and go; in the long run `load` of `cpus` is asked for."""
    random = Random(seed)  # noqa: S311 - the same stream every time
    weights = [weight for _, _, weight in FLAVORS]
    mean = sum(vcpus * weight for vcpus, _, weight in FLAVORS) / sum(weights)
    life = load * cpus / mean
    now = 0.0
    for number in range(requests):
        now += random.expovariate(1.0)
        vcpus, cells, _ = random.choices(FLAVORS, weights)[0]
        huge = random.random() < HUGE_SHARE
        gib = random.choice([2, 4, 4]) if huge else random.choice([2, 4])
        yield Arrival(
            uid=f"vm-{number}",
            time=now,
            leaves=now + random.expovariate(1 / life),
            vcpus=vcpus,
            cells=cells,
            gib_per_vcpu=gib,
            huge=huge,
            vm=bench_vm(vcpus, cells, gib, huge=huge),
        )


def bench_vm(vcpus: int, cells: int, gib_per_vcpu: int, *, huge: bool) -> EffectiveVM:
    """Return a VM with dedicated CPUs, two threads per core, in equal guest cells."""
    each = vcpus // cells
    pages = {"hugepages": {"pageSize": "1Gi"}} if huge else {}
    spec = {
        "domain": {
            "cpu": {
                "cores": vcpus // THREADS,
                "threads": THREADS,
                "dedicatedCpuPlacement": True,
                "numa": {
                    "cells": [
                        {
                            "id": at,
                            "cpus": f"{at * each}-{(at + 1) * each - 1}",
                            "memory": each * gib_per_vcpu * GIBIBYTE,
                            **pages,
                        }
                        for at in range(cells)
                    ]
                },
            }
        }
    }
    return effective(NumaVMSpec.model_validate(spec))
