"""A host as a map: which VM owns which CPU, what of each cell's memory and pages is taken, where devices are. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from numavm_api.base import StatusModel
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import EffectivePools, HostCell, HostCpu, NumaHostStatus, PciDevice
from numavm_api.placement import CpuPlacement, Placement
from numavm_api.quantity import BASE_PAGE, Bytes, Quantity
from numavm_api.vm_status import NumaVMStatus

Document = Mapping[str, Any]


class CpuUse(StrEnum):
    """What a CPU of the host is for now."""

    VCPU = "vCPU"
    EMULATOR = "Emulator"
    IO_THREAD = "IOThread"
    KEPT_FREE = "KeptFree"
    """Held by a VM and left empty, as the sibling of an isolated vCPU."""
    FREE = "Free"
    """In the dedicated pool, and nobody's."""
    SHARED = "Shared"
    """In a shared pool of its own."""
    HOUSEKEEPING = "Housekeeping"
    FOREIGN = "Foreign"
    """Taken by something that is not NumaVM's."""
    UNUSED = "Unused"
    """In no pool."""


class CpuView(StatusModel):
    """One CPU."""

    id: int
    siblings: CpuSet
    use: CpuUse
    vm: str | None = None
    vcpu: int | None = None


class PagesView(StatusModel):
    """Memory of one page size of a cell, in bytes."""

    page_size: Quantity
    total: Quantity
    allocatable: Quantity
    held: Quantity
    """What claims hold."""
    free: Quantity
    """What the kernel has free."""


class CellView(StatusModel):
    """One host cell."""

    id: int
    cpus: list[CpuView]
    pages: list[PagesView]
    """Base pages first."""
    distances: dict[int, int]
    floating: dict[str, int]
    """VM -> vCPUs that float over this cell's shared CPUs."""


class VmOnHost(StatusModel):
    """A VM that holds something here."""

    name: str
    summary: str
    cpu_placement: CpuPlacement
    running: bool
    """False: the operator has claimed, and the host does not report it yet."""
    orphan: bool


class DeviceView(PciDevice):
    """One PCI device of the host, and whose it is."""

    vm: str | None = None


class HostView(StatusModel):
    """One host."""

    name: str
    ready: str
    reason: str
    cells: list[CellView]
    vms: list[VmOnHost]
    devices: list[DeviceView]


@dataclass(frozen=True, slots=True)
class Held:
    """One claim."""

    vm: str
    placement: Placement
    running: bool
    orphan: bool


def host_view(host: Document, vms: Sequence[Document]) -> HostView:
    """Return the map of a host.

    Args:
        host: The NumaHost.
        vms: NumaVMs; those that are claimed on this host and that it does not report yet count too.
    """
    status = NumaHostStatus.model_validate(host.get("status") or {})
    name = str(host["metadata"]["name"])
    held = list(_held(name, status, vms))
    ready = next((one for one in status.conditions if one.type == "Ready"), None)
    return HostView(
        name=name,
        ready=ready.status if ready else "Unknown",
        reason=ready.reason if ready else "NotReported",
        cells=[_cell(cell, status.pools, held) for cell in status.cells],
        vms=[
            VmOnHost(
                name=one.vm,
                summary=one.placement.summary,
                cpu_placement=one.placement.cpu_placement,
                running=one.running,
                orphan=one.orphan,
            )
            for one in held
        ],
        devices=list(_devices(status, held)),
    )


def _held(name: str, status: NumaHostStatus, vms: Sequence[Document]) -> Iterator[Held]:
    reported = set()
    for claim in status.claims:
        reported.add(claim.uid)
        name_of = f"{claim.namespace}/{claim.name}"
        yield Held(name_of, claim.placement, running=True, orphan=claim.orphan)
    for vm in vms:
        metadata = vm["metadata"]
        stated = NumaVMStatus.model_validate(vm.get("status") or {})
        if metadata["uid"] in reported or stated.node_name != name or stated.placement is None:
            continue
        name_of = f"{metadata['namespace']}/{metadata['name']}"
        yield Held(name_of, stated.placement, running=False, orphan=False)


