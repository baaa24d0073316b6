"""The limit, by OR-tools CP-SAT: the most vCPUs that a fleet can hold, and whether a set of VMs can be packed at all.

JSON lines in, JSON lines out; runs in the benches' environment, without NumaVM. A VM of k guest cells takes k different
cells of one host, each its share of threads and GiB; which CPUs, and QEMU's own memory, are left out, so that no placer
can do better.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from ortools.sat.python import cp_model

SECONDS = 5.0
"""Per question; what is not answered by then counts as it stands."""


def solve(hosts: list[list[dict[str, int]]], vms: list[dict[str, int]], *, all_: bool) -> int:
    """Return the most vCPUs that can be held, or with `all_` those of all VMs, else -1."""
    model = cp_model.CpModel()
    taken: dict[tuple[int, int], list[tuple[Any, dict[str, int]]]] = {}
    placed = []
    for vm in vms:
        on_hosts = []
        for number, cells in enumerate(hosts):
            here = model.new_bool_var("")
            on_cells = [model.new_bool_var("") for _ in cells]
            model.add(sum(on_cells) == vm["cells"] * here)
            on_hosts.append(here)
            for cell, var in enumerate(on_cells):
                taken.setdefault((number, cell), []).append((var, vm))
        model.add(sum(on_hosts) == 1) if all_ else model.add(sum(on_hosts) <= 1)
        placed.append(sum(on_hosts))
    for (number, cell), vars_ in taken.items():
        for thing in ("threads", "huge", "base"):
            wanted = sum(var * vm[thing] for var, vm in vars_)
            model.add(wanted <= hosts[number][cell][thing])
    if not all_:
        model.maximize(sum(one * vm["vcpus"] for one, vm in zip(placed, vms, strict=True)))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = SECONDS
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return -1
    return sum(vm["vcpus"] for vm in vms) if all_ else round(solver.objective_value)


def main() -> None:
    """Answer one line with one line until the pipe ends."""
    for line in sys.stdin:
        message = json.loads(line)
        began = time.process_time()
        most = solve(message["hosts"], message["vms"], all_=message["all"])
        sys.stdout.write(json.dumps({"vcpus": most, "seconds": time.process_time() - began}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
