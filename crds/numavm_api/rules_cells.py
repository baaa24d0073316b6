"""Rules on guest cells: which vCPUs are in which, and what they are bound to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from numavm_api.cpu import BindingMode, GuestNuma
from numavm_api.cpuset import CpuSet
from numavm_api.effective import effective
from numavm_api.hmat import HostCellClass
from numavm_api.numavm import NumaVMSpec
from numavm_api.violation import Violation

Rule = Callable[[NumaVMSpec], Iterator[Violation]]

CPU: Final = "spec.domain.cpu"
NUMA: Final = f"{CPU}.numa"


def cell_rules() -> tuple[Rule, ...]:
    """Return the rules on CPUs and cells."""
    return (
        _declared_or_derived,
        _cell_ids_without_gaps,
        _no_vcpu_past_the_maximum,
        _every_vcpu_in_exactly_one_cell,
        _threads_of_a_core_together,
        _a_vcpu_of_each_cell_online,
        _bindings_intersect,
        _restrictive_everywhere_or_nowhere,
        _memory_classes_without_cpus,
        _memory_classes_on_demand,
    )


def _declared_or_derived(spec: NumaVMSpec) -> Iterator[Violation]:
    numa = spec.domain.cpu.numa
    if numa is None:
        return
    if numa.guest_mapping_passthrough and numa.cells:
        yield Violation(
            f"{NUMA}.guestMappingPassthrough",
            f"beside {len(numa.cells)} cells",
            "cells are declared or derived, not both",
            f"leave guestMappingPassthrough or {NUMA}.cells out",
        )
    elif not numa.guest_mapping_passthrough and not numa.cells:
        yield Violation(
            f"{NUMA}.cells",
            "nothing",
            "the guest's cells are declared or derived",
            f"declare cells, or set {NUMA}.guestMappingPassthrough, or leave {NUMA} out",
        )
    if numa.guest_mapping_passthrough and numa.interconnects:
        yield Violation(
            f"{NUMA}.interconnects",
            "beside guestMappingPassthrough",
            "derived cells have the figures of their host cells",
            "leave interconnects out, or declare the cells",
        )


def _cell_ids_without_gaps(spec: NumaVMSpec) -> Iterator[Violation]:
    numa = spec.domain.cpu.numa
    if numa is None:
        return
    ids = [cell.id for cell in numa.cells]
    if sorted(ids) != list(range(len(ids))):
        yield Violation(
            f"{NUMA}.cells[*].id",
            ", ".join(map(str, ids)),
            f"{len(ids)} cells have the ids 0 to {len(ids) - 1}, each once",
            "renumber the cells",
        )


def _no_vcpu_past_the_maximum(spec: NumaVMSpec) -> Iterator[Violation]:
    count = spec.domain.cpu.max_vcpus
    for index, cell in _cells_of(spec.domain.cpu.numa):
        past = CpuSet(frozenset(vcpu for vcpu in cell if vcpu >= count))
        if past:
            yield Violation(
                f"{NUMA}.cells[{index}].cpus",
                f"'{cell}'",
                f"vCPU {past} does not exist: maxSockets*dies*cores*threads = {count} gives vCPUs 0 to {count - 1}",
                f"name only vCPUs up to {count - 1}, or raise {CPU}.maxSockets",
            )


def _every_vcpu_in_exactly_one_cell(spec: NumaVMSpec) -> Iterator[Violation]:
    numa = spec.domain.cpu.numa
    if numa is None or not numa.cells:
        return
    cells = _cells_of(numa)
    if not cells:
        yield Violation(
            f"{NUMA}.cells[*].cpus",
            "nothing",
            "at least one cell has CPUs: only then others may be memory only",
            f"give the vCPUs 0 to {spec.domain.cpu.max_vcpus - 1} to cells",
        )
        return
    seen = CpuSet()
    for index, cell in cells:
        twice = cell & seen
        if twice:
            yield Violation(
                f"{NUMA}.cells[{index}].cpus",
                f"'{cell}'",
                f"vCPU {twice} is in another cell already",
                "put each vCPU into exactly one cell",
            )
        seen |= cell
    missing = CpuSet(frozenset(range(spec.domain.cpu.max_vcpus))) - seen
    if missing:
        yield Violation(
            f"{NUMA}.cells[*].cpus",
            f"'{seen}'",
            f"vCPU {missing} of {spec.domain.cpu.max_vcpus} is in no cell (libvirt would put it into cell 0 unasked)",
            "put each vCPU into exactly one cell",
        )


def _threads_of_a_core_together(spec: NumaVMSpec) -> Iterator[Violation]:
    threads = spec.domain.cpu.threads
    for index, cell in _cells_of(spec.domain.cpu.numa):
        cores = {vcpu // threads for vcpu in cell}
        whole = {core * threads + n for core in cores for n in range(threads)}
        siblings = CpuSet(frozenset(vcpu for vcpu in whole if vcpu < spec.domain.cpu.max_vcpus))
        torn = siblings - cell
        if torn:
            yield Violation(
                f"{NUMA}.cells[{index}].cpus",
                f"'{cell}'",
                f"with {threads} threads per core its cores also have vCPU {torn}",
                f"give the cell whole cores, such as '{siblings}'",
            )


def _a_vcpu_of_each_cell_online(spec: NumaVMSpec) -> Iterator[Violation]:
    """A cell none of whose vCPUs is on at boot is memory only to the guest, and a driver may refuse to bring them up later."""
    online = spec.domain.cpu.boot_vcpus
    for index, cell in _cells_of(spec.domain.cpu.numa):
        if cell.isdisjoint(online):
            yield Violation(
                f"{NUMA}.cells[{index}].cpus",
                f"'{cell}'",
                f"of the vCPUs that are on at boot, {online}, none is in this cell",
                f"move one of them into the cell, or name one of the cell's in {CPU}.onlineVcpus",
            )


def _bindings_intersect(spec: NumaVMSpec) -> Iterator[Violation]:
    numa = spec.domain.cpu.numa
    if numa is None or numa.host_binding is None or numa.host_binding.host_cells is None:
        return
    whole = numa.host_binding.host_cells
    for index, cell in enumerate(numa.cells):
        own = cell.host_binding.host_cells if cell.host_binding else None
        if own is not None and own.isdisjoint(whole):
            yield Violation(
                f"{NUMA}.cells[{index}].hostBinding.hostCells",
                f"'{own}'",
                f"{NUMA}.hostBinding.hostCells '{whole}' has no host cell in common with it",
                "name a host cell that is in both, or leave one of the two out",
            )


def _restrictive_everywhere_or_nowhere(spec: NumaVMSpec) -> Iterator[Violation]:
    """Libvirt refuses numatune with `restrictive` beside another mode (virDomainNumatuneParseXML)."""
    modes = [cell.mode for cell in effective(spec).cells]
    if BindingMode.RESTRICTIVE in modes and set(modes) != {BindingMode.RESTRICTIVE}:
        yield Violation(
            f"{NUMA}.cells[*].hostBinding.mode",
            ", ".join(modes),
            "libvirt takes Restrictive for all cells or for none",
            f"set {NUMA}.hostBinding.mode to Restrictive and leave the cells' own modes out",
        )


def _cells_of(numa: GuestNuma | None) -> list[tuple[int, CpuSet]]:
    """Return (index, vCPUs) of the cells that have CPUs."""
    cells = numa.cells if numa else ()
    return [(index, cell.cpus) for index, cell in enumerate(cells) if cell.cpus is not None]


def _memory_classes_without_cpus(spec: NumaVMSpec) -> Iterator[Violation]:
    """Host cells of the classes HBM and CXL have no CPUs that vCPUs could run on."""
    numa = spec.domain.cpu.numa
    for index, cell in enumerate(numa.cells if numa else ()):
        if cell.cpus is not None and cell.host_cell_class not in {None, HostCellClass.DRAM}:
            yield Violation(
                f"{NUMA}.cells[{index}].hostCellClass",
                str(cell.host_cell_class),
                f"host cells of that class have no CPUs, and this cell has the vCPUs {cell.cpus}",
                "leave hostCellClass out, or give such memory a cell without cpus",
            )


def _memory_classes_on_demand(spec: NumaVMSpec) -> Iterator[Violation]:
    vm = effective(spec)
    for index, cell in enumerate(spec.domain.cpu.numa.cells if spec.domain.cpu.numa else ()):
        kind = cell.host_cell_class
        settled = next(one for one in vm.cells if one.id == cell.id)
        if kind not in {None, HostCellClass.DRAM} and not vm.goes_without_cpus(settled):
            yield Violation(
                f"{NUMA}.cells[{index}].hostCellClass",
                f"{kind} with allocation {vm.backing.allocation}",
                "host cells of that class have no CPUs for the threads that take pages at start",
                "set spec.domain.memory.backing.allocation to OnDemand, or the binding's mode to Restrictive",
            )