def _devices(status: NumaHostStatus, held: Sequence[Held]) -> Iterator[DeviceView]:
    owners = {device.address: one.vm for one in held for device in one.placement.devices}
    for device in status.pci_devices:
        yield DeviceView(**device.model_dump(), vm=owners.get(device.address))


def _cell(cell: HostCell, pools: EffectivePools | None, held: Sequence[Held]) -> CellView:
    owners = _owners(held)
    return CellView(
        id=cell.id,
        cpus=[_named(cpu, owners.get(cpu.id), pools) for cpu in cell.cpus],
        pages=_pages(cell, held),
        distances={one.cell: one.value for one in cell.distances},
        floating=_floating(cell.id, held),
    )


def _named(cpu: HostCpu, owner: CpuView | None, pools: EffectivePools | None) -> CpuView:
    if owner is None:
        return CpuView(id=cpu.id, siblings=cpu.siblings, use=_pool_of(cpu.id, pools))
    return owner.model_copy(update={"siblings": cpu.siblings})


def _pool_of(cpu: int, pools: EffectivePools | None) -> CpuUse:
    if pools is None:
        return CpuUse.UNUSED
    for use, members in (
        (CpuUse.FOREIGN, pools.foreign),
        (CpuUse.FREE, pools.dedicated),
        (CpuUse.SHARED, pools.shared),
        (CpuUse.HOUSEKEEPING, pools.housekeeping),
    ):
        if cpu in members:
            return use
    return CpuUse.UNUSED


def _owners(held: Sequence[Held]) -> dict[int, CpuView]:
    """Return for each dedicated CPU who holds it, and for what."""
    found: dict[int, CpuView] = {}
    for one in held:
        roles = dict(_roles(one.placement))
        for cpu in one.placement.dedicated_cpus:
            use, vcpu = roles.get(cpu, (CpuUse.KEPT_FREE, None))
            found[cpu] = CpuView(id=cpu, siblings=CpuSet(), use=use, vm=one.vm, vcpu=vcpu)
    return found


def _roles(placement: Placement) -> Iterator[tuple[int, tuple[CpuUse, int | None]]]:
    for cpus in placement.io_thread_cpus:
        for cpu in cpus:
            yield cpu, (CpuUse.IO_THREAD, None)
    for cpu in placement.emulator_cpus:
        yield cpu, (CpuUse.EMULATOR, None)
    for cell in placement.cells:
        for vcpu, pcpus in zip(cell.vcpus, cell.pcpus, strict=False):
            for cpu in pcpus:
                yield cpu, (CpuUse.VCPU, vcpu)


def _pages(cell: HostCell, held: Sequence[Held]) -> list[PagesView]:
    booked: dict[Bytes, int] = {}
    for one in held:
        for (host_cell, size), amount in one.placement.memory_by_host_cell().items():
            if host_cell == cell.id:
                booked[size] = booked.get(size, 0) + amount
    memory = cell.memory
    huge = sum(pool.total * pool.page_size for pool in cell.hugepages)
    base = PagesView(
        page_size=BASE_PAGE,
        total=Bytes(memory.total - huge),
        allocatable=memory.allocatable,
        held=Bytes(booked.get(BASE_PAGE, 0)),
        free=memory.free,
    )
    return [
        base,
        *(
            PagesView(
                page_size=pool.page_size,
                total=Bytes(pool.total * pool.page_size),
                allocatable=Bytes(pool.allocatable * pool.page_size),
                held=Bytes(booked.get(pool.page_size, 0)),
                free=Bytes(pool.free * pool.page_size),
            )
            for pool in cell.hugepages
        ),
    ]


def _floating(cell: int, held: Sequence[Held]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in held:
        if one.placement.cpu_placement is not CpuPlacement.SHARED:
            continue
        count = sum(len(part.vcpus) for part in one.placement.cells if cell in part.host_cells)
        if count:
            found[one.vm] = count
    return found
