"""Rules on vCPUs, guest cells and their binding to the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from numavm_api.cpu import MAX_VCPUS, BindingMode, GuestNuma, ThreadPolicy
from numavm_api.cpuset import CpuSet
from numavm_api.effective import effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.violation import Violation

Rule = Callable[[NumaVMSpec], Iterator[Violation]]

CPU: Final = "spec.domain.cpu"
NUMA: Final = f"{CPU}.numa"
MAX_PC_VCPUS: Final = 255
"""QEMU's pc_i440fx machines have no interrupt remapping and end at 255 vCPUs (hw/i386/pc_piix.c)."""


def cell_rules() -> tuple[Rule, ...]:
    """Return the rules on CPUs and cells."""
    return (
        _vcpus_within_limits,
        _policies_need_dedicated_cpus,
        _cell_ids_without_gaps,
        _no_vcpu_past_the_maximum,
        _every_vcpu_in_exactly_one_cell,
        _threads_of_a_core_together,
        _bindings_intersect,
        _restrictive_everywhere_or_nowhere,
    )


def _vcpus_within_limits(spec: NumaVMSpec) -> Iterator[Violation]:
    cpu = spec.domain.cpu
    product = f"{cpu.sockets}*{cpu.dies}*{cpu.cores}*{cpu.threads} = {cpu.vcpus}"
    field = f"{CPU}.sockets*dies*cores*threads"
    if cpu.vcpus > MAX_VCPUS:
        yield Violation(
            field, product, f"a VM has at most {MAX_VCPUS} vCPUs", "lower one of the four"
        )
    machine = spec.domain.machine.type
    if not machine.startswith(("q35", "pc-q35")) and cpu.vcpus > MAX_PC_VCPUS:
        yield Violation(
            field,
            product,
            f"machine {machine} has at most {MAX_PC_VCPUS} vCPUs",
            "use spec.domain.machine.type q35 or fewer vCPUs",
        )


def _policies_need_dedicated_cpus(spec: NumaVMSpec) -> Iterator[Violation]:
    cpu = spec.domain.cpu
    if cpu.dedicated_cpu_placement:
        return
    if cpu.thread_policy is not ThreadPolicy.PREFER:
        yield Violation(
            f"{CPU}.threadPolicy",
            cpu.thread_policy,
            "vCPUs without dedicated CPUs float over threads of any core",
            f"set {CPU}.dedicatedCpuPlacement to true or leave threadPolicy out",
        )
    if cpu.isolate_emulator_thread:
        yield Violation(
            f"{CPU}.isolateEmulatorThread",
            "true",
            "only a VM with dedicated CPUs can hold a pCPU for its emulator",
            f"set {CPU}.dedicatedCpuPlacement to true or leave isolateEmulatorThread out",
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
    count = spec.domain.cpu.vcpus
    for index, cell in enumerate(_cells_of(spec.domain.cpu.numa)):
        past = CpuSet(frozenset(vcpu for vcpu in cell if vcpu >= count))
        if past:
            yield Violation(
                f"{NUMA}.cells[{index}].cpus",
                f"'{cell}'",
                f"vCPU {past} does not exist: sockets*dies*cores*threads = {count} gives vCPUs 0 to {count - 1}",
                f"name only vCPUs up to {count - 1}, or raise {CPU}.sockets",
            )


def _every_vcpu_in_exactly_one_cell(spec: NumaVMSpec) -> Iterator[Violation]:
    cells = _cells_of(spec.domain.cpu.numa)
    if not cells:
        return
    seen = CpuSet()
    for index, cell in enumerate(cells):
        twice = cell & seen
        if twice:
            yield Violation(
                f"{NUMA}.cells[{index}].cpus",
                f"'{cell}'",
                f"vCPU {twice} is in another cell already",
                "put each vCPU into exactly one cell",
            )
        seen |= cell
    missing = CpuSet(frozenset(range(spec.domain.cpu.vcpus))) - seen
    if missing:
        yield Violation(
            f"{NUMA}.cells[*].cpus",
            f"'{seen}'",
            f"vCPU {missing} of {spec.domain.cpu.vcpus} is in no cell",
            "put each vCPU into exactly one cell",
        )


def _threads_of_a_core_together(spec: NumaVMSpec) -> Iterator[Violation]:
    threads = spec.domain.cpu.threads
    for index, cell in enumerate(_cells_of(spec.domain.cpu.numa)):
        cores = {vcpu // threads for vcpu in cell}
        whole = {core * threads + n for core in cores for n in range(threads)}
        siblings = CpuSet(frozenset(vcpu for vcpu in whole if vcpu < spec.domain.cpu.vcpus))
        torn = siblings - cell
        if torn:
            yield Violation(
                f"{NUMA}.cells[{index}].cpus",
                f"'{cell}'",
                f"with {threads} threads per core its cores also have vCPU {torn}",
                f"give the cell whole cores, such as '{siblings}'",
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


def _cells_of(numa: GuestNuma | None) -> list[CpuSet]:
    return [cell.cpus for cell in numa.cells] if numa else []
