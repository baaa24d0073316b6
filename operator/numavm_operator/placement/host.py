"""A host as the placement sees it: what never changes between two reports of its agent.

Owns the step from NumaHost to bit masks. CPUs are bits of one integer per set, host cells are indices into
`Host.cells` in the order of their ids, and claims are not looked at here: `state` subtracts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from numavm_api.conditions import HostConditionType
from numavm_api.cpuset import CpuSet
from numavm_api.hmat import HostCellClass
from numavm_api.numahost import Capabilities, EffectivePools, HostCell, NumaHostSpec, NumaHostStatus
from numavm_api.powers import Grant, powers_permitted
from numavm_api.quantity import BASE_PAGE, Bytes
from numavm_operator.placement.bits import mask_of
from numavm_operator.placement.devices import HostDevice, devices_of
from numavm_operator.placement.nodes import NodeFacts, Taint

LOCAL_DISTANCE: Final = 10
REMOTE_DISTANCE: Final = 20
"""What the kernel assumes where the firmware gives no SLIT (include/linux/topology.h)."""


class FitKey(NamedTuple):
    """Facts with their hash, which is worth remembering."""

    facts: tuple[object, ...]
    hashed: int

    @classmethod
    def of(cls, facts: tuple[object, ...]) -> FitKey:
        """Return the key of these facts."""
        return cls(facts, hash(facts))

    def __hash__(self) -> int:
        return self.hashed


@dataclass(frozen=True, slots=True)
class Core:
    """One core: its online threads within one host cell."""

    threads: int
    """Mask of its online CPUs."""
    width: int
    """How many they are."""
    last_level_cache: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One host cell, before claims."""

    id: int
    cores: tuple[Core, ...]
    online: int
    dedicated: int
    shared: int
    """Mask of the shared pool; 0 where it follows the dedicated one."""
    housekeeping: int
    memory: Mapping[Bytes, int]
    """Bytes that NumaVM may hand out, per page size."""
    sockets: frozenset[int] = frozenset()
    """Physical packages of its CPUs."""
    memory_class: HostCellClass | None = None

    @property
    def refuge(self) -> int:
        """Mask of CPUs that no dedicated VM is ever given: there emulator threads may float."""
        return self.housekeeping | self.shared

    @property
    def has_siblings(self) -> bool:
        """Whether any core has more than one thread online."""
        return any(core.width > 1 for core in self.cores)


@dataclass(frozen=True)
class Host:
    """One host, before claims."""

    name: str
    cells: tuple[Cell, ...]
    distances: tuple[tuple[int, ...], ...]
    """There and back, by index of cell: twice the SLIT value where that is symmetric."""
    alike: tuple[int, ...]
    """Per cell, the first cell with the same distances to all others: the two can change places."""
    shared_follows: bool
    allocation_percent: int
    node: NodeFacts
    devices: tuple[HostDevice, ...]
    """PCI devices that VMs may have, by address."""
    ready: bool
    not_ready_because: str
    reachable: bool
    unschedulable: bool
    fenced: bool
    kvm: bool
    emulation: bool
    max_vcpus: int
    machine_types: frozenset[str]
    directories: tuple[str, ...]
    powers: frozenset[Grant]
    """What its administrator permits beside paths and devices."""

    @cached_property
    def kind(self) -> FitKey:
        """All of the host that says whether it comes into question for a VM, but for name and labels."""
        open_ = (
            self.ready,
            self.not_ready_because,
            self.reachable,
            self.unschedulable,
            self.fenced,
        )
        able = (self.kvm, self.emulation, self.max_vcpus, self.machine_types)
        permitted = (self.directories, self.powers)
        widest = max((core.width for cell in self.cells for core in cell.cores), default=0)
        return FitKey.of((open_, able, permitted, widest, self.node.taints, self.node.cordoned))

    @cached_property
    def layout(self) -> FitKey:
        """Its cells and how far they are from each other."""
        return FitKey.of((tuple(cell.id for cell in self.cells), self.distances))

    @cached_property
    def nearness(self) -> float:
        """How near its two nearest cells are: 1 as if they were one, 0 where there is only one."""
        pairs = [distance for at, row in enumerate(self.distances) for distance in row[at + 1 :]]
        return 2 * LOCAL_DISTANCE / max(min(pairs), 1) if pairs else 0.0

    def index_of(self, cell_id: int) -> int | None:
        """Return the index of the cell with this id; None: the host has no such cell."""
        for index, cell in enumerate(self.cells):
            if cell.id == cell_id:
                return index
        return None


