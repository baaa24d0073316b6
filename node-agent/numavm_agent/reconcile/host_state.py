"""The host as it is in one turn of the loop: gathered once, from kernel, libvirt and the agent's own admissions.

Owns what counts as held: the claims of NumaVM's domains, by their own metadata, and those of starts under way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from numavm_agent.ports import HostReader
from numavm_agent.reconcile.admission import HostState
from numavm_agent.reconcile.host_probe import Qemu
from numavm_agent.reconcile.inventory import ManagedDomain
from numavm_agent.reconcile.jobs import Settled
from numavm_agent.topology.allocatable import NO_PROMISE, OwnResident, Promised, report_cells
from numavm_agent.topology.readings import HostTopology
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import EffectivePools, HeldClaim, HostCell, NumaHostSpec
from numavm_api.placement import Placement
from numavm_api.pools import OtherUsers, effective_pools
from numavm_api.quantity import BASE_PAGE, Bytes


@dataclass(frozen=True, slots=True)
class HostNow:
    """The host in this turn."""

    spec: NumaHostSpec
    topology: HostTopology
    cells: Sequence[HostCell]
    others: OtherUsers
    claims: tuple[HeldClaim, ...]
    """Of domains, and of starts under way."""
    starting: Mapping[str, Placement]
    """Starts under way, by uid."""
    highest_epoch: int
    qemu: Qemu | None
    """None: it is being found out."""
    foreign_devices: frozenset[str] = frozenset()
    """Host devices that domains of others hold."""

    @property
    def pools(self) -> EffectivePools:
        """The pools in force, given what is held."""
        placements = [claim.placement for claim in self.claims]
        return effective_pools(self.spec, self.cells, placements, self.others)

    @property
    def held_cpus(self) -> CpuSet:
        """CPUs that claims keep to themselves."""
        return CpuSet.union_of(claim.placement.held_cpus for claim in self.claims)

    @property
    def cpus(self) -> dict[int, CpuSet]:
        """Online CPUs of each host cell."""
        return self.topology.cell_cpus()

    def with_start(self, claim: HeldClaim) -> HostNow:
        """Return the host with one more claim admitted."""
        others = tuple(held for held in self.claims if held.uid != claim.uid)
        return replace(
            self,
            claims=(*others, claim),
            starting={**self.starting, claim.uid: claim.placement},
        )

    def with_change(self, claim: HeldClaim) -> HostNow:
        """Return the host where a running VM holds an amended claim beside the one before."""
        others = tuple(held for held in self.claims if held.uid != claim.uid)
        return replace(self, claims=(*others, claim))

    def seen_by(self, uid: str) -> HostState:
        """Return the host as the admission of one VM's claim must see it: without that VM's own."""
        held = [claim for claim in self.claims if claim.uid != uid]
        placements = [claim.placement for claim in held]
        return HostState(
            cells=self.cells,
            pools=effective_pools(self.spec, self.cells, placements, self.others),
            held=held,
            starting=[claim for owner, claim in self.starting.items() if owner != uid],
            highest_epoch=self.highest_epoch,
            kvm=self.qemu is not None and self.qemu.kvm.works,
            emulation_allowed=self.spec.allow_emulation,
            max_vcpus=self.qemu.emulator.max_vcpus if self.qemu else 0,
            libvirt_version=self.qemu.libvirt_version if self.qemu else "",
            pci_devices=self.topology.pci_devices,
            foreign_devices=self.foreign_devices,
            permitted=self.spec.permitted,
            qemu_version=self.qemu.qemu_version if self.qemu else "",
        )


def cells_now(
    topology: HostTopology,
    spec: NumaHostSpec,
    own: OwnResident,
    previous: Sequence[HostCell],
    *,
    changing: bool,
    promised: Promised = NO_PROMISE,
) -> list[HostCell]:
    """Return the cells as reported.

    Args:
        topology: What the kernel says.
        spec: The administrator's reserves.
        own: What own domains hold.
        previous: The report before.
        changing: An own domain is being started, so that nobody can tell whose its pages are: what others use is
            taken from the report before, and only what is free is new.
        promised: What the kubelet keeps for pods; it counts at once, whatever is being started.
    """
    fresh = report_cells(topology.cells, spec, own, previous, promised=promised)
    if not changing:
        return fresh
    before = {cell.id: cell for cell in previous}
    # As if all that is used were our own: what is left then is bounded by the reserve and the kubelet's promises alone.
    all_own = OwnResident(
        base={one.id: one.memory.total for one in topology.cells},
        huge={
            (one.id, pool.page_size): pool.total
            for one in topology.cells
            for pool in one.page_pools
        },
    )
    bounds = report_cells(topology.cells, spec, all_own, promised=promised)
    return [
        _keep_allocatable(cell, before.get(cell.id), bound)
        for cell, bound in zip(fresh, bounds, strict=True)
    ]


def _keep_allocatable(cell: HostCell, before: HostCell | None, bound: HostCell) -> HostCell:
    if before is None:
        return cell
    pools = {pool.page_size: pool for pool in before.hugepages}
    bounds = {pool.page_size: pool.allocatable for pool in bound.hugepages}
    hugepages = [
        pool.model_copy(
            update={"allocatable": min(pools[pool.page_size].allocatable, bounds[pool.page_size])}
        )
        if pool.page_size in pools and pools[pool.page_size].total == pool.total
        else pool
        for pool in cell.hugepages
    ]
    allocatable = min(before.memory.allocatable, bound.memory.allocatable)
    memory = cell.memory.model_copy(update={"allocatable": allocatable})
    return cell.model_copy(update={"memory": memory, "hugepages": hugepages})


def own_resident(
    domains: Iterable[ManagedDomain], settled: Mapping[str, Settled], reader: HostReader
) -> OwnResident:
    """Return what NumaVM's domains hold now: by their cgroups, else their pages as last read, else their claims."""
    base: dict[int, Bytes] = {}
    huge: dict[tuple[int, Bytes], int] = {}
    for domain in domains:
        known = settled.get(domain.record.uid)
        for cell, amount in _base_memory(domain, known, reader).items():
            base[cell] = Bytes(base.get(cell, 0) + amount)
        for key, pages in _huge_pages(domain, known).items():
            huge[key] = huge.get(key, 0) + pages
    return OwnResident(base=base, huge=huge)


def _base_memory(
    domain: ManagedDomain, known: Settled | None, reader: HostReader
) -> dict[int, Bytes]:
    found: dict[int, Bytes] | None = None
    if domain.pid is not None:
        try:
            found = reader.own_memory(domain.pid)
        except ProcessLookupError:
            return {}
    if found is not None:
        return found
    if known is None:
        booked = domain.record.placement.memory_by_host_cell()
        return {cell: amount for (cell, size), amount in booked.items() if size == BASE_PAGE}
    found = {}
    for mapping in known.mappings:
        if mapping.page_size == BASE_PAGE:
            for cell, amount in mapping.resident.items():
                found[cell] = Bytes(found.get(cell, 0) + amount)
    return found


def _huge_pages(domain: ManagedDomain, known: Settled | None) -> dict[tuple[int, Bytes], int]:
    found: dict[tuple[int, Bytes], int] = {}
    if known is None:
        booked = domain.record.placement.memory_by_host_cell()
        return {key: amount // key[1] for key, amount in booked.items() if key[1] != BASE_PAGE}
    for mapping in known.mappings:
        if mapping.page_size != BASE_PAGE:
            for cell, amount in mapping.resident.items():
                key = (cell, mapping.page_size)
                found[key] = found.get(key, 0) + amount // mapping.page_size
    return found
