"""The placement against Nova, best fit, fragmentation gradient and the optimum: same fleets, streams and run.

`BENCH_SIZE=full` takes more seeds and longer streams (about an hour on two cores); else it is done in minutes.
`BENCH_HOSTS=50,1000` takes only fleets of these sizes. Nova is given only the first VMs of a stream where each of its
decisions takes long; the figures of the others are for all.
"""

from __future__ import annotations

import heapq
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from rich.console import Console
from rich.progress import track

from bench import placement_mix as mix
from bench.placement_one_host import one_host
from bench.placement_peers import Peer, best_fit, fragmentation_gradient
from bench.placement_rivals import Ideal, Nova, most_vcpus
from bench.report import Table, percentile
from numavm_operator.collector import survivors_frozen
from numavm_operator.placement import Fleet, Host, Placed, Refusal, place, request_for

LOAD = 1.0
"""vCPUs asked for in the long run, as a part of the fleet's CPUs."""


@dataclass(frozen=True)
class Run:
    """Streams on a fleet."""

    hosts: int
    requests: int
    seeds: tuple[int, ...]
    slow: int
    """How many of the VMs Nova gets, which takes long."""
    rescanned: int | None = None
    """How many of them the reference placers get, which look at every host each time; None: all."""
    ideal: bool = False
    """Whether CP-SAT is asked too: exact, and slow."""


RUNS = {
    "quick": (
        Run(4, 150, (1, 2), slow=150, ideal=True),
        Run(50, 1500, (1,), slow=1500),
        Run(200, 1500, (1,), slow=300),
        Run(1000, 1200, (1,), slow=40, rescanned=200),
        Run(5000, 1200, (1,), slow=6, rescanned=40),
    ),
    "full": (
        Run(6, 300, (1, 2, 3, 4, 5, 6), slow=300, ideal=True),
        Run(50, 2500, (1, 2, 3, 4, 5), slow=2500),
        Run(200, 6000, (1, 2, 3), slow=6000),
        Run(1000, 6000, (1, 2), slow=300, rescanned=1200),
        Run(5000, 6000, (1,), slow=60, rescanned=300),
    ),
}
STATIC = {"quick": (6, 75, (1, 2, 3)), "full": (6, 75, tuple(range(1, 11)))}
"""(hosts, VMs that come and stay, seeds): how near each placer comes to the best packing there is."""
COLUMNS = (
    "hosts: placer",
    "accepted vCPUs",
    "accepted VMs",
    "decisions/s",
    "p50 ms",
    "p99 ms",
    "first-seen p99 ms",
    "mean distance",
    "refused for",
)


class Placer(Protocol):
    """What is compared."""

    def place(self, arrival: mix.Arrival) -> tuple[int, tuple[int, ...]] | str:
        """Place a VM; return number of the host and its cells, or the cause of the refusal."""

    def leave(self, uid: str) -> None:
        """Give back what a VM holds."""

    def end(self) -> None:
        """End what was started."""

    @property
    def seconds(self) -> float:
        """CPU seconds of the last decision, where it was made in another process; else 0."""


class Engine:
    """The product's placement, with the claim written into its fleet as the operator does."""

    def __init__(self, hosts: list[Host]) -> None:
        """Start with empty hosts."""
        self.seconds = 0.0
        self._numbers = {host.name: number for number, host in enumerate(hosts)}
        self._fleet = Fleet.empty()
        for host in hosts:
            self._fleet = self._fleet.with_host(host)
        self._where: dict[str, str] = {}

    def place(self, arrival: mix.Arrival) -> tuple[int, tuple[int, ...]] | str:
        """Place a VM and hold its claim."""
        request = request_for(
            arrival.vm,
            uid=arrival.uid,
            namespace="bench",
            name=arrival.uid,
            placement_id=arrival.uid,
            epoch=1,
            request_hash="bench",
        )
        match place(request, self._fleet):
            case Placed(node_name=node, placement=claim):
                self._fleet = self._fleet.with_claim(node, arrival.uid, claim)
                self._where[arrival.uid] = node
                return self._numbers[node], tuple(cell.host_cells.first() for cell in claim.cells)
            case Refusal(counts=counts):
                return counts[0].cause.value
            case undecided:
                return type(undecided).__name__

    def leave(self, uid: str) -> None:
        """Give back what a VM holds."""
        self._fleet = self._fleet.without_claim(self._where.pop(uid), uid)

    def end(self) -> None:
        """There is nothing to end."""


