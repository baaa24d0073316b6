"""Nova's own fit of a VM on a host, over a fleet. Runs in the benches' environment, without NumaVM.

Nova's are `nova.virt.hardware.numa_fit_instance_to_host` and `numa_usage_from_instance_numa`, as its filter and
its compute hosts call them. Ours around it: the sums that Placement filters by, and the RAM and CPU weighers
(normalised over the hosts that are left, as `nova.weights` does it). Time is CPU time of the decision, claim included;
no RPC, database or API time is counted for it.
"""

from __future__ import annotations

from typing import Any

import nova.conf
from nova import context as nova_context
from nova import objects
from nova.objects import fields
from nova.virt import hardware

HUGE_KIB = 1024 * 1024
BASE_KIB = 4


class Nova:
    """A fleet as Nova sees it."""

    def __init__(self, hosts: list[dict[str, Any]], strategy: str) -> None:
        """Take the fleet.

        Args:
            hosts: Per host its cells: CPUs, siblings, memory.
            strategy: `spread` (Nova's default) or `pack`.
        """
        nova.conf.CONF([], project="nova", default_config_files=[])
        pack = strategy == "pack"
        nova.conf.CONF.set_override(
            "packing_host_numa_cells_allocation_strategy", pack, group="compute"
        )
        self._sign = -1.0 if pack else 1.0
        self._context = nova_context.RequestContext()
        self._hosts = [topology_of(host) for host in hosts]
        self._free = [sums_of(host) for host in self._hosts]
        self._held: dict[str, tuple[int, Any, tuple[int, int]]] = {}

    def place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Place a VM: filter by sums, fit each host, weigh, claim."""
        need = (wanted["vcpus"], wanted["mib"])
        asked = instance_of(wanted)
        fits = []
        reached = False
        for number, free in enumerate(self._free):
            if free[0] < need[0] or free[1] < need[1]:
                continue
            reached = True
            fit = hardware.numa_fit_instance_to_host(
                self._hosts[number], asked.obj_clone(), provider_mapping={}
            )
            if fit is not None:
                fits.append((number, fit))
        if not fits:
            return {"refused": "NUMA" if reached else "full"}
        number, fit = self._heaviest(fits)
        self._claim(number, fit, need, wanted["uid"])
        return {"host": number, "cells": [cell.id for cell in fit.cells]}

    def leave(self, uid: str) -> None:
        """Give back what a VM holds."""
        number, fit, need = self._held.pop(uid)
        self._book(number, fit, need, free=True)

    def _heaviest(self, fits: list[tuple[int, Any]]) -> tuple[int, Any]:
        rams = [self._free[number][1] for number, _ in fits]
        cpus = [self._free[number][0] for number, _ in fits]

        def share(value: int, values: list[int]) -> float:
            span = max(values) - min(values)
            return (value - min(values)) / span if span else 0.0

        weights = [
            self._sign * (share(ram, rams) + share(cpu, cpus))
            for ram, cpu in zip(rams, cpus, strict=True)
        ]
        return fits[weights.index(max(weights))]

    def _claim(self, number: int, fit: Any, need: tuple[int, int], uid: str) -> None:
        self._held[uid] = (number, fit, need)
        self._book(number, fit, need, free=False)

    def _book(self, number: int, fit: Any, need: tuple[int, int], *, free: bool) -> None:
        self._hosts[number] = hardware.numa_usage_from_instance_numa(
            self._hosts[number], fit, free=free
        )
        cpus, mib = self._free[number]
        sign = 1 if free else -1
        self._free[number] = (cpus + sign * need[0], mib + sign * need[1])


def topology_of(host: dict[str, Any]) -> Any:
    """Return a host as Nova's NUMATopology."""
    cells = []
    for cell in host["cells"]:
        pages = [
            objects.NUMAPagesTopology(size_kb=size, total=total, used=0, reserved=0)
            for size, total in cell["pages"]
        ]
        cells.append(
            objects.NUMACell(
                id=cell["id"],
                cpuset=set(),
                pcpuset=set(cell["cpus"]),
                memory=cell["mib"],
                cpu_usage=0,
                memory_usage=0,
                pinned_cpus=set(),
                siblings=[set(core) for core in cell["siblings"]],
                mempages=pages,
                socket=cell["socket"],
            )
        )
    return objects.NUMATopology(cells=cells)


def sums_of(topology: Any) -> tuple[int, int]:
    """Return CPUs and MiB in all."""
    return (
        sum(len(cell.pcpuset) for cell in topology.cells),
        sum(cell.memory for cell in topology.cells),
    )


def instance_of(wanted: dict[str, Any]) -> Any:
    """Return a VM as Nova's InstanceNUMATopology."""
    count = wanted["cells"]
    each = wanted["vcpus"] // count
    return objects.InstanceNUMATopology(
        cells=[
            objects.InstanceNUMACell(
                id=at,
                cpuset=set(),
                pcpuset=set(range(at * each, (at + 1) * each)),
                memory=wanted["mib"] // count,
                pagesize=HUGE_KIB if wanted["huge"] else BASE_KIB,
                cpu_policy=fields.CPUAllocationPolicy.DEDICATED,
                cpu_thread_policy=fields.CPUThreadAllocationPolicy.PREFER,
                cpu_pinning={},
            )
            for at in range(count)
        ]
    )
