"""Whether a claim may be run here, now: the agent's own check, against what it has admitted and what the kernel shows.

Pure. The scheduler's word is not enough: a former leader may have spoken, and others take CPUs and pages without
asking. A refusal names the claim's part, what it wants, and what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from numavm_agent.domain.model import Accelerator
from numavm_agent.reconcile.device_admission import DevicesHere, device_refusals, too_old_for
from numavm_agent.reconcile.versions import too_old
from numavm_api.conditions import ClaimRefusalReason as Why
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveVM, effective
from numavm_api.numahost import EffectivePools, HeldClaim, HostCell, PciDevice, Permitted
from numavm_api.numavm import DomainType, NumaVMSpec
from numavm_api.placement import CpuPlacement, Placement
from numavm_api.quantity import BASE_PAGE, Bytes, format_bytes
from numavm_api.request_hash import request_hash
from numavm_api.resolved import resolved


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A claim that wants to run here."""

    spec: NumaVMSpec
    placement: Placement
    admitted_before: bool
    """This host has run exactly this claim already."""
    path_problems: tuple[str, ...] = ()
    """Why host paths of the spec cannot be used here."""
    running: Placement | None = None
    """The claim that its domain runs under, where the claim was amended for a running VM."""
    why_fixed: str | None = None
    """Why memory of this running VM cannot be moved."""


@dataclass(frozen=True, slots=True)
class HostState:
    """The host as the kernel, libvirt and the agent's own admissions show it now."""

    cells: Sequence[HostCell]
    pools: EffectivePools
    """Less what others took."""
    held: Sequence[HeldClaim]
    """Every admitted claim but the one to be judged: of running domains, orphans included, and of starts under way."""
    starting: Sequence[Placement]
    """Those of `held` whose start is under way: their pages may be taken or not."""
    highest_epoch: int
    """The newest operator epoch this host has seen."""
    kvm: bool
    emulation_allowed: bool
    max_vcpus: int
    libvirt_version: str = ""
    pci_devices: Sequence[PciDevice] = ()
    """The host's PCI devices as the kernel shows them."""
    foreign_devices: frozenset[str] = frozenset()
    """Addresses of devices that domains of others hold."""
    permitted: Permitted = field(default_factory=Permitted)
    qemu_version: str = ""
    """Empty: nobody knows yet."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """The claim may run."""

    accelerator: Accelerator


@dataclass(frozen=True, slots=True)
class Refused:
    """The claim may not run here."""

    reason: Why
    message: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """Nothing can be said before the starts under way are done."""

    message: str


Verdict = Admitted | Refused | NotYet


def admit(request: ClaimRequest, host: HostState) -> Verdict:
    """Return whether the claim may run on this host now; the first rule that it breaks speaks."""
    for rule in _RULES:
        for refusal in rule(request, host):
            return refusal
    accelerator = _accelerator(request.spec.domain.type, host)
    return Admitted(accelerator) if isinstance(accelerator, Accelerator) else accelerator


def admit_amended(request: ClaimRequest, host: HostState) -> Refused | NotYet | None:
    """Return why a running VM may not be moved to an amended claim now; None: it may.

    Its own claim is not among those that `host` holds: one domain holds both.
    """
    for rule in _AMENDED_RULES:
        for refusal in rule(request, host):
            return refusal
    return None


def _movable(request: ClaimRequest, _: HostState) -> Iterator[Refused]:
    if request.why_fixed is not None and _memory_moves(request):
        yield Refused(
            Why.UNSUPPORTED,
            f"placement.cells[].hostCells: the running VM cannot be moved: {request.why_fixed}; "
            "set another spec.restartToken to apply the change by a restart",
        )


def _memory_moves(request: ClaimRequest) -> bool:
    running = request.running
    before = {cell.id: cell.host_cells for cell in running.cells} if running is not None else {}
    return any(before.get(cell.id) != cell.host_cells for cell in request.placement.cells)


def _modules_stay(request: ClaimRequest, _: HostState) -> Iterator[Refused]:
    """A module's memory is a block of its own, bound when it was plugged in; moving one is not built yet."""
    before = {cell.id: cell.host_cells for cell in request.running.cells} if request.running else {}
    for cell in request.placement.cells:
        modules = cell.plugged or any(one.cell == cell.id for one in request.placement.modules)
        if modules and before.get(cell.id) != cell.host_cells:
            yield Refused(
                Why.UNSUPPORTED,
                f"placement.cells[{cell.id}].hostCells: the running guest cell has memory modules, which cannot be "
                "moved; set another spec.restartToken to apply the change by a restart",
            )


