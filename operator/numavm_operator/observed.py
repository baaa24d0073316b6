"""Metrics by looking: what the operator's picture of the cluster says at the moment of a scrape.

Called from a thread of the metrics endpoint. It reads only values that never change (the fleet, frozen objects) and
copies that Python makes in one step, so that the event loop neither waits nor is waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from numavm_api.cpuset import CpuSet
from numavm_api.numahost import HostCell
from numavm_api.placement import Placement
from numavm_api.quantity import BASE_PAGE, Bytes
from numavm_operator.objects import Host, Vm
from numavm_operator.picture import Kind, Picture
from numavm_operator.reconcile.world import Reach

_CELL: Final = ("node", "cell")
_PAGES: Final = (*_CELL, "page_size")


@dataclass(frozen=True, slots=True)
class Backlog:
    """The work queue at a moment."""

    depth: int
    oldest_seconds: float
    """How long the oldest key has waited."""


class Observed(Collector):
    """What a leader sees. A standby sees nothing, and registers none of this."""

    def __init__(
        self,
        picture: Picture,
        backlog: Callable[[], Backlog],
        watch_ages: Callable[[], Mapping[Kind, float]],
        vm_series_limit: int,
    ) -> None:
        self._picture = picture
        self._backlog = backlog
        self._watch_ages = watch_ages
        self._limit = vm_series_limit

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return nothing: names are known from `collect`, which is not called before there is a picture."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every family."""
        backlog = self._backlog()
        yield _single("numavm_operator_queue_depth", "NumaVMs waiting for a worker.", backlog.depth)
        yield _single(
            "numavm_operator_queue_oldest_seconds",
            "How long the NumaVM that waits longest for a worker has waited.",
            backlog.oldest_seconds,
        )
        ages = GaugeMetricFamily(
            "numavm_operator_watch_age_seconds",
            "Seconds since a watch last showed something.",
            labels=["resource"],
        )
        for kind, age in self._watch_ages().items():
            ages.add_metric([str(kind)], age)
        yield ages
        vms = list(self._picture.vms)
        yield from _vm_families(vms, self._limit)
        yield from self._host_families()

    def _host_families(self) -> Iterator[GaugeMetricFamily]:
        fleet, watch = self._picture.ledger.fleet, self._picture.watch
        families = _HostFamilies()
        for host in self._picture.hosts:
            reachable = watch.reach(host, host.name) is Reach.REACHABLE
            claims = [one for held in fleet.claims(host.name).values() for one in held]
            families.add(host, claims, reachable=reachable)
        yield from families.all()


