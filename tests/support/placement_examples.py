"""Hosts, fleets and VMs small enough to check a placement by hand."""

from __future__ import annotations

from typing import Any

from numavm_api.cpuset import CpuSet
from numavm_api.effective import effective
from numavm_api.numahost import NumaHostSpec, NumaHostStatus
from numavm_api.numavm import NumaVMSpec
from numavm_operator.placement import (
    Cause,
    Fleet,
    Placed,
    Refusal,
    Request,
    host_from,
    place,
    request_for,
    summary,
)


def host(
    name: str = "host-a",
    *,
    cells: int = 2,
    cores: int = 4,
    threads: int = 1,
    memory: str = "4Gi",
    huge: int = 0,
    far: int = 20,
    caches: int = 1,
    **changes: Any,
) -> dict[str, Any]:
    """Return a NumaHost whose first core in each cell is the host's, and whose cells number their CPUs in turn."""
    per_cell = cores * threads
    body = {
        "metadata": {"name": name},
        "spec": {},
        "labels": {},
        "reachable": True,
        "status": {
            "cells": [
                {
                    "id": cell,
                    "cpus": [
                        {
                            "id": cell * per_cell + core * threads + thread,
                            "siblings": str(
                                CpuSet(
                                    frozenset(
                                        cell * per_cell + core * threads + at
                                        for at in range(threads)
                                    )
                                )
                            ),
                            "socket": cell,
                            "lastLevelCache": cell * caches + core * caches // cores,
                        }
                        for core in range(cores)
                        for thread in range(threads)
                    ],
                    "memory": {"total": memory, "free": memory, "allocatable": memory},
                    "hugepages": [
                        {"pageSize": "2Mi", "total": huge, "free": huge, "allocatable": huge}
                    ],
                    "distances": [
                        {"cell": other, "value": 10 if other == cell else far}
                        for other in range(cells)
                    ],
                }
                for cell in range(cells)
            ],
            "pools": {
                "dedicated": ",".join(
                    f"{cell * per_cell + threads}-{(cell + 1) * per_cell - 1}"
                    for cell in range(cells)
                ),
                "shared": "",
                "sharedFollowsDedicated": True,
                "housekeeping": ",".join(
                    f"{cell * per_cell}-{cell * per_cell + threads - 1}" for cell in range(cells)
                ),
            },
            "capabilities": {
                "kvm": True,
                "emulationAllowed": False,
                "libvirtVersion": "9.0.0",
                "qemuVersion": "7.2.22",
                "machineTypes": ["pc-q35-7.2"],
                "maxVcpus": 64,
            },
            "permitted": {"directories": ["/var/lib/vms"]},
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "AgentReady",
                    "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
        },
    }
    return {**body, **changes}


def fleet(*hosts: dict[str, Any]) -> Fleet:
    made = Fleet.empty()
    for one in hosts:
        made = made.with_host(
            host_from(
                one["metadata"]["name"],
                NumaHostSpec.model_validate(one["spec"]),
                NumaHostStatus.model_validate(one["status"]),
                labels=one["labels"],
                reachable=one["reachable"],
            )
        )
    return made


def vm(
    *cells: dict[str, Any], cores: int, threads: int = 1, memory: str | None = None, **cpu: Any
) -> dict[str, Any]:
    """Return a spec with dedicated CPUs; cells as in the API, ids added."""
    body: dict[str, Any] = {
        "cores": cores,
        "threads": threads,
        "dedicatedCpuPlacement": True,
        **cpu,
    }
    if cells:
        body["numa"] = {"cells": [{"id": at, **cell} for at, cell in enumerate(cells)]}
    return {"domain": {"cpu": body, "memory": {"guest": memory} if memory else {}}}


def request(spec: dict[str, Any], uid: str = "vm", **more: Any) -> Request:
    parsed = NumaVMSpec.model_validate(spec)
    given: dict[str, Any] = {
        "uid": uid,
        "namespace": "default",
        "name": uid,
        "placement_id": f"claim-{uid}",
        "epoch": 3,
        "request_hash": "hash",
        **more,
    }
    return request_for(effective(parsed), **given)


def placed(wanted: Request, where: Fleet) -> Placed:
    outcome = place(wanted, where)
    assert isinstance(outcome, Placed), summary(outcome)
    return outcome


def refused(wanted: Request, where: Fleet) -> Refusal:
    outcome = place(wanted, where)
    assert isinstance(outcome, Refusal), outcome
    return outcome


def cause(wanted: Request, where: Fleet) -> Cause:
    counts = refused(wanted, where).counts
    assert len(counts) == 1
    return counts[0].cause


def pcpus(outcome: Placed, cell: int = 0) -> str:
    return str(CpuSet.union_of(outcome.placement.cells[cell].pcpus))


TWO_CELLS = vm({"cpus": "0-1", "memory": "1Gi"}, {"cpus": "2-3", "memory": "1Gi"}, cores=4)
