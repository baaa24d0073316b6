"""Guest cells that the placement derives (`guestMappingPassthrough`): how a guest is split over them, and how it grows.

Cells are split in one way only, by their number, so that placement, agent and command line come to the same ones. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveCell, EffectiveVM
from numavm_api.effective_modules import MODULE_UNIT, plugged_into
from numavm_api.numavm import CellSharing, NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.quantity import LINUX_BLOCK, Bytes, pages_of


def split_over(vm: EffectiveVM, count: int) -> EffectiveVM:
    """Return the VM of one cell as a VM of `count` cells.

    Whole guest cores as evenly as they go; memory by vCPU share in whole pages.
    """
    whole, threads = vm.cells[0], vm.threads_per_core
    cores, pages = vm.vcpus // threads, largest_pages(whole)
    page = max(whole.page_size, *whole.fallback_page_sizes, 1)
    edges = [-(-cores * at // count) * threads for at in range(count + 1)]
    cells = []
    for at in range(count):
        share = pages * edges[at + 1] // vm.vcpus - pages * edges[at] // vm.vcpus
        vcpus = CpuSet(frozenset(range(edges[at], edges[at + 1])))
        cells.append(
            replace(
                whole,
                id=at,
                vcpus=vcpus,
                memory=Bytes(share * page),
                host_cells=None,
                among=whole.host_cells,
                plugged=plugged_into(vm.modules, at),
            )
        )
    devices = tuple(
        device if device.cell is None or device.cell < count else replace(device, cell=None)
        for device in vm.host_devices
    )
    return replace(
        vm,
        cells=tuple(cells),
        cells_declared=True,
        cell_sharing=CellSharing.NEVER,
        derived_cells=None,
        host_devices=devices,
    )


def largest_pages(cell: EffectiveCell) -> int:
    """Return how many pages a cell takes, of the largest size that it may have."""
    return pages_of(cell.memory, max(cell.page_size, *cell.fallback_page_sizes, 1))


def grown_cells_of(cells: Sequence[EffectiveCell], total: Bytes) -> Mapping[int, Bytes] | None:
    """Return guest cell -> memory, where a running guest of derived cells is to have `total` in all.

    What is raised comes by vCPU share in whole blocks of Linux where it is a number of such, else in the smallest
    modules; None: it is no whole number of modules, or less than the cells booted with.
    """
    raised = total - sum(cell.memory for cell in cells)
    smallest = max(MODULE_UNIT, *(cell.page_size for cell in cells))
    block = max(LINUX_BLOCK, smallest)
    unit = smallest if raised % block else block
    if raised < 0 or raised % unit:
        return None
    edges = [0, *accumulate(len(cell.vcpus) for cell in cells)]
    units = [raised // unit * edge // edges[-1] for edge in edges]
    return {
        cell.id: Bytes(cell.memory + (after - before) * unit)
        for cell, (before, after) in zip(cells, pairwise(units), strict=True)
    }


def as_it_is_split(vm: EffectiveVM, claim: Placement) -> EffectiveVM | None:
    """Return a VM with the cells that its running guest has, and the memory that each is to have by now.

    Unchanged where its cells are not derived. None: it is to be split another way, which a running guest cannot be.

    Args:
        vm: What the spec wants.
        claim: What the VM holds.
    """
    if vm.derived_cells is None:
        return vm
    placed = sorted(claim.cells, key=lambda cell: cell.id)
    if vm.derived_cells.count not in (None, len(placed)):
        return None
    split = split_over(vm, len(placed))
    cells = [
        replace(cell, vcpus=there.vcpus, memory=there.memory, page_size=there.page_size)
        for cell, there in zip(split.cells, placed, strict=True)
    ]
    grown = grown_cells_of(cells, vm.memory) or {}
    return replace(
        split,
        cells=tuple(replace(cell, memory=grown.get(cell.id, cell.memory)) for cell in cells),
    )


def settled(spec: NumaVMSpec, claim: Placement | None) -> NumaVMSpec:
    """Return the spec with the number of derived cells that a running guest has, where it leaves that open."""
    numa = spec.domain.cpu.numa
    derived = numa.guest_mapping_passthrough if numa else None
    if numa is None or derived is None or derived.cells is not None or claim is None:
        return spec
    kept = derived.model_copy(update={"cells": len(claim.cells)})
    cpu = spec.domain.cpu.model_copy(
        update={"numa": numa.model_copy(update={"guest_mapping_passthrough": kept})}
    )
    return spec.model_copy(update={"domain": spec.domain.model_copy(update={"cpu": cpu})})