def _same_domain(request: ClaimRequest, _: HostState) -> Iterator[Refused]:
    """An amended claim changes where a domain is, not what it is."""
    running = request.running
    if running is None:
        return
    before = {cell.id: cell for cell in running.cells}
    if sorted(before) != sorted(cell.id for cell in request.placement.cells):
        yield Refused(Why.SPEC_CHANGED, "placement.cells are not those of the running domain")
        return
    for cell in request.placement.cells:
        was = before[cell.id]
        facts = (
            ("vcpus", was.vcpus, cell.vcpus),
            ("memory", was.memory, cell.memory),
            ("pageSize", was.page_size, cell.page_size),
            ("mode", was.mode, cell.mode),
            ("number of pcpus", len(was.pcpus), len(cell.pcpus)),
        )
        for fact, old, new in facts:
            if old != new:
                yield Refused(
                    Why.SPEC_CHANGED,
                    f"placement.cells[{cell.id}].{fact} is {new}, but the running domain has {old}",
                )


def _epoch(request: ClaimRequest, host: HostState) -> Iterator[Refused]:
    epoch = request.placement.epoch
    if not request.admitted_before and epoch < host.highest_epoch:
        yield Refused(
            Why.STALE_EPOCH,
            f"placement.epoch is {epoch}, but this host has seen a claim of epoch {host.highest_epoch}: "
            "an operator that no longer leads decided it",
        )


def _spec_unchanged(request: ClaimRequest, _: HostState) -> Iterator[Refused]:
    wanted = request_hash(request.spec)
    if request.placement.request_hash != wanted:
        yield Refused(
            Why.SPEC_CHANGED,
            f"placement.requestHash is {request.placement.request_hash}, but the spec's is {wanted} now: "
            "the claim was made for another spec",
        )
    vm = resolved(effective(request.spec), request.placement)
    yield from _told_apart(_extras(request.placement, vm))
    yield from _told_apart(_shape(request.placement, vm))


def _told_apart(parts: Iterator[tuple[str, str, str]]) -> Iterator[Refused]:
    for part, claimed, asked in parts:
        if claimed != asked:
            yield Refused(Why.SPEC_CHANGED, f"{part} is {claimed}, but the spec says {asked}")


def _extras(placement: Placement, vm: EffectiveVM) -> Iterator[tuple[str, str, str]]:
    """Yield what must be the same of I/O threads and host devices."""
    io_threads = str(vm.dedicated_io_threads)
    yield "number of placement.ioThreadCpus", str(len(placement.io_thread_cpus)), io_threads
    claimed = [(one.name, one.memory, one.page_size) for one in placement.modules]
    apart = [(one.name, one.claimed, one.page_size) for one in vm.modules_apart]
    yield "placement.modules[].(name, memory, pageSize)", str(claimed), str(apart)
    elsewhere = {one.name: one.host_cells for one in vm.modules_apart if one.host_cells is not None}
    for one in placement.modules:
        asked = elsewhere.get(one.name, one.host_cells)
        yield f"placement.modules[{one.name}].hostCells", str(one.host_cells), str(asked)
    devices = sorted(device.name for device in vm.host_devices)
    held = sorted(device.name for device in placement.devices)
    yield "placement.devices[].name", str(held), str(devices)


