"""What is promised of memory modules, and what the kernel confirms of it. Pure.

A module's backend is a mapping of QEMU like a cell's. It is promised as a cell would be: same host cells, mode and
pages as the guest cell it is plugged into, or those of its own. Modules on files of the host are no claimed memory
and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from numavm_agent.verify.guest_memory import Block
from numavm_api.conditions import Reason
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveVM
from numavm_api.effective_modules import FILE_BACKED, EffectiveModule, ModuleKind
from numavm_api.memory import Allocation
from numavm_api.placement import PlacedCell, Placement
from numavm_api.quantity import format_bytes


def promised_modules(placement: Placement, vm: EffectiveVM) -> dict[str, PlacedCell]:
    """Return module -> what its backend must be like, written as a cell without vCPUs."""
    cells = {cell.id: cell for cell in placement.cells}
    own = {
        module.name: {"host_cells": module.host_cells, "page_size": module.page_size}
        for module in placement.modules
    }
    as_cell = {"vcpus": CpuSet(), "pcpus": [], "plugged": None}
    return {
        module.name: cells[module.cell].model_copy(
            update={**as_cell, "memory": module.size, **own.get(module.name, {})}
        )
        for module in vm.modules
        if module.kind not in FILE_BACKED and module.cell in cells
    }


def module_problems(
    vm: EffectiveVM, promised: Mapping[str, PlacedCell], blocks: Mapping[str, Block]
) -> Iterator[tuple[Reason, str]]:
    """Yield what is not as promised; of virtio-mem the guest decides how much of it is there."""
    for module in vm.modules:
        cell = promised.get(module.name)
        if cell is None:
            continue
        block = blocks.get(module.name)
        where = f"memory module {module.name} of guest cell {cell.id}"
        if block is None:
            yield (
                Reason.PAGES_MISSING,
                f"{where}: no mapping of {format_bytes(cell.memory)} was found",
            )
        else:
            yield from _block_problems(where, cell, block)
            yield from _missing(where, module, vm, block)


def _block_problems(where: str, cell: PlacedCell, block: Block) -> Iterator[tuple[Reason, str]]:
    if not block.is_bound_as(cell):
        yield (
            Reason.PAGES_MISPLACED,
            f"{where}: its memory policy is not {cell.mode} on {cell.host_cells}",
        )
    if block.page_size != cell.page_size:
        yield (
            Reason.PAGES_MISPLACED,
            f"{where}: its pages have {format_bytes(block.page_size)}, promised {format_bytes(cell.page_size)}",
        )
    elsewhere = {
        host: size for host, size in block.resident().items() if host not in cell.host_cells
    }
    if elsewhere:
        amounts = ", ".join(
            f"{format_bytes(size)} on host cell {host}" for host, size in elsewhere.items()
        )
        yield Reason.PAGES_MISPLACED, f"{where}: {amounts} instead of on {cell.host_cells}"


def _missing(
    where: str, module: EffectiveModule, vm: EffectiveVM, block: Block
) -> Iterator[tuple[Reason, str]]:
    total = sum(block.resident().values())
    # What a balloon took, it took from whichever module it liked.
    taken_at_start = vm.backing.allocation is Allocation.IMMEDIATE and not vm.has_balloon
    if module.kind is ModuleKind.DIMM and taken_at_start and total != module.size:
        yield (
            Reason.PAGES_MISSING,
            f"{where}: {format_bytes(total)} of {format_bytes(module.size)} are resident",
        )
