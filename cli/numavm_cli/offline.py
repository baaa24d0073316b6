"""The domain of a NumaVM without a cluster: placed on one given host, or on one as the spec binds it. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from numavm_agent.domain.machine import machine_type
from numavm_agent.domain.model import Accelerator, Domain, HostFacts, VmToRender
from numavm_agent.domain.render import render
from numavm_agent.topology.readings import cell_cpus, cell_distances, cell_figures
from numavm_api.conditions import Condition, HostConditionType, Reason
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveVM
from numavm_api.errors import RejectedError
from numavm_api.hmat import HostCellClass
from numavm_api.numahost import (
    Capabilities,
    CellDistance,
    HostCell,
    HostCpu,
    HostMemory,
    NumaHostSpec,
    NumaHostStatus,
    PciDevice,
    Permitted,
    PermittedPciDevice,
)
from numavm_api.numavm import DomainType, NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.pools import effective_pools
from numavm_api.powers import powers_asked
from numavm_api.quantity import BASE_PAGE, GIBIBYTE, Bytes
from numavm_api.reading import read_host_spec, read_spec
from numavm_api.request_hash import request_hash
from numavm_api.rules_devices import host_paths
from numavm_api.vm_status import NumaVMStatus
from numavm_operator.placement import Fleet, Placed, host_from, place, request_for, summary
from numavm_operator.placement.policy import Policy

_LOCAL, _REMOTE = 10, 20
_MADE_UP_READY: Final = Condition(
    type=HostConditionType.READY,
    status="True",
    reason=Reason.AGENT_READY,
    message="made up",
    last_transition_time="1970-01-01T00:00:00Z",
)
_ALIASES: Final = ("q35", "pc")
_FAMILIES: Final = {"q35": "pc-q35-", "pc": "pc-i440fx-"}


@dataclass(frozen=True, slots=True)
class OfflineHost:
    """A host to render for."""

    name: str
    spec: NumaHostSpec
    status: NumaHostStatus


def host_of(manifest: Mapping[str, Any]) -> OfflineHost:
    """Return the host of a NumaHost manifest with its status.

    Raises:
        RejectedError: the spec is no spec, or there is no status to go by.
    """
    spec = read_host_spec(manifest.get("spec"))
    if isinstance(spec, list):
        raise RejectedError("; ".join(map(str, spec)))
    if not manifest.get("status"):
        raise RejectedError(
            "the NumaHost has no status: take `kubectl get nhost NAME -o yaml` or `numavm capture`"
        )
    status = NumaHostStatus.model_validate(manifest["status"])
    return OfflineHost(str(manifest.get("metadata", {}).get("name", "host")), spec, status)


def domain_of(manifest: Mapping[str, Any], host: OfflineHost | None) -> Domain:
    """Return the domain that an agent would start for a NumaVM.

    Args:
        manifest: The NumaVM. With a status that places it on `host`, that claim is used; else it is
            placed there now, beside what the host's report says is held.
        host: None: a host made up of what the spec binds the VM to.

    Raises:
        RejectedError: the spec is refused, or the VM has no room there.
        CannotRender: the claim does not fit the host.
    """
    spec = read_spec(manifest.get("spec") or {})
    if isinstance(spec, list):
        raise RejectedError("; ".join(map(str, spec)))
    metadata = manifest.get("metadata") or {}
    namespace, name = metadata.get("namespace", "default"), metadata.get("name", "vm")
    made_up_uid = uuid.uuid5(uuid.NAMESPACE_URL, f"https://numavm.io/{namespace}/{name}")
    vm = VmToRender(
        namespace=namespace,
        name=name,
        uid=metadata.get("uid", str(made_up_uid)),
        generation=metadata.get("generation", 1),
        spec=spec,
    )
    where = host or made_up_host(spec, vm.effective)
    status = NumaVMStatus.model_validate(manifest.get("status") or {})
    return render(vm, _claim(vm, status, where), _facts(spec, status, where))


def made_up_host(spec: NumaVMSpec, vm: EffectiveVM) -> OfflineHost:
    """Return a host with room for a VM on the cells it names, or on as many as it has guest cells."""
    named = CpuSet.union_of(
        [
            *(cell.host_cells for cell in vm.cells if cell.host_cells),
            *(module.host_cells for module in vm.modules if module.host_cells),
        ]
    )
    derived = (vm.derived_cells.count or 1) if vm.derived_cells else 0
    ids = CpuSet(frozenset(range(max(len(vm.cells), derived, max(named, default=-1) + 1))))
    cpus = _made_up_cpus(vm, ids)
    every = CpuSet.union_of(cpus.values())
    devices = _made_up_devices(vm)
    return OfflineHost(
        name="made-up",
        # Where CPUs are chosen by hand, the host keeps none of them to itself.
        spec=NumaHostSpec(dedicated_cpus=every) if _chosen(vm) else NumaHostSpec(),
        status=NumaHostStatus(
            cells=[_made_up_cell(cell, ids, cpus[cell], vm) for cell in ids],
            # "/" is above every path, and no administrator's choice: the API has no word for it.
            permitted=Permitted.model_construct(
                directories=["/"],
                realtime=True,
                locked_memory=True,
                pci_devices=[PermittedPciDevice(address=one.address) for one in devices],
                bridges=[one.bridge.name for one in spec.networks if one.bridge is not None],
                networks=[one.network.name for one in spec.networks if one.network is not None],
            ),
            pci_devices=devices,
            capabilities=Capabilities(
                kvm=True,
                emulation_allowed=True,
                libvirt_version="0.0.0",
                qemu_version="0.0.0",
                machine_types=[*_ALIASES, spec.domain.machine.type],
                max_vcpus=vm.vcpus,
            ),
            conditions=[_MADE_UP_READY],
        ),
    )


def _made_up_devices(vm: EffectiveVM) -> list[PciDevice]:
    """Return the devices that the spec asks for, near their cells; one of a kind is where no host has any."""
    bound = {cell.id: cell.host_cells.first() for cell in vm.cells if cell.host_cells}
    first = vm.cells[0].id
    return [
        PciDevice(
            address=min(device.addresses, default=f"ffff:{at:02x}:00.0"),
            cell=bound.get(first if device.cell is None else device.cell, device.cell or first),
            vendor=device.selector[0] if device.selector else "ffff",
            device=device.selector[1] if device.selector else "ffff",
            class_code="0x000000",
            iommu_group=at,
        )
        for at, device in enumerate(vm.host_devices)
    ]


def _chosen(vm: EffectiveVM) -> CpuSet:
    """Return every host CPU that the spec names."""
    emulator = vm.emulator_candidates or CpuSet()
    return CpuSet.union_of([*vm.vcpu_candidates.values(), emulator])


def _made_up_cpus(vm: EffectiveVM, ids: CpuSet) -> dict[int, CpuSet]:
    """Return the CPUs of each host cell: those named for the guest cell that goes there, and enough others."""
    per_cell = (vm.vcpus + 2) * vm.threads_per_core  # with Isolate, a core per vCPU
    named: dict[int, CpuSet] = {}
    taken = CpuSet()
    for cell in vm.cells:
        host_cell = cell.host_cells.first() if cell.host_cells else cell.id
        wanted = CpuSet.union_of(
            vm.vcpu_candidates[vcpu] for vcpu in cell.vcpus if vcpu in vm.vcpu_candidates
        )
        named[host_cell] = named.get(host_cell, CpuSet()) | (wanted - taken)
        taken |= wanted
    chosen = _chosen(vm)
    named[ids.first()] = named.get(ids.first(), CpuSet()) | (chosen - taken)
    start = max(chosen, default=-1) + 1
    return {
        cell: named.get(cell, CpuSet())
        | CpuSet(frozenset(range(start + at * per_cell, start + (at + 1) * per_cell)))
        for at, cell in enumerate(ids)
    }


def _made_up_cell(cell: int, ids: CpuSet, cpus: CpuSet, vm: EffectiveVM) -> HostCell:
    numbers = list(cpus)
    cores = [
        CpuSet(frozenset(numbers[at : at + vm.threads_per_core]))
        for at in range(0, len(numbers), vm.threads_per_core)
    ]
    room = Bytes(vm.memory_with_modules * 2 + 16 * GIBIBYTE)
    asked = {size for one in vm.cells for size in (one.page_size, *one.fallback_page_sizes)}
    sizes = sorted((asked | {module.page_size for module in vm.modules}) - {BASE_PAGE})
    return HostCell.model_validate(
        {
            "id": cell,
            "cpus": [
                HostCpu(id=cpu, siblings=core, socket=cell, last_level_cache=cell)
                for core in cores
                for cpu in core
            ],
            "memory": HostMemory(total=room, free=room, allocatable=room),
            "hugepages": [
                {"pageSize": size, "total": pages, "free": pages, "allocatable": pages}
                for size in sizes
                for pages in [room // size]
            ],
            "class": _made_up_class(cell, vm),
            "distances": [
                CellDistance(cell=other, value=_LOCAL if other == cell else _REMOTE)
                for other in ids
            ],
        }
    )


def _made_up_class(host_cell: int, vm: EffectiveVM) -> HostCellClass | None:
    """Return the class that a guest cell there asks for: on host cells that it names, else on the one of its number."""
    for cell in vm.cells:
        if cell.cell_class is not None and host_cell in (cell.host_cells or {cell.id}):
            return cell.cell_class
    return HostCellClass.DRAM


def _claim(vm: VmToRender, status: NumaVMStatus, host: OfflineHost) -> Placement:
    if status.placement is not None and status.node_name == host.name:
        return status.placement
    pools = host.status.pools or effective_pools(host.spec, host.status.cells)
    report = host.status.model_copy(update={"pools": pools})
    fleet = Fleet.empty().with_host(host_from(host.name, host.spec, report))
    for held in host.status.claims:
        if held.uid != vm.uid:
            fleet = fleet.with_claim(host.name, held.uid, held.placement)
    spec = vm.spec
    request = request_for(
        vm.effective,
        uid=vm.uid,
        namespace=vm.namespace,
        name=vm.name,
        placement_id="offline",
        epoch=0,
        request_hash=request_hash(spec),
        domain_type=spec.domain.type,
        machine_type=spec.domain.machine.type,
        host_paths=tuple(path for _, path in host_paths(spec)),
        powers=powers_asked(spec),
    )
    outcome = place(request, fleet, Policy())
    if not isinstance(outcome, Placed):
        raise RejectedError(f"no room on {host.name}: {summary(outcome)}")
    return outcome.placement


def _facts(spec: NumaVMSpec, status: NumaVMStatus, host: OfflineHost) -> HostFacts:
    claims = [held.placement for held in host.status.claims]
    offered = host.status.capabilities.machine_types if host.status.capabilities else []
    return HostFacts(
        accelerator=_accelerator(spec, host.status),
        machine=machine_type(
            spec.domain.machine.type,
            kept=status.domain.machine if status.domain else None,
            aliases=_newest(offered),
            offered=offered,
        ),
        cells=cell_cpus(host.status.cells),
        pools=host.status.pools or effective_pools(host.spec, host.status.cells, claims),
        held=CpuSet.union_of(claim.dedicated_cpus for claim in claims),
        distances=cell_distances(host.status.cells),
        figures=cell_figures(host.status.cells),
    )


def _accelerator(spec: NumaVMSpec, host: NumaHostStatus) -> Accelerator:
    match spec.domain.type:
        case DomainType.KVM:
            return Accelerator.KVM
        case DomainType.TCG:
            return Accelerator.TCG
        case DomainType.AUTO:
            works = host.capabilities is None or host.capabilities.kvm
            return Accelerator.KVM if works else Accelerator.TCG


def _newest(offered: list[str]) -> dict[str, str]:
    """Return what each alias stands for: the newest of its family, as QEMU has it."""
    found: dict[str, str] = {}
    for alias, family in _FAMILIES.items():
        versions = [name for name in offered if name.startswith(family)]
        if versions:
            found[alias] = max(versions, key=lambda name: _version(name.removeprefix(family)))
    return found


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