def _shape(placement: Placement, vm: EffectiveVM) -> Iterator[tuple[str, str, str]]:
    """Yield (field, what the claim says, what the spec says) for all that must be the same in both."""
    kind = CpuPlacement.DEDICATED if vm.dedicated else CpuPlacement.SHARED
    yield "placement.cpuPlacement", str(placement.cpu_placement), str(kind)
    if vm.derived_cells is not None:
        every = CpuSet(frozenset(range(vm.vcpus)))
        vcpus = CpuSet.union_of(cell.vcpus for cell in placement.cells)
        yield "placement.cells[*].vcpus", str(vcpus), str(every)
    claimed = {cell.id: cell for cell in placement.cells}
    yield "placement.cells[].id", str(sorted(claimed)), str([cell.id for cell in vm.cells])
    for cell in vm.cells:
        placed = claimed.get(cell.id)
        if placed is None:
            continue
        where = f"placement.cells[{cell.id}]"
        yield f"{where}.vcpus", str(placed.vcpus), str(cell.vcpus)
        if cell.host_cells is not None:
            derived_there = vm.derived_cells is not None and placed.host_cells <= cell.host_cells
            asked = placed.host_cells if derived_there else cell.host_cells
            yield f"{where}.hostCells", str(placed.host_cells), str(asked)
        yield f"{where}.memory", format_bytes(placed.memory), format_bytes(cell.memory)
        yield f"{where}.pageSize", format_bytes(placed.page_size), format_bytes(cell.page_size)
        pcpus = len(cell.vcpus) if vm.dedicated else 0
        plugged = Bytes(min(placed.plugged or 0, cell.plugged))  # a claim may hold room for more
        yield f"{where}.plugged", format_bytes(plugged), format_bytes(cell.plugged)
        yield f"number of {where}.pcpus", str(len(placed.pcpus)), str(pcpus)


def _cells_known(request: ClaimRequest, host: HostState) -> Iterator[Refused]:
    known = CpuSet(frozenset(cell.id for cell in host.cells))
    for cell in request.placement.cells:
        unknown = cell.host_cells - known
        if unknown or not cell.host_cells:
            yield Refused(
                Why.UNKNOWN_CELL,
                f"placement.cells[{cell.id}].hostCells is '{cell.host_cells}', but this host has the cells {known}",
            )
    for module in request.placement.modules:
        if module.host_cells - known:
            yield Refused(
                Why.UNKNOWN_CELL,
                f"placement.modules[{module.name}].hostCells is '{module.host_cells}', but this host has "
                f"the cells {known}",
            )
    yield from _of_their_class(request, host)


def _of_their_class(request: ClaimRequest, host: HostState) -> Iterator[Refused]:
    classes = {cell.id: cell.memory_class for cell in host.cells}
    asked = {cell.id: cell.cell_class for cell in effective(request.spec).cells}
    for cell in request.placement.cells:
        wanted = asked.get(cell.id)
        for one in cell.host_cells:
            if wanted is not None and classes.get(one) is not wanted:
                yield Refused(
                    Why.UNKNOWN_CELL,
                    f"placement.cells[{cell.id}].hostCells is '{cell.host_cells}', but host cell {one} is of class "
                    f"{classes.get(one) or 'unknown'}, and the spec wants {wanted}",
                )


def _paths(request: ClaimRequest, _: HostState) -> Iterator[Refused]:
    for problem in request.path_problems:
        yield Refused(Why.NOT_PERMITTED, problem)


def _devices(request: ClaimRequest, host: HostState) -> Iterator[Refused]:
    devices = DevicesHere(
        devices=host.pci_devices,
        permitted=host.permitted,
        held=host.held,
        foreign=host.foreign_devices,
    )
    wanted = effective(request.spec).host_devices
    modules = effective(request.spec).modules
    for reason, message in (
        *device_refusals(request.placement, wanted, devices),
        *too_old_for(modules, host.libvirt_version),
    ):
        yield Refused(reason, message)


def _vcpus(request: ClaimRequest, host: HostState) -> Iterator[Refused]:
    vcpus = request.spec.domain.cpu.max_vcpus
    if vcpus > host.max_vcpus:
        yield Refused(
            Why.UNSUPPORTED,
            f"spec.domain.cpu has {vcpus} vCPUs, but QEMU here takes at most {host.max_vcpus}",
        )


def _versions(request: ClaimRequest, host: HostState) -> Iterator[Refused]:
    for missing in too_old(request.placement, host.qemu_version):
        yield Refused(Why.UNSUPPORTED, missing)


