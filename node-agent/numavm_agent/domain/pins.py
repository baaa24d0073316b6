"""Which host CPUs each thread of a domain may run on: at its start, and afterwards.

Owns the rule for floating threads (shared vCPUs, emulator threads). Pure; called again whenever
pools change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from numavm_agent.domain.model import CannotRender
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveVM
from numavm_api.numahost import EffectivePools
from numavm_api.placement import CpuPlacement, PlacedCell, Placement


@dataclass(frozen=True, slots=True)
class Pins:
    """Affinity of a domain's threads."""

    vcpus: Mapping[int, CpuSet]
    """vCPU number -> host CPUs its thread may run on."""
    emulator: CpuSet
    """Host CPUs for every other thread of the emulator."""
    floating: CpuSet | None = None
    """Host CPUs for I/O threads that hold none of their own; None: those of the emulator."""
    io_threads: tuple[CpuSet, ...] = ()
    """Host CPUs of I/O threads that hold some, in the order of their ids."""
    taking_memory: CpuSet = field(default=CpuSet(), compare=False)
    """Where the emulator may run while QEMU takes memory, at start or for a module: no promise, so not compared."""

    @property
    def anywhere(self) -> CpuSet:
        """Every host CPU that a vCPU or the emulator may use."""
        return self.emulator | CpuSet.union_of(self.vcpus.values())

    def of_io_thread(self, position: int) -> CpuSet:
        """Return the host CPUs of an I/O thread, by its position among the ids."""
        if self.io_threads:
            return self.io_threads[position]
        return self.emulator if self.floating is None else self.floating


def settled_pins(
    placement: Placement,
    pools: EffectivePools,
    cells: Mapping[int, CpuSet],
    held: CpuSet,
    vm: EffectiveVM | None = None,
) -> Pins:
    """Return the affinities that hold once a domain has started.

    Args:
        placement: The claim.
        pools: The host's CPU pools as of now.
        cells: Online CPUs of each host cell.
        held: CPUs that claims on the host keep to themselves; this one's own may be among them.
        vm: The VM, for the host CPUs that its user chose by hand; None: nobody chose any.

    Raises:
        CannotRender: a claimed CPU is not there, or no CPU is left for threads that float.
    """
    _refuse_missing_cpus(placement, cells)
    vcpus: dict[int, CpuSet] = {}
    for cell in placement.cells:
        vcpus |= _vcpu_pins(cell, placement, pools, cells)
    if vm is not None and placement.cpu_placement is CpuPlacement.SHARED:
        vcpus = {vcpu: _chosen(vcpu, cpus, vm) for vcpu, cpus in vcpus.items()}
    chosen = vm.emulator_candidates if vm is not None else None
    emulator = _emulator_pin(placement, pools, cells, held, chosen)
    return Pins(
        vcpus=dict(sorted(vcpus.items())),
        emulator=emulator,
        floating=emulator,
        io_threads=tuple(placement.io_thread_cpus)
        or _io_thread_pins(placement, pools, cells, emulator, vm),
        taking_memory=_while_taking_memory(
            emulator | CpuSet.union_of(vcpus.values()), placement, pools, cells
        ),
    )


def starting_pins(
    placement: Placement,
    pools: EffectivePools,
    cells: Mapping[int, CpuSet],
    held: CpuSet,
    vm: EffectiveVM | None = None,
) -> Pins:
    """Return the affinities at start: the emulator may run on every host cell of the VM's memory.

    Raises:
        CannotRender: as `settled_pins`.
    """
    settled = settled_pins(placement, pools, cells, held, vm)
    return replace(settled, emulator=settled.taking_memory)


def _while_taking_memory(
    settled: CpuSet, placement: Placement, pools: EffectivePools, cells: Mapping[int, CpuSet]
) -> CpuSet:
    """Return where the emulator may run while QEMU takes memory on each host cell that it is bound to.

    Immediate allocation runs its threads on the CPUs of each bound host cell, those of modules too, and QEMU does
    not start, or take a module, where the emulator may use none of them ("Setting CPU affinity failed", measured).
    The VM's own CPUs and those it may float over are enough; CPUs of other VMs are left alone. Only where a host
    cell has neither, all its CPUs are taken for that moment.
    """
    own = settled | placement.dedicated_cpus
    bound = placement.memory_host_cells
    floating = own | ((pools.shared | pools.housekeeping) & cpus_of(bound, cells))
    bare = [cells[cell] for cell in bound if cell in cells and floating.isdisjoint(cells[cell])]
    return floating | CpuSet.union_of(bare)


