"""The agent's metrics: its loop, and for each of its guests what was promised, what is there, and how its vCPUs fare.

Per-guest series are bounded by what fits on one host. Pages are those that the loop has read last (`numa_maps` is not
walked for a scrape); vCPU times and balloon figures are read at the scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from numavm_agent.errors import HypervisorUnavailable
from numavm_agent.host.schedstat import VcpuTime
from numavm_agent.pulse import GuestNow, Pulse

_VM: Final = ("namespace", "name")
_CELL: Final = (*_VM, "guest_cell", "host_cell")


class Metrics:
    """What is counted as it happens."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.turn_seconds = Histogram(
            "numavm_agent_turn_seconds",
            "Time of one turn of the loop.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0),
            registry=self.registry,
        )


@dataclass(frozen=True, slots=True)
class Watched:
    """Where the loop says how it gets on."""

    pulse: Pulse
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Sources:
    """Where figures come from at a scrape."""

    vcpu_times: Callable[[int], Iterable[VcpuTime]]
    """Of a process."""
    balloons: Callable[[], Mapping[str, Mapping[str, int]]]
    """By UUID."""


class Observed(Collector):
    """What is measured by looking."""

    def __init__(self, pulse: Pulse, sources: Sources) -> None:
        self._pulse = pulse
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names are known from `collect`, which asks the host."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from self._loop()
        guests = self._pulse.guests
        yield GaugeMetricFamily(
            "numavm_agent_guests", "Domains of NumaVM's on this host.", value=len(guests)
        )
        yield from _memory(guests)
        yield from self._vcpus(guests)
        yield self._balloons(guests)

    def _loop(self) -> Iterator[Metric]:
        turns = CounterMetricFamily(
            "numavm_agent_turns", "Turns of the loop by how they went.", labels=["result"]
        )
        for result, count in self._pulse.turns().items():
            turns.add_metric([result.value], count)
        yield turns
        age = self._pulse.watch_age_seconds()
        watch = GaugeMetricFamily(
            "numavm_agent_watch_age_seconds",
            "Seconds since the watch was last known to be alive.",
            labels=[],
        )
        if age is not None:
            watch.add_metric([], age)
        yield watch

    def _vcpus(self, guests: Iterable[GuestNow]) -> Iterator[Metric]:
        labels = [*_VM, "vcpu"]
        run = CounterMetricFamily(
            "numavm_agent_vcpu_run_seconds", "Time a vCPU's thread was on a CPU.", labels=labels
        )
        wait = CounterMetricFamily(
            "numavm_agent_vcpu_wait_seconds",
            "Time a vCPU's thread was ready to run and waited for a CPU.",
            labels=labels,
        )
        for guest in guests:
            times = self._sources.vcpu_times(guest.pid) if guest.pid is not None else ()
            for one in times:
                values = [guest.namespace, guest.name, str(one.vcpu)]
                run.add_metric(values, one.run_seconds)
                wait.add_metric(values, one.wait_seconds)
        yield run
        yield wait

    def _balloons(self, guests: Iterable[GuestNow]) -> Metric:
        family = GaugeMetricFamily(
            "numavm_agent_balloon_bytes",
            "Memory of a guest by libvirt's balloon figures.",
            labels=[*_VM, "figure"],
        )
        try:
            figures = self._sources.balloons()
        except HypervisorUnavailable:
            return family  # the loop's own metric says so
        for guest in guests:
            for name, amount in figures.get(guest.uuid, {}).items():
                family.add_metric([guest.namespace, guest.name, name], amount)
        return family


def _memory(guests: Iterable[GuestNow]) -> Iterator[Metric]:
    promised = GaugeMetricFamily(
        "numavm_agent_memory_promised_bytes",
        "Memory of a guest cell, on each host cell that may hold it.",
        labels=_CELL,
    )
    resident = GaugeMetricFamily(
        "numavm_agent_memory_resident_bytes",
        "Memory of a guest cell that the kernel says is on a host cell.",
        labels=_CELL,
    )
    misaligned = GaugeMetricFamily(
        "numavm_agent_memory_misaligned_bytes",
        "Memory of a guest on host cells that were not promised.",
        labels=_VM,
    )
    pinned = GaugeMetricFamily(
        "numavm_agent_threads_pinned",
        "1 while every vCPU thread may run exactly where it was promised.",
        labels=_VM,
    )
    for guest in guests:
        vm = [guest.namespace, guest.name]
        for cell in guest.placement.cells:
            for host_cell in cell.host_cells:
                promised.add_metric([*vm, str(cell.id), str(host_cell)], cell.memory)
        if guest.numa is None:
            continue
        astray = 0
        for seen in guest.numa.cells:
            for one in seen.resident:
                resident.add_metric([*vm, str(seen.id), str(one.host_cell)], one.bytes)
                astray += 0 if one.host_cell in seen.host_cells else one.bytes
        misaligned.add_metric(vm, astray)
        pinned.add_metric(vm, float(all(seen.pinned for seen in guest.numa.cells)))
    yield from (promised, resident, misaligned, pinned)