def _dedicated_cpus(request: ClaimRequest, host: HostState) -> Iterator[Refused]:
    placement = request.placement
    yield from _own_cpus_sound(placement)
    for claim in host.held:
        both = placement.dedicated_cpus & claim.placement.held_cpus
        if both:
            yield Refused(
                Why.CPU_TAKEN,
                f"placement.dedicatedCpus is {placement.dedicated_cpus}, but CPU {both} is held by "
                f"{claim.namespace}/{claim.name} (claim {claim.placement.id})",
            )
    foreign = placement.dedicated_cpus & host.pools.foreign
    if foreign:
        yield Refused(
            Why.CPU_TAKEN,
            f"placement.dedicatedCpus is {placement.dedicated_cpus}, but CPU {foreign} is held by a domain "
            "that NumaVM did not start, or by a pod",
        )
    outside = placement.dedicated_cpus - host.pools.dedicated
    if outside:
        yield Refused(
            Why.CPU_NOT_IN_POOL,
            f"placement.dedicatedCpus is {placement.dedicated_cpus}, but CPU {outside} is not in this host's "
            f"dedicated pool '{host.pools.dedicated}'",
        )
    yield from _cpus_in_their_cells(placement, host)


def _own_cpus_sound(placement: Placement) -> Iterator[Refused]:
    """A claim gives each of its CPUs once, and holds what it gives."""
    given = [
        *(pcpus for cell in placement.cells for pcpus in cell.pcpus),
        placement.emulator_cpus,
        *placement.io_thread_cpus,
    ]
    seen = CpuSet()
    for cpus in given:
        twice = cpus & seen
        if twice:
            yield Refused(Why.CPU_TAKEN, f"placement gives CPU {twice} to two threads")
        seen = seen | cpus
    missing = seen - placement.dedicated_cpus
    if missing:
        yield Refused(
            Why.CPU_NOT_IN_POOL,
            f"placement gives CPU {missing}, but dedicatedCpus '{placement.dedicated_cpus}' does not hold it",
        )


def _cpus_in_their_cells(placement: Placement, host: HostState) -> Iterator[Refused]:
    cpus_of = _cpus_by_cell(host.cells)
    for cell in placement.cells:
        there = CpuSet.union_of(cpus_of[host_cell] for host_cell in cell.host_cells)
        elsewhere = CpuSet.union_of(cell.pcpus) - there
        if elsewhere:
            yield Refused(
                Why.CPU_NOT_IN_POOL,
                f"placement.cells[{cell.id}].pcpus has CPU {elsewhere}, but host cells {cell.host_cells} have "
                f"the CPUs '{there}'",
            )


def _shared_cpus(request: ClaimRequest, host: HostState) -> Iterator[Refused]:
    placement = request.placement
    cpus_of = _cpus_by_cell(host.cells)
    shared = host.pools.shared - placement.dedicated_cpus
    for cell in placement.cells:
        here = CpuSet.union_of(cpus_of[host_cell] for host_cell in cell.host_cells)
        floats = placement.cpu_placement is CpuPlacement.SHARED and len(cell.vcpus) > 0
        if floats and shared.isdisjoint(here):
            yield Refused(
                Why.CPU_NOT_IN_POOL,
                f"placement.cells[{cell.id}]: no shared CPU is left on host cells {cell.host_cells} "
                f"(CPUs '{here}') for vCPUs {cell.vcpus}; this host's shared CPUs are '{shared}'",
            )


def _vms_left_afloat(request: ClaimRequest, host: HostState) -> Iterator[Refused]:
    """Taking these CPUs must leave something to float over for the shared VMs that are here."""
    if not host.pools.shared_follows_dedicated:
        return
    shared = host.pools.shared - request.placement.dedicated_cpus
    cpus_of = _cpus_by_cell(host.cells)
    for claim in host.held:
        if claim.placement.cpu_placement is not CpuPlacement.SHARED:
            continue
        for cell in claim.placement.cells:
            here = CpuSet.union_of(cpus_of.get(one, CpuSet()) for one in cell.host_cells)
            if cell.vcpus and shared.isdisjoint(here) and not host.pools.shared.isdisjoint(here):
                yield Refused(
                    Why.CPU_TAKEN,
                    f"placement.dedicatedCpus {request.placement.dedicated_cpus} would take the last shared CPU of "
                    f"host cells {cell.host_cells} from {claim.namespace}/{claim.name}",
                )


def _memory(request: ClaimRequest, host: HostState) -> Iterator[Refused | NotYet]:
    cells = {cell.id: cell for cell in host.cells}
    booked = request.placement.memory_by_host_cell()
    for (host_cell, page_size), wanted in sorted(booked.items()):
        cell = cells.get(host_cell)
        if cell is None:
            yield Refused(
                Why.UNKNOWN_CELL, f"placement books memory on host cell {host_cell}, not there"
            )
        elif page_size == BASE_PAGE:
            yield from _base_pages(cell, wanted, host)
        else:
            yield from _huge_pages(cell, page_size, wanted, host, request.running)