def cpus_of(host_cells: CpuSet, cells: Mapping[int, CpuSet]) -> CpuSet:
    """Return the online CPUs of some host cells; cells the host does not have count as empty."""
    return CpuSet.union_of(cells.get(cell, CpuSet()) for cell in host_cells)


def _vcpu_pins(
    cell: PlacedCell, placement: Placement, pools: EffectivePools, cells: Mapping[int, CpuSet]
) -> dict[int, CpuSet]:
    if placement.cpu_placement is CpuPlacement.DEDICATED:
        # A vCPU that is off and for which no CPU is booked has none yet.
        return {vcpu: cpus for vcpu, cpus in zip(cell.vcpus, cell.pcpus, strict=True) if len(cpus)}
    shared = (pools.shared - placement.dedicated_cpus) & cpus_of(cell.host_cells, cells)
    if cell.vcpus and not shared:
        raise CannotRender(
            f"placement.cells[{cell.id}]: no shared CPU is left on host cells {cell.host_cells} "
            f"for vCPUs {cell.vcpus} (shared CPUs of the host: {str(pools.shared) or 'none'})"
        )
    return dict.fromkeys(cell.vcpus, shared)


def _chosen(vcpu: int, floats: CpuSet, vm: EffectiveVM) -> CpuSet:
    """Of the shared CPUs that a vCPU may float over, those that its user chose."""
    candidates = vm.vcpu_candidates.get(vcpu)
    if candidates is None:
        return floats
    if candidates.isdisjoint(floats):
        raise CannotRender(
            f"spec.domain.cpu.pinning gives vCPU {vcpu} the CPUs {candidates}, "
            f"but the shared CPUs of its host cells are {floats}"
        )
    return candidates & floats


def _emulator_pin(
    placement: Placement,
    pools: EffectivePools,
    cells: Mapping[int, CpuSet],
    held: CpuSet,
    chosen: CpuSet | None,
) -> CpuSet:
    """Own pCPU; the user's choice; else shared ones here, housekeeping, or what nobody holds."""
    if placement.emulator_cpus:
        return placement.emulator_cpus
    if chosen is not None:
        return _floating_choice(placement, pools, cells, "emulator", chosen)
    here = cpus_of(placement.host_cells, cells)
    nobodys = here - held - pools.foreign
    for candidates in (pools.shared & here, pools.housekeeping & here, nobodys):
        free = candidates - placement.dedicated_cpus
        if free:
            return free
    raise CannotRender(
        f"placement.hostCells {placement.host_cells}: no CPU is left for the emulator's threads; "
        "name some of these cells in the NumaHost's spec.reservedCpus or spec.sharedCpus"
    )


def _floating_choice(
    placement: Placement,
    pools: EffectivePools,
    cells: Mapping[int, CpuSet],
    field: str,
    chosen: CpuSet,
) -> CpuSet:
    offered = (pools.shared | pools.housekeeping) & cpus_of(placement.host_cells, cells)
    free = offered - placement.dedicated_cpus
    if chosen.isdisjoint(free):
        raise CannotRender(
            f"spec.domain.cpu.pinning.{field} is {chosen}, but shared and housekeeping CPUs of "
            f"host cells {placement.host_cells} are {str(free) or 'none'}"
        )
    return chosen & free


def _io_thread_pins(
    placement: Placement,
    pools: EffectivePools,
    cells: Mapping[int, CpuSet],
    emulator: CpuSet,
    vm: EffectiveVM | None,
) -> tuple[CpuSet, ...]:
    """Return the CPUs of each I/O thread where any was chosen by hand; else nothing: they float like the emulator."""
    if vm is None or not vm.io_thread_candidates:
        return ()
    return tuple(
        _floating_choice(placement, pools, cells, f"ioThreads[id={number}].cpuset", chosen)
        if (chosen := vm.io_thread_candidates.get(number)) is not None
        else emulator
        for number in vm.io_threads.ids
    )


def _refuse_missing_cpus(placement: Placement, cells: Mapping[int, CpuSet]) -> None:
    unknown = CpuSet(frozenset(cell for cell in placement.host_cells if cell not in cells))
    if unknown:
        known = CpuSet(frozenset(cells))
        raise CannotRender(f"placement.cells: the host has no host cell {unknown}, only {known}")
    online = CpuSet.union_of(cells.values())
    gone = (placement.dedicated_cpus | placement.emulator_cpus) - online
    if gone:
        raise CannotRender(f"placement.dedicatedCpus: CPUs {gone} are not online on this host")