class _HostFamilies:
    """The families about hosts, filled host by host."""

    def __init__(self) -> None:
        self.ready = _family("numavm_host_ready", "1 where NumaVMs may be placed.", ("node",))
        self.reachable = _family(
            "numavm_host_reachable", "1 while the host's Lease is fresh.", ("node",)
        )
        self.vms = _family("numavm_host_vms", "NumaVMs that hold something here.", ("node",))
        self.orphans = _family("numavm_host_orphans", "Domains whose NumaVM is gone.", ("node",))
        self.overlap = _family(
            "numavm_host_pools_overlap",
            "1 where the kubelet may hand out what NumaVM may hand out.",
            ("node",),
        )
        self.cpus = _family(
            "numavm_host_cell_cpus", "CPUs of a host cell by pool.", (*_CELL, "pool")
        )
        self.free_cpus = _family(
            "numavm_host_cell_cpus_free", "CPUs of the dedicated pool that nobody holds.", _CELL
        )
        self.total = _family(
            "numavm_host_cell_memory_bytes", "Memory of a host cell by page size.", _PAGES
        )
        self.allocatable = _family(
            "numavm_host_cell_memory_allocatable_bytes",
            "Memory of a host cell that NumaVM may hand out in sum.",
            _PAGES,
        )
        self.held = _family(
            "numavm_host_cell_memory_held_bytes", "Memory of a host cell that claims hold.", _PAGES
        )
        self.fragmentation = _family(
            "numavm_host_fragmentation_ratio",
            "The part of what is free on a host that lies outside its emptiest cell: 0 is all in one place.",
            ("node", "resource"),
        )

    def all(self) -> list[GaugeMetricFamily]:
        """Return every family."""
        return list(vars(self).values())

    def add(self, host: Host, claims: list[Placement], *, reachable: bool) -> None:
        """Add what is known of a host and of the claims on it."""
        stated = {one.type: one.status for one in host.status.conditions}
        self.ready.add_metric([host.name], float(stated.get("Ready") == "True"))
        self.overlap.add_metric([host.name], float(stated.get("PoolsExclusive") == "False"))
        self.reachable.add_metric([host.name], float(reachable))
        self.vms.add_metric([host.name], len(host.status.claims))
        self.orphans.add_metric([host.name], sum(one.orphan for one in host.status.claims))
        held_cpus = CpuSet.union_of(claim.dedicated_cpus for claim in claims)
        held_memory = _held_memory(claims)
        free_cpus, free_memory = [], []
        for cell in host.status.cells:
            free_cpus.append(self._add_cpus(host, cell, held_cpus))
            free_memory.append(self._add_memory(host, cell, held_memory))
        self.fragmentation.add_metric([host.name, "cpus"], fragmentation(free_cpus))
        self.fragmentation.add_metric([host.name, "memory"], fragmentation(free_memory))

    def _add_cpus(self, host: Host, cell: HostCell, held: CpuSet) -> int:
        """Return how many are free."""
        labels = [host.name, str(cell.id)]
        online = CpuSet(frozenset(cpu.id for cpu in cell.cpus))
        pools = host.status.pools
        if pools is None:
            return 0
        by_pool = {
            "dedicated": pools.dedicated,
            "shared": pools.shared,
            "housekeeping": pools.housekeeping,
            "foreign": pools.foreign,
        }
        for name, members in by_pool.items():
            self.cpus.add_metric([*labels, name], len(members & online))
        free = len((pools.dedicated & online) - held)
        self.free_cpus.add_metric(labels, free)
        return free

    def _add_memory(self, host: Host, cell: HostCell, held: Mapping[tuple[int, Bytes], int]) -> int:
        """Return how many bytes are free in base pages."""
        huge = sum(pool.total * pool.page_size for pool in cell.hugepages)
        rows = [(BASE_PAGE, cell.memory.total - huge, int(cell.memory.allocatable))]
        rows += [
            (pool.page_size, pool.total * pool.page_size, pool.allocatable * pool.page_size)
            for pool in cell.hugepages
        ]
        for size, total, allocatable in rows:
            labels = [host.name, str(cell.id), str(size)]
            self.total.add_metric(labels, total)
            self.allocatable.add_metric(labels, allocatable)
            self.held.add_metric(labels, held.get((cell.id, size), 0))
        return max(0, cell.memory.allocatable - held.get((cell.id, BASE_PAGE), 0))


def fragmentation(free: list[int]) -> float:
    """Return the part of what is free that lies outside the emptiest cell; 0 where nothing is free."""
    total = sum(free)
    return 1 - max(free) / total if total else 0.0


def _vm_families(vms: list[Vm], limit: int) -> Iterator[GaugeMetricFamily]:
    counts = Counter(vm.status.printable_status for vm in vms)
    states = _family("numavm_vms", "NumaVMs by their printable status.", ("status",))
    for state, count in sorted(counts.items()):
        states.add_metric([str(state)], count)
    yield states
    shown = sorted(vms, key=lambda vm: vm.key)[:limit]
    conditions = _family(
        "numavm_status_condition",
        "1 for the status that a condition of a NumaVM has.",
        ("namespace", "name", "type", "status"),
    )
    info = _family(
        "numavm_vm_info", "1 for each NumaVM, with where it is.", ("namespace", "name", "node")
    )
    for vm in shown:
        info.add_metric([*vm.key, vm.status.node_name or ""], 1)
        for one in vm.status.conditions:
            conditions.add_metric([*vm.key, one.type, one.status], 1)
    yield conditions
    yield info
    yield _single(
        "numavm_vm_series_omitted",
        "NumaVMs without series of their own, because there are more than the operator's limit.",
        len(vms) - len(shown),
    )


def _held_memory(claims: list[Placement]) -> dict[tuple[int, Bytes], int]:
    held: dict[tuple[int, Bytes], int] = {}
    for claim in claims:
        for key, amount in claim.memory_by_host_cell().items():
            held[key] = held.get(key, 0) + amount
    return held


def _family(name: str, text: str, labels: Iterable[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=list(labels))


def _single(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