def host_from(
    name: str,
    spec: NumaHostSpec,
    status: NumaHostStatus,
    *,
    labels: Mapping[str, str] | None = None,
    taints: tuple[Taint, ...] = (),
    cordoned: bool = False,
    reachable: bool = True,
) -> Host:
    """Return the host of a NumaHost. Never raises: what is missing in the report makes the host not ready.

    Args:
        name: The node's name.
        spec: The administrator's part.
        status: The agent's report. Its claims are not read: hand them to `Fleet.with_claim`.
        labels: Of the Kubernetes node.
        taints: Of the Kubernetes node.
        cordoned: Whether the Kubernetes node is marked unschedulable.
        reachable: The caller's judgement of the host's Lease and of the age of the report.
    """
    pools = status.pools or EffectivePools(
        dedicated=CpuSet(), shared=CpuSet(), shared_follows_dedicated=True, housekeeping=CpuSet()
    )
    cells = sorted(status.cells, key=lambda cell: cell.id)
    because = _not_ready(status)
    able = status.capabilities
    distances = _distances(cells)
    return Host(
        name=name,
        cells=tuple(_cell(cell, pools) for cell in cells),
        distances=distances,
        alike=_alike(distances),
        shared_follows=pools.shared_follows_dedicated,
        allocation_percent=spec.cpu_allocation_percent,
        node=NodeFacts(name, dict(labels or {}), taints, cordoned),
        devices=devices_of(status),
        ready=not because,
        not_ready_because=because,
        reachable=reachable,
        unschedulable=spec.unschedulable,
        fenced=spec.fenced,
        kvm=able is not None and able.kvm,
        emulation=able is not None and able.emulation_allowed,
        max_vcpus=able.max_vcpus if able else 0,
        machine_types=_machine_types(able),
        directories=tuple(status.permitted.directories),
        powers=powers_permitted(status.permitted),
    )


def _machine_types(able: Capabilities | None) -> frozenset[str]:
    return frozenset(able.machine_types) if able else frozenset()


def _not_ready(status: NumaHostStatus) -> str:
    """Return why nothing can be placed, in the agent's words; an empty text means ready."""
    ready = next((one for one in status.conditions if one.type == HostConditionType.READY), None)
    if ready is None:
        return "its agent has not reported"
    if ready.status != "True":
        return ready.message or ready.reason
    if not status.cells or status.pools is None or status.capabilities is None:
        return "its report has no cells, pools or capabilities yet"
    return ""


def _cell(cell: HostCell, pools: EffectivePools) -> Cell:
    online = mask_of(CpuSet(frozenset(cpu.id for cpu in cell.cpus)))
    usable = online & ~mask_of(pools.foreign)
    memory: dict[Bytes, int] = {BASE_PAGE: cell.memory.allocatable}
    for pool in cell.hugepages:
        memory[pool.page_size] = pool.allocatable * pool.page_size
    follows = pools.shared_follows_dedicated
    return Cell(
        id=cell.id,
        cores=_cores(cell, online),
        online=online,
        dedicated=mask_of(pools.dedicated) & usable,
        shared=0 if follows else mask_of(pools.shared) & usable,
        housekeeping=mask_of(pools.housekeeping) & usable,
        memory=memory,
        sockets=frozenset(cpu.socket for cpu in cell.cpus),
        memory_class=cell.memory_class,
    )


def _cores(cell: HostCell, online: int) -> tuple[Core, ...]:
    """Return the cores by last-level cache, then by number, so that neighbours are close."""
    caches: dict[int, int] = {}
    for cpu in cell.cpus:
        threads = (mask_of(cpu.siblings) | 1 << cpu.id) & online
        caches.setdefault(threads, cpu.last_level_cache)
    in_order = sorted(caches.items(), key=lambda item: (item[1], item[0] & -item[0]))
    return tuple(Core(threads, threads.bit_count(), cache) for threads, cache in in_order)


def _distances(cells: list[HostCell]) -> tuple[tuple[int, ...], ...]:
    one_way = [{entry.cell: entry.value for entry in cell.distances} for cell in cells]

    def there(a: int, b: int) -> int:
        unknown = LOCAL_DISTANCE if a == b else REMOTE_DISTANCE
        return one_way[a].get(cells[b].id, unknown)

    size = range(len(cells))
    return tuple(tuple(there(a, b) + there(b, a) for b in size) for a in size)


def _alike(distances: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    size = range(len(distances))

    def can_swap(a: int, b: int) -> bool:
        return all(distances[a][c] == distances[b][c] for c in size if c not in (a, b))

    return tuple(next(a for a in size if a == b or can_swap(a, b)) for b in size)
