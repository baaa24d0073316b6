"""Rendering of domains, from one cell to the largest VM that the API takes."""

from __future__ import annotations

import time
from typing import Any, Final

from rich.console import Console

from bench.report import Table, median, percentile
from numavm_agent.domain.model import Accelerator, HostFacts
from numavm_agent.domain.render import render
from numavm_api.placement import Placement
from support.domains import claim_for, facts_of, spec_of, vm_of

REPEATS: Final = 30
LIMIT_MILLISECONDS: Final = 50
"""For 16 cells and 512 vCPUs."""
SHAPES: Final = ((1, 4), (2, 16), (8, 128), (16, 512))


def run(console: Console) -> list[Table]:
    """Render each shape from a spec that was just read, as the agent does, and time it."""
    rows = []
    for cells, vcpus in SHAPES:
        console.print(f"  {cells} cells, {vcpus} vCPUs")
        spec, placement, host = given(cells, vcpus)
        took = [_render(spec, placement, host) for _ in range(REPEATS)]
        rows.append((f"{cells} cells, {vcpus} vCPUs", median(took), percentile(took, 95)))
    return [
        Table(
            name="render",
            title=f"from spec and claim to XML, {REPEATS} times each",
            columns=("VM", "median ms", "p95 ms"),
            rows=tuple(rows),
            notes=(f"limit for the largest: {LIMIT_MILLISECONDS} ms",),
        )
    ]


def given(cells: int, vcpus: int) -> tuple[dict[str, Any], Placement, HostFacts]:
    """Return domain, claim and host of a VM with all distances and latencies between its cells."""
    per_cell = vcpus // cells
    declared = [
        {
            "id": cell,
            "cpus": f"{cell * per_cell}-{(cell + 1) * per_cell - 1}",
            "memory": "1Gi",
            "distances": [{"cell": other, "value": 21} for other in range(cell)],
        }
        for cell in range(cells)
    ]
    latencies = [
        {"initiator": a, "target": b, "type": "Access", "latencyNanoseconds": 80 + a + b}
        for a in range(cells)
        for b in range(a, cells)
    ]
    cpu = {
        "sockets": cells,
        "cores": per_cell,
        "dedicatedCpuPlacement": True,
        "numa": {"cells": declared, "interconnects": {"latencies": latencies}},
    }
    host = facts_of(cells, cpus=per_cell + 2, accelerator=Accelerator.KVM)
    domain = {"cpu": cpu}
    return domain, claim_for(vm_of(spec_of(domain)).effective, host), host


def _render(domain: dict[str, Any], placement: Placement, host: HostFacts) -> float:
    vm = vm_of(spec_of(domain))
    began = time.perf_counter()
    render(vm, placement, host)
    return (time.perf_counter() - began) * 1000