class PlainPeer:
    """A reference placer, which knows no causes."""

    def __init__(self, peer: Peer) -> None:
        """Wrap a peer."""
        self.seconds = 0.0
        self._peer = peer
        self.leave = peer.leave

    def end(self) -> None:
        """There is nothing to end."""

    def place(self, arrival: mix.Arrival) -> tuple[int, tuple[int, ...]] | str:
        """Place a VM."""
        return self._peer.place(arrival) or "full"


PLACERS: dict[str, Callable[[list[Host]], Placer]] = {
    "NumaVM": Engine,
    "best fit": lambda hosts: PlainPeer(Peer(hosts, best_fit)),
    "FGD": lambda hosts: PlainPeer(Peer(hosts, fragmentation_gradient)),
    "Nova spread": lambda hosts: Nova(hosts, "spread"),
    "Nova pack": lambda hosts: Nova(hosts, "pack"),
    "Nova scheduler": lambda hosts: Nova(hosts, "scheduler"),
}
SLOW = ("Nova spread", "Nova pack", "Nova scheduler")
RESCANNING = ("best fit", "FGD")
IDEAL = "ideal (moves free)"


@dataclass(slots=True)
class Tally:
    """What one placer did over the streams of all seeds."""

    vcpus: int = 0
    vcpus_accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    known: list[float] = field(default_factory=list)
    """CPU seconds per decision on a shape of request seen before."""
    first: list[float] = field(default_factory=list)
    distances: list[int] = field(default_factory=list)
    """Per VM of several cells, the largest SLIT distance between two of them."""

    def row(self, name: str) -> tuple[str | float | int, ...]:
        """Return the figures."""
        times = self.known + self.first
        return (
            name,
            round(self.vcpus_accepted / self.vcpus, 4),
            round(1 - self.refused.total() / len(times), 4),
            round(len(times) / sum(times), 2),
            round(percentile(self.known, 50) * 1000, 2),
            round(percentile(self.known, 99) * 1000, 2),
            round(percentile(self.first, 99) * 1000, 2),
            round(sum(self.distances) / max(1, len(self.distances)), 2),
            ", ".join(f"{cause} {count}" for cause, count in self.refused.most_common()),
        )


def run(console: Console) -> list[Table]:
    """Compare the placers on every fleet."""
    size = os.environ.get("BENCH_SIZE", "quick")
    only = {int(hosts) for hosts in os.environ.get("BENCH_HOSTS", "").split(",") if hosts}
    rows = []
    with survivors_frozen():  # as in the operator
        for one in RUNS[size]:
            for row in _rows(one, console) if not only or one.hosts in only else ():
                console.print(
                    "  ", *row, highlight=False
                )  # a long run that is ended has something to show
                rows.append(row)
    notes = (
        f"load {LOAD}, empty start (1000 hosts and more never fill: speed only); VMs of 2-64 vCPUs, 1-4 cells",
        f"hosts 2x32c, 4x16c, 8x16c with SMT; {mix.HUGE_SHARE:.0%} of VMs on huge pages",
        "times are CPU seconds, the claim included; the peers keep counts of threads and GiB only",
        "Nova spread and pack: its fit function alone; Nova scheduler: spread through its own filter and weighers",
        "ideal: CP-SAT packs all VMs anew at each arrival, as if moving them were free; no placer can do better",
    )
    table = Table(
        "placement", "Placers on the same fleets and streams", COLUMNS, tuple(rows), notes
    )
    return [table] if only else [table, _static(size, console), one_host()]


