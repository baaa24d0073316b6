"""Memory and idle CPU of operator and agent, with one VM running."""

from __future__ import annotations

import time

import psutil
from rich.console import Console

from bench.local_stack import local_stack
from bench.report import Table
from numavm_lab.stack import OPERATOR_PROCESS, Stack
from support.vms import vm_manifest

IDLE_SECONDS = 30


def run(console: Console) -> list[Table]:
    """Let both idle for a while and read what they used."""
    with local_stack(console) as (stack, vms):
        vms.create(vm_manifest("one", [(1, "64Mi")]))
        vms.wait_ready("one")
        before = {name: process.cpu_times() for name, process in _processes(stack).items()}
        console.print(f"  idle for {IDLE_SECONDS} s")
        time.sleep(IDLE_SECONDS)
        rows = tuple(
            (
                name,
                f"{process.memory_info().rss / 2**20:.0f}",
                f"{_busy(process.cpu_times(), before[name]) / IDLE_SECONDS * 100:.2f}",
            )
            for name, process in _processes(stack).items()
        )
    return [
        Table(
            name="footprint",
            title=f"idle for {IDLE_SECONDS} s with one VM",
            columns=("process", "resident MiB", "CPU % of one core"),
            rows=rows,
        )
    ]


def _processes(stack: Stack) -> dict[str, psutil.Process]:
    tables = {
        "operator": stack.processes.get(OPERATOR_PROCESS),
        "agent": stack.local.processes.get("agent"),
    }
    return {name: psutil.Process(record.pid) for name, record in tables.items() if record}


def _busy(now: psutil._common.pcputimes, then: psutil._common.pcputimes) -> float:
    return float(now.user + now.system - then.user - then.system)
