"""The placement against plain best fit and fragmentation gradient: same fleets, same streams, same run."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import track

from bench import placement_mix as mix
from bench.placement_peers import Peer, best_fit, fragmentation_gradient
from bench.report import Table, percentile
from numavm_operator.placement import Fleet, Host, Placed, Refusal, place, request_for

LOAD = 1.0
"""vCPUs asked for in the long run, as a part of the fleet's CPUs."""
RUNS = ((50, 2500, (1, 2, 3)), (200, 3000, (1,)), (1000, 600, (1,)))
"""(hosts, requests, seeds)."""
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


class Engine:
    """The product's placement, with the claim written into its fleet as the operator does."""

    def __init__(self, hosts: list[Host]) -> None:
        """Start with empty hosts."""
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


class PlainPeer:
    """A reference placer, which knows no causes."""

    def __init__(self, peer: Peer) -> None:
        """Wrap a peer."""
        self._peer = peer
        self.leave = peer.leave

    def place(self, arrival: mix.Arrival) -> tuple[int, tuple[int, ...]] | str:
        """Place a VM."""
        return self._peer.place(arrival) or "full"


PLACERS: dict[str, Callable[[list[Host]], Placer]] = {
    "NumaVM": Engine,
    "best fit": lambda hosts: PlainPeer(Peer(hosts, best_fit)),
    "FGD": lambda hosts: PlainPeer(Peer(hosts, fragmentation_gradient)),
}


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
            round(len(times) / sum(times)),
            round(percentile(self.known, 50) * 1000, 2),
            round(percentile(self.known, 99) * 1000, 2),
            round(percentile(self.first, 99) * 1000, 2),
            round(sum(self.distances) / max(1, len(self.distances)), 2),
            ", ".join(f"{cause} {count}" for cause, count in self.refused.most_common()),
        )


def run(console: Console) -> list[Table]:
    """Compare the placers on every fleet."""
    rows = []
    for hosts, requests, seeds in RUNS:
        for name, make in PLACERS.items():
            tally = Tally()
            label = f"{hosts} hosts, {name}"
            for arrival_count in track(
                _all_seeds(tally, make, hosts, requests, seeds),
                total=requests * len(seeds),
                description=label,
                console=console,
                transient=True,
            ):
                del arrival_count
            rows.append(tally.row(f"{hosts}: {name}"))
    notes = (
        f"load {LOAD}, empty start (1000 hosts never fill: speed only); VMs of 2-64 vCPUs, 1-4 cells",
        f"hosts 2x32c, 4x16c, 8x16c with SMT; {mix.HUGE_SHARE:.0%} of VMs on huge pages",
        "times are CPU seconds, the claim included; the peers keep counts of threads and GiB only",
    )
    return [
        Table("placement", "Placers on the same fleets and streams", COLUMNS, tuple(rows), notes)
    ]


def _all_seeds(
    tally: Tally,
    make: Callable[[list[Host]], Placer],
    hosts: int,
    requests: int,
    seeds: tuple[int, ...],
) -> Iterator[int]:
    fleet = mix.hosts(hosts)
    for seed in seeds:
        arrivals = mix.stream(seed, requests, mix.capacity(fleet), LOAD)
        yield from _one_stream(tally, make(fleet), fleet, arrivals)


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
        (tally.known if shape in seen else tally.first).append(time.process_time() - began)
        seen.add(shape)
        tally.vcpus += arrival.vcpus
        if isinstance(answer, str):
            tally.refused[answer] += 1
        else:
            tally.vcpus_accepted += arrival.vcpus
            heapq.heappush(leaving, (arrival.leaves, arrival.uid))
            if arrival.cells > 1:
                tally.distances.append(_largest_distance(fleet[answer[0]], answer[1]))
        yield number


def _largest_distance(host: Host, cells: tuple[int, ...]) -> int:
    """Return the largest SLIT distance; `Host.distances` holds there and back."""
    return max(host.distances[a][b] // 2 for a in cells for b in cells if a != b)
