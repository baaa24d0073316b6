"""VMs, hosts and claims for rendering, made by rules simple enough to be seen to be right."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from numavm_agent.domain.model import Accelerator, Domain, HostFacts, VmToRender
from numavm_agent.domain.render import render
from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveCell, EffectiveVM
from numavm_api.numahost import EffectivePools
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import CpuPlacement, PlacedCell, PlacedModule, Placement
from numavm_api.quantity import Bytes

UID = "c7a5fdbd-cdaf-4455-926a-d65c16db1809"


def spec_of(
    domain: Mapping[str, Any] | None = None, *, cells: int = 0, **rest: object
) -> NumaVMSpec:
    """Return a spec with as many guest cells of 2 vCPUs and 64Mi as wanted; 0: no ``numa``."""
    cpu: dict[str, Any] = {"sockets": max(cells, 1), "cores": 2}
    memory: dict[str, Any] = {}
    if cells:
        cpu["numa"] = {
            "cells": [
                {"id": cell, "cpus": f"{2 * cell}-{2 * cell + 1}", "memory": "64Mi"}
                for cell in range(cells)
            ]
        }
    else:
        memory["guest"] = "64Mi"
    given = dict(domain or {})
    merged = {
        **given,
        "cpu": {**cpu, **given.get("cpu", {})},
        "memory": {**memory, **given.get("memory", {})},
    }
    return NumaVMSpec.model_validate({"domain": merged, **rest})


def facts_of(
    cells: int, cpus: int = 8, accelerator: Accelerator = Accelerator.TCG, **changes: Any
) -> HostFacts:
    """Return a host of equal cells with consecutive CPUs, the first of each left to the host itself."""
    by_cell = {
        cell: CpuSet(frozenset(range(cell * cpus, (cell + 1) * cpus))) for cell in range(cells)
    }
    housekeeping = CpuSet(frozenset(one.first() for one in by_cell.values()))
    offered = CpuSet.union_of(by_cell.values()) - housekeeping
    facts: dict[str, Any] = {
        "accelerator": accelerator,
        "machine": "pc-q35-7.2",
        "cells": by_cell,
        "pools": EffectivePools(
            dedicated=offered,
            shared=offered,
            shared_follows_dedicated=True,
            housekeeping=housekeeping,
        ),
        "held": CpuSet(),
    }
    return HostFacts(**{**facts, **changes})


def claim_for(vm: EffectiveVM, host: HostFacts) -> Placement:
    """Return a claim: guest cell i on host cell i modulo their number, or where the user bound it; CPUs in order.

    Derived cells are split evenly over as many host cells as were asked for, else over all; a vCPU that is off
    has no CPU.
    """
    if vm.derived_cells is not None:
        vm = replace(vm, cells=_split(vm, vm.derived_cells.count or len(host.cells)))
    free = {cell: list(host.pools.dedicated & cpus) for cell, cpus in host.cells.items()}
    placed = []
    for cell in vm.cells:
        host_cells = cell.host_cells or CpuSet.of(cell.id % len(host.cells))
        first = host_cells.first()
        pcpus = [
            CpuSet.of(_pick(free[first], vm.vcpu_candidates.get(vcpu)))
            if vcpu in vm.boot_vcpus
            else CpuSet()
            for vcpu in (cell.vcpus if vm.dedicated else ())
        ]
        placed.append(
            PlacedCell(
                id=cell.id,
                host_cells=host_cells,
                mode=cell.mode,
                memory=cell.memory,
                page_size=cell.page_size,
                vcpus=cell.vcpus,
                pcpus=pcpus,
                plugged=cell.plugged or None,
            )
        )
    dedicated = CpuSet.union_of(cpu for cell in placed for cpu in cell.pcpus)
    emulator = CpuSet()
    if vm.isolate_emulator_thread:
        emulator = CpuSet.of(_pick(free[placed[0].host_cells.first()], vm.emulator_candidates))
    return Placement(
        id="claim-1",
        epoch=1,
        request_hash="",
        cpu_placement=CpuPlacement.DEDICATED if vm.dedicated else CpuPlacement.SHARED,
        summary=",".join(f"{cell.id}->{cell.host_cells}" for cell in placed),
        cells=placed,
        dedicated_cpus=dedicated | emulator,
        emulator_cpus=emulator,
        modules=[
            PlacedModule(
                name=module.name,
                cell=placed[module.cell or 0].id,
                host_cells=module.host_cells or placed[module.cell or 0].host_cells,
                mode=placed[module.cell or 0].mode,
                memory=module.claimed,
                page_size=module.page_size,
            )
            for module in vm.modules_apart
        ],
        overhead=Bytes(64 * 2**20),
        overhead_cell=placed[0].host_cells.first(),
    )


def _pick(free: list[int], candidates: CpuSet | None) -> int:
    chosen = next(cpu for cpu in free if candidates is None or cpu in candidates)
    free.remove(chosen)
    return chosen


def _split(vm: EffectiveVM, count: int) -> tuple[EffectiveCell, ...]:
    (whole,) = vm.cells
    threads = vm.threads_per_core
    cores = vm.vcpus // threads
    return tuple(
        replace(
            whole,
            id=cell,
            host_cells=None,
            vcpus=CpuSet(
                frozenset(
                    core * threads + thread
                    for core in range(cell, cores, count)
                    for thread in range(threads)
                )
            ),
            memory=Bytes(whole.memory // count),
        )
        for cell in range(count)
    )


def interleaved(placement: Placement, host_cells: CpuSet) -> Placement:
    """Return the claim with its only guest cell spread over several host cells."""
    cell = placement.cells[0].model_copy(
        update={"host_cells": host_cells, "mode": BindingMode.INTERLEAVE}
    )
    return placement.model_copy(update={"cells": [cell]})


def vm_of(spec: NumaVMSpec, name: str = "vm", namespace: str = "default") -> VmToRender:
    """Return a VM with a spec."""
    return VmToRender(namespace=namespace, name=name, uid=UID, generation=1, spec=spec)


def rendered(spec: NumaVMSpec, host: HostFacts) -> Domain:
    """Return the domain of a spec under a simple claim."""
    vm = vm_of(spec)
    return render(vm, claim_for(vm.effective, host), host)