def _base_pages(cell: HostCell, wanted: Bytes, host: HostState) -> Iterator[Refused]:
    held = _booked(cell.id, BASE_PAGE, (claim.placement for claim in host.held))
    room = cell.memory.allocatable - held
    if wanted > room:
        yield Refused(
            Why.MEMORY_TAKEN,
            f"placement wants {format_bytes(wanted)} of host cell {cell.id}, but of its "
            f"{format_bytes(cell.memory.allocatable)} for VMs {format_bytes(held)} is held",
        )


def _huge_pages(
    cell: HostCell,
    page_size: Bytes,
    wanted: Bytes,
    host: HostState,
    running: Placement | None,
) -> Iterator[Refused | NotYet]:
    pool = next((pool for pool in cell.hugepages if pool.page_size == page_size), None)
    pages = -(-wanted // page_size)
    size = format_bytes(page_size)
    if pool is None:
        yield Refused(
            Why.HUGE_PAGES_TAKEN,
            f"placement wants {pages} pages of {size} on host cell {cell.id}, which has no pages of that size",
        )
        return
    held = _booked(cell.id, page_size, (claim.placement for claim in host.held)) // page_size
    if pages > pool.allocatable - held:
        yield Refused(
            Why.HUGE_PAGES_TAKEN,
            f"placement wants {pages} pages of {size} on host cell {cell.id}, but of its {pool.allocatable} for VMs "
            f"{held} are held",
        )
        return
    pending = _booked(cell.id, page_size, host.starting) // page_size
    if running is not None:
        # What it has there already it need not find; but to move any page, one must be free.
        has = _booked(cell.id, page_size, [running]) // page_size
        pages = max(pages - has, 1)
    if pages > pool.free and not pending:
        yield Refused(
            Why.HUGE_PAGES_TAKEN,
            f"placement wants {pages} pages of {size} on host cell {cell.id}, but the kernel shows {pool.free} free "
            f"of {pool.total}",
        )
    elif pages > pool.free - pending:
        yield NotYet(
            f"{pages} pages of {size} wanted on host cell {cell.id}, {pool.free} free, and starts under way may "
            f"take {pending} of them"
        )


def _booked(
    host_cell: int, page_size: Bytes, placements: Iterator[Placement] | Sequence[Placement]
) -> Bytes:
    key = (host_cell, page_size)
    return Bytes(sum(placement.held_memory().get(key, 0) for placement in placements))


def _cpus_by_cell(cells: Sequence[HostCell]) -> Mapping[int, CpuSet]:
    return {cell.id: CpuSet(frozenset(cpu.id for cpu in cell.cpus)) for cell in cells}


def _accelerator(wanted: DomainType, host: HostState) -> Accelerator | Refused:
    match wanted:
        case DomainType.KVM | DomainType.AUTO if host.kvm:
            return Accelerator.KVM
        case DomainType.TCG | DomainType.AUTO if host.emulation_allowed:
            return Accelerator.TCG
        case DomainType.KVM:
            return Refused(
                Why.UNSUPPORTED, "spec.domain.type is KVM, but no guest runs under KVM on this host"
            )
        case DomainType.TCG:
            return Refused(
                Why.UNSUPPORTED,
                "spec.domain.type is TCG, but the NumaHost's spec.allowEmulation is false",
            )
        case _:
            return Refused(
                Why.UNSUPPORTED,
                "spec.domain.type is Auto, but no guest runs under KVM on this host and the NumaHost's "
                "spec.allowEmulation is false",
            )


_Rule = Callable[[ClaimRequest, HostState], Iterator[Refused | NotYet]]

_RULES: Final[Sequence[_Rule]] = (
    _epoch,
    _spec_unchanged,
    _cells_known,
    _vcpus,
    _versions,
    _paths,
    _devices,
    _dedicated_cpus,
    _shared_cpus,
    _vms_left_afloat,
    _memory,
)
"""In the order in which a person would want to hear of them."""

_AMENDED_RULES: Final[Sequence[_Rule]] = (
    _epoch,
    _movable,
    _modules_stay,
    _same_domain,
    _cells_known,
    _dedicated_cpus,
    _shared_cpus,
    _vms_left_afloat,
    _memory,
)