def _rows(one: Run, console: Console) -> Iterator[tuple[str | float | int, ...]]:
    placers = PLACERS | ({IDEAL: Ideal} if one.ideal else {})
    fleet = mix.hosts(one.hosts)
    for name, make in placers.items():
        tally = Tally()
        requests = _given(one, name)
        steps = track(
            _all_seeds(tally, make, one, fleet, requests),
            total=requests * len(one.seeds),
            description=f"{one.hosts} hosts, {name}",
            console=console,
            transient=True,
        )
        deque(steps, maxlen=0)
        few = f" (first {requests})" if requests < one.requests else ""
        yield tally.row(f"{one.hosts}: {name}{few}")


def _given(one: Run, name: str) -> int:
    """Return how many VMs of each stream a placer gets."""
    if name in SLOW:
        return one.slow
    if name in RESCANNING and one.rescanned is not None:
        return one.rescanned
    return one.requests


def _all_seeds(
    tally: Tally,
    make: Callable[[list[Host]], Placer],
    one: Run,
    fleet: list[Host],
    requests: int,
) -> Iterator[int]:
    for seed in one.seeds:
        arrivals = islice(mix.stream(seed, one.requests, mix.capacity(fleet), LOAD), requests)
        placer = make(fleet)
        yield from _one_stream(tally, placer, fleet, arrivals)
        placer.end()


def _one_stream(
    tally: Tally, placer: Placer, fleet: list[Host], arrivals: Iterator[mix.Arrival]
) -> Iterator[int]:
    leaving: list[tuple[float, str]] = []
    seen = set()
    for number, arrival in enumerate(arrivals):
        while leaving and leaving[0][0] <= arrival.time:
            placer.leave(heapq.heappop(leaving)[1])
        shape = (arrival.vcpus, arrival.cells, arrival.gib_per_vcpu, arrival.huge)
        began = time.process_time()
        answer = placer.place(arrival)
        seconds = placer.seconds or time.process_time() - began
        (tally.known if shape in seen else tally.first).append(seconds)
        seen.add(shape)
        tally.vcpus += arrival.vcpus
        if isinstance(answer, str):
            tally.refused[answer] += 1
        else:
            tally.vcpus_accepted += arrival.vcpus
            heapq.heappush(leaving, (arrival.leaves, arrival.uid))
            if arrival.cells > 1 and answer[1]:
                tally.distances.append(_largest_distance(fleet[answer[0]], answer[1]))
        yield number


def _static(size: str, console: Console) -> Table:
    """Compare with the best packing of VMs that all stay: what each placer holds of the vCPUs that could be held."""
    count, vms, seeds = STATIC[size]
    fleet = mix.hosts(count)
    shares: dict[str, list[float]] = {name: [] for name in PLACERS}
    for seed in track(seeds, description="the best packing", console=console, transient=True):
        arrivals = list(mix.stream(seed, vms, mix.capacity(fleet), LOAD))
        most = most_vcpus(fleet, arrivals)
        for name, make in PLACERS.items():
            placer = make(fleet)
            held = sum(one.vcpus for one in arrivals if not isinstance(placer.place(one), str))
            placer.end()
            shares[name].append(held / most)
    rows = tuple(
        (name, round(sum(found) / len(found), 4), round(min(found), 4))
        for name, found in shares.items()
    )
    columns = ("placer", "vCPUs held / optimum", "worst seed")
    title = f"{vms} VMs on {count} hosts, none leaves: against the optimum (CP-SAT)"
    return Table("placement-static", title, columns, rows, (f"seeds {seeds}",))


def _largest_distance(host: Host, cells: tuple[int, ...]) -> int:
    """Return the largest SLIT distance; `Host.distances` holds there and back."""
    return max(host.distances[a][b] // 2 for a in cells for b in cells if a != b)
