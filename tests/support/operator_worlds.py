"""Worlds for the operator's pure parts.

One VM, its claim, its domain, its host, and what hosts report.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from numavm_api.conditions import Condition
from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import HeldClaim
from numavm_api.numavm import FINALIZER, Domain, NumaVMSpec, RunStrategy
from numavm_api.placement import CpuPlacement, PlacedCell, Placement
from numavm_api.quantity import MEBIBYTE, Bytes
from numavm_api.vm_status import DomainStatus, NumaVMStatus, Refusal
from numavm_operator.objects import Vm, VmKey
from numavm_operator.reconcile.world import Claimed, HostClaim, HostView, Reach, Waiting, World

UID = "0c5f9a3e-0000-4000-8000-000000000001"
NODE = "host-a"


def claim(
    identity: str = "c1", *, epoch: int = 3, cpus: CpuSet | None = None, host_cell: int = 0
) -> Placement:
    """Return a claim of one cell on one host cell, 0 unless said otherwise."""
    held = cpus or CpuSet.of(1)
    return Placement(
        id=identity,
        epoch=epoch,
        request_hash="h",
        cpu_placement=CpuPlacement.DEDICATED,
        summary=f"0->{host_cell}",
        cells=[
            PlacedCell(
                id=0,
                host_cells=CpuSet.of(host_cell),
                mode=BindingMode.STRICT,
                memory=Bytes(256 * MEBIBYTE),
                vcpus=CpuSet(frozenset(range(len(held)))),
                pcpus=[CpuSet.of(cpu) for cpu in held],
            )
        ],
        dedicated_cpus=held,
        overhead=Bytes(64 * MEBIBYTE),
        overhead_cell=host_cell,
    )


@dataclass
class WorldMaker:
    """Makes a world; every field has the value of a VM that waits to be placed."""

    strategy: RunStrategy = RunStrategy.ALWAYS
    deleting: bool = False
    finalizer: bool = True
    violations: tuple[str, ...] = ()
    unreadable: str | None = None
    placement: Placement | None = None
    node_name: str | None = NODE
    domain: DomainStatus | None = None
    conditions: list[Condition] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    generation: int = 1
    reach: Reach = Reach.REACHABLE
    fenced: bool = False
    boot_id: str | None = None
    claimed: tuple[Claimed, ...] = ()
    waiting: Waiting | None = None
    bound_to: str | None = None
    """Host cells that the spec binds its one guest cell to."""
    why_fixed: str | None = None

    def make(self) -> World:
        """Return the world."""
        held = self.placement is not None
        status = NumaVMStatus(
            node_name=self.node_name if held else None,
            placement=self.placement,
            domain=self.domain,
            conditions=self.conditions,
            refusals=self.refusals,
        )
        vm = Vm(
            key=VmKey("ns", "vm"),
            uid=UID,
            resource_version=10,
            generation=self.generation,
            created="2026-01-01T00:00:00Z",
            deleting=self.deleting,
            finalizers=(FINALIZER,) if self.finalizer else (),
            spec=NumaVMSpec(run_strategy=self.strategy, domain=self._domain()),
            violations=self.violations,
            status=status,
            unreadable=self.unreadable,
        )
        host = None
        if held and self.node_name:
            host = HostView(
                self.node_name,
                exists=True,
                reach=self.reach,
                fenced=self.fenced,
                boot_id=self.boot_id,
                why_fixed=self.why_fixed,
            )
        return World(vm=vm, host=host, claimed=self.claimed, waiting=self.waiting)

    def _domain(self) -> Domain:
        if self.bound_to is None:
            return Domain()
        cell = {
            "id": 0,
            "cpus": "0",
            "memory": "256Mi",
            "hostBinding": {"hostCells": self.bound_to},
        }
        return Domain.model_validate({"cpu": {"numa": {"cells": [cell]}}})


def reported(
    placement: Placement, node_name: str = NODE, *, confirmed: bool = True, fenced: bool = False
) -> Claimed:
    """Return a host's report that the VM holds a claim there."""
    held = HeldClaim(uid=UID, namespace="ns", name="vm", placement=placement)
    return Claimed(HostClaim(node_name, held), confirmed=confirmed, fenced=fenced)
