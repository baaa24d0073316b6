"""Values for unit tests of the agent: a spec, a claim that fits it, a host with two cells."""

from typing import Any

from numavm_agent.ports import VmObject
from numavm_agent.reconcile.admission import HostState
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import (
    CellDistance,
    HeldClaim,
    HostCell,
    HostCpu,
    HostHugePages,
    HostMemory,
    NumaHostSpec,
)
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import CpuPlacement, PlacedCell, Placement
from numavm_api.pools import OtherUsers, effective_pools
from numavm_api.quantity import GIBIBYTE, MEBIBYTE, Bytes
from numavm_api.request_hash import request_hash
from numavm_api.vm_status import DomainStatus, NumaVMStatus

HUGE = Bytes(2 * MEBIBYTE)


def spec(**changes: Any) -> NumaVMSpec:
    """Return the spec of a guest of two cells with one vCPU and 64Mi of 2Mi pages each, dedicated CPUs."""
    cells = [
        {"id": number, "cpus": str(number), "memory": "64Mi", "hugepages": {"pageSize": "2Mi"}}
        for number in (0, 1)
    ]
    document: dict[str, Any] = {
        "domain": {
            "type": "TCG",
            "cpu": {"cores": 2, "dedicatedCpuPlacement": True, "numa": {"cells": cells}},
        }
    }
    return NumaVMSpec.model_validate({**document, **changes})


def shared_spec() -> NumaVMSpec:
    """Return the spec of a guest without wishes: one vCPU that floats, 64Mi."""
    return NumaVMSpec.model_validate({"domain": {"type": "TCG", "memory": {"guest": "64Mi"}}})


def claim(wanted: NumaVMSpec | None = None, **changes: Any) -> Placement:
    """Return a claim for `spec()`: guest cell 0 on host cell 0 and CPU 1, 1 on 1 and CPU 3."""
    wanted = wanted or spec()
    fields: dict[str, Any] = {
        "id": "claim-1",
        "epoch": 1,
        "request_hash": request_hash(wanted),
        "cpu_placement": CpuPlacement.DEDICATED,
        "summary": "0->0,1->1",
        "cells": [
            PlacedCell(
                id=number,
                host_cells=CpuSet.of(number),
                mode="Strict",
                memory=Bytes(64 * MEBIBYTE),
                page_size=HUGE,
                vcpus=CpuSet.of(number),
                pcpus=[CpuSet.of(2 * number + 1)],
            )
            for number in (0, 1)
        ],
        "dedicated_cpus": CpuSet.of(1, 3),
        "overhead": Bytes(32 * MEBIBYTE),
        "overhead_cell": 0,
    }
    return Placement(**{**fields, **changes})


def shared_claim(host_cell: int = 0) -> Placement:
    """Return a claim for `shared_spec()` on one host cell."""
    wanted = shared_spec()
    cell = PlacedCell(
        id=0,
        host_cells=CpuSet.of(host_cell),
        mode="Preferred",
        memory=Bytes(64 * MEBIBYTE),
        vcpus=CpuSet.of(0),
    )
    return claim(
        wanted,
        id="shared-1",
        cpu_placement=CpuPlacement.SHARED,
        cells=[cell],
        dedicated_cpus=CpuSet(),
        overhead_cell=host_cell,
        summary=f"0->{host_cell}",
    )


def held(placement: Placement, uid: str = "other", *, orphan: bool = False) -> HeldClaim:
    """Return a claim as a host holds it."""
    return HeldClaim(uid=uid, namespace="ns", name=uid, orphan=orphan, placement=placement)


def cells(pages: int = 64, free: int | None = None) -> list[HostCell]:
    """Return two host cells: CPUs 0-1 and 2-3, 1Gi each, `pages` huge pages of which `free` are free."""
    return [
        HostCell(
            id=number,
            cpus=[
                HostCpu(id=cpu, siblings=CpuSet.of(cpu), socket=number, last_level_cache=number)
                for cpu in (2 * number, 2 * number + 1)
            ],
            memory=HostMemory(
                total=Bytes(GIBIBYTE), free=Bytes(GIBIBYTE), allocatable=Bytes(512 * MEBIBYTE)
            ),
            hugepages=[
                HostHugePages(
                    page_size=HUGE,
                    total=pages,
                    free=pages if free is None else free,
                    allocatable=pages,
                )
            ],
            distances=[CellDistance(cell=0, value=10), CellDistance(cell=1, value=21)],
        )
        for number in (0, 1)
    ]


def host(**changes: Any) -> HostState:
    """Return the host that holds nothing: CPUs 1 and 3 in the pool, 0 and 2 for housekeeping."""
    others: OtherUsers = changes.pop("others", OtherUsers())
    administrator: NumaHostSpec = changes.pop("spec", NumaHostSpec())
    claims: list[HeldClaim] = changes.get("held", [])
    fields: dict[str, Any] = {
        "cells": cells(),
        "held": [],
        "starting": [],
        "highest_epoch": 1,
        "kvm": False,
        "emulation_allowed": True,
        "max_vcpus": 255,
    }
    fields |= changes
    if "pools" not in fields:
        placements = [one.placement for one in claims]
        fields["pools"] = effective_pools(administrator, fields["cells"], placements, others)
    return HostState(**fields)


def vm(
    wanted: NumaVMSpec | None = None,
    *,
    placement: Placement | None = None,
    domain: DomainStatus | None = None,
    **changes: Any,
) -> VmObject:
    """Return a NumaVM of this node."""
    status = NumaVMStatus(node_name="node", placement=placement, domain=domain)
    fields: dict[str, Any] = {
        "namespace": "ns",
        "name": "vm",
        "uid": "uid-1",
        "generation": 3,
        "resource_version": "7",
        "deleting": False,
        "spec": wanted or spec(),
        "status": status,
        "raw_status": status.to_api(),
    }
    return VmObject(**{**fields, **changes})
