"""One decision on one host of 16 cells for a VM of 8 guest cells: fitting, and not by a little."""

from __future__ import annotations

import time
from random import Random

from bench.placement_mix import Model, bench_host, bench_vm
from bench.report import Table, median, percentile
from numavm_operator.placement import Fleet, Placed, Request, place, request_for

BIG = Model(cells=16, cores=9, near=12, far=32, cells_per_socket=4)
GUEST_CELLS, VCPUS = 8, 64
DRAWS = 200


def one_host() -> Table:
    """Measure decisions on hosts with random holes, none remembered from before."""
    random = Random(1)  # noqa: S311 - the same holes every time
    times: dict[str, list[float]] = {"fits": [], "does not fit": []}
    for number in range(DRAWS):
        fleet = _with_holes(random, 2 + number % 24)
        wanted = _request("vm", VCPUS, GUEST_CELLS)
        began = time.process_time()
        outcome = place(wanted, fleet.apart())
        seconds = time.process_time() - began
        times["fits" if isinstance(outcome, Placed) else "does not fit"].append(seconds)
    rows = tuple(
        (name, len(found), round(1000 * median(found), 3), round(1000 * percentile(found, 99), 3))
        for name, found in times.items()
        if found
    )
    title = "One decision: 16 host cells, 8 guest cells, a host not seen before"
    return Table("placement-one-host", title, ("outcome", "draws", "median ms", "p99 ms"), rows)


def _with_holes(random: Random, holes: int) -> Fleet:
    fleet = Fleet.empty().with_host(bench_host("host", BIG))
    for number in range(holes):
        small = _request(f"hole-{number}", random.choice((2, 4, 8, 12)), 1)
        found = place(small, fleet)
        if isinstance(found, Placed):
            fleet = fleet.with_claim("host", small.uid, found.placement)
    return fleet


def _request(uid: str, vcpus: int, cells: int) -> Request:
    return request_for(
        bench_vm(vcpus, cells, 2, huge=True),
        uid=uid,
        namespace="bench",
        name=uid,
        placement_id=uid,
        epoch=1,
        request_hash="bench",
    )
