"""One simulation: a fleet, a stream, and what came of it."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from numavm_cli.simulation.stream import Event, request_of
from numavm_operator.placement import Fleet, Placed, Policy, Refusal, Undecided, place

PIECE = 16
"""Free CPUs count as usable in pieces of so many of one cell."""
SAMPLES = 240
"""Columns of the picture of the fleet over time."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Which part of each host cell's dedicated CPUs is held, at one moment."""

    time: float
    held: tuple[float, ...]


@dataclass(slots=True)
class Result:
    """What came of a stream."""

    cells: tuple[str, ...]
    """`host/cell`, in the order of samples."""
    vms: int = 0
    accepted: int = 0
    vcpus: int = 0
    vcpus_accepted: int = 0
    undecided: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    distances: list[int] = field(default_factory=list)
    """Per VM of several cells the mean SLIT distance between two of them."""
    seconds: list[float] = field(default_factory=list)
    """CPU time of each decision."""
    samples: list[Sample] = field(default_factory=list)
    fragmentation: list[float] = field(default_factory=list)
    """Per sample the part of the free CPUs that lies in no whole piece of a cell."""

    def to_api(self) -> dict[str, Any]:
        """Return the JSON form."""
        times = sorted(self.seconds)
        return {
            "vms": self.vms,
            "acceptedVms": self.accepted,
            "vcpus": self.vcpus,
            "acceptedVcpus": self.vcpus_accepted,
            "acceptance": round(self.vcpus_accepted / max(1, self.vcpus), 4),
            "refused": dict(self.refused.most_common()),
            "undecided": self.undecided,
            "decisionsPerSecond": round(len(times) / max(sum(times), 1e-9)),
            "medianMilliseconds": round(1000 * times[len(times) // 2], 3) if times else 0,
            "p99Milliseconds": round(1000 * times[len(times) * 99 // 100], 3) if times else 0,
            "meanDistance": round(sum(self.distances) / max(1, len(self.distances)), 2),
            "fragmentation": round(sum(self.fragmentation) / max(1, len(self.fragmentation)), 4),
            "fragmentationAtEnd": self.fragmentation[-1] if self.fragmentation else 0,
        }


def simulate(
    fleet: Fleet, events: Iterable[Event], expected: int, policy: Policy
) -> Iterator[Result]:
    """Yield the result so far after each arrival.

    Args:
        fleet: The hosts, with what is held there from the start.
        events: Who comes and when, in order of time.
        expected: How many events there are, for the samples.
        policy: How hosts are chosen.

    Raises:
        RejectedError: a spec in the stream is refused.
    """
    result = Result(_names(fleet))
    leaving: list[tuple[float, str, str]] = []
    every = max(1, expected // SAMPLES)
    for number, event in enumerate(events):
        while leaving and leaving[0][0] <= event.time:
            _, uid, node = heapq.heappop(leaving)
            fleet = fleet.without_claim(node, uid)
        fleet = _decide(fleet, event, policy, result, leaving)
        if number % every == 0 or number + 1 == expected:
            result.samples.append(Sample(event.time, _held(fleet)))
            result.fragmentation.append(fragmentation(fleet))
        yield result


def _decide(
    fleet: Fleet,
    event: Event,
    policy: Policy,
    result: Result,
    leaving: list[tuple[float, str, str]],
) -> Fleet:
    request = request_of(event)
    began = time.process_time()
    outcome = place(request, fleet, policy)
    result.seconds.append(time.process_time() - began)
    result.vms += 1
    result.vcpus += request.vm.vcpus
    match outcome:
        case Placed(node_name=node, placement=claim):
            result.accepted += 1
            result.vcpus_accepted += request.vm.vcpus
            pairs = len(claim.cells) * (len(claim.cells) - 1)
            if pairs:
                result.distances.append(outcome.distance // pairs)
            if event.leaves is not None:
                heapq.heappush(leaving, (event.leaves, event.name, node))
            return fleet.with_claim(node, event.name, claim)
        case Refusal(counts=counts):
            result.refused[counts[0].cause.value if counts else "NoHosts"] += 1
        case Undecided():
            result.undecided += 1
    return fleet


def fragmentation(fleet: Fleet) -> float:
    """Return the part of the fleet's free CPUs that lies in no whole piece of a cell; 0 where none is free."""
    free = [cell.free for state in fleet.states.values() for cell in state.cells]
    return round(sum(one % PIECE for one in free) / max(1, sum(free)), 4)


def capacity(fleet: Fleet) -> int:
    """Return the CPUs that the fleet can hand out."""
    return sum(cell.dedicated.bit_count() for host in fleet.hosts.values() for cell in host.cells)


def _names(fleet: Fleet) -> tuple[str, ...]:
    hosts = sorted(fleet.hosts.items())
    return tuple(f"{name}/{cell.id}" for name, host in hosts for cell in host.cells)


def _held(fleet: Fleet) -> tuple[float, ...]:
    parts = []
    for _, state in sorted(fleet.states.items()):
        for cell, free in zip(state.host.cells, state.cells, strict=True):
            pool = cell.dedicated.bit_count()
            parts.append(1 - free.free / pool if pool else 0.0)
    return tuple(parts)
