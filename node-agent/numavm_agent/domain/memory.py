"""Configurators of memory: how much, what backs it, which host cells hold it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.units import kib
from numavm_agent.domain.xml import Element, element
from numavm_api.backing import Allocation, BackingSource, MemoryAccess
from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.quantity import BASE_PAGE, GIBIBYTE, Bytes

NUMATUNE_MODES: Final = {
    BindingMode.STRICT: "strict",
    BindingMode.PREFERRED: "preferred",
    BindingMode.INTERLEAVE: "interleave",
    BindingMode.RESTRICTIVE: "restrictive",
}
_SOURCES: Final = {
    BackingSource.ANONYMOUS: "anonymous",
    BackingSource.MEMFD: "memfd",
    BackingSource.FILE: "file",
}
MAX_ALLOCATION_THREADS: Final = 8


def sizes(given: RenderInput) -> Iterator[Element]:
    """Ceiling, memory of cells and modules (libvirt makes that sum of whatever stands here), balloon target."""
    vm = given.effective
    if vm.max_memory is not None:
        yield element("maxMemory", str(kib(vm.max_memory)), slots=vm.slots, unit="KiB")
    total = Bytes(vm.memory + sum(module.size for module in vm.modules))
    balloon = given.spec.domain.memory.balloon
    target = balloon.target if balloon and balloon.target is not None else total
    dump = None if vm.backing.core_dump else "off"
    yield element("memory", str(kib(total)), unit="KiB", dumpCore=dump)
    yield element("currentMemory", str(kib(target)), unit="KiB")


def backing(given: RenderInput) -> Iterator[Element]:
    """Source, huge pages per guest cell, when the memory is taken, and what the kernel may do to it."""
    wanted = given.effective.backing
    anonymous = wanted.source is BackingSource.ANONYMOUS
    yield element(
        "memoryBacking",
        _huge_pages(given),
        None if wanted.same_page_merging else element("nosharepages"),
        element("locked") if wanted.locked else None,
        element("source", type_=_SOURCES[wanted.source]),
        # Not beside anonymous: libvirt would make it a file on disk (measured).
        None if anonymous else element("access", mode=_access(given.domain_access)),
        _allocation(given),
        element("discard") if wanted.discard else None,
    )


def binding(given: RenderInput) -> Iterator[Element]:
    """The whole domain's mode and nodeset, and each guest cell's own.

    The whole domain's decides the cgroup's `cpuset.mems` (strict and restrictive only) and where
    the emulator's own memory goes. It may hold the domain down to its host cells only where every
    cell is held down.
    """
    mode, nodeset = _domain_binding(given)
    yield element(
        "numatune",
        element("memory", mode=mode, nodeset=str(nodeset)),
        *(
            element(
                "memnode",
                cellid=placed.id,
                mode=NUMATUNE_MODES[placed.mode],
                nodeset=str(placed.host_cells),
            )
            for _, placed in given.cells
        ),
    )


def _domain_binding(given: RenderInput) -> tuple[str, CpuSet]:
    modes = {cell.mode for cell in given.placement.cells}
    for hard in (BindingMode.STRICT, BindingMode.RESTRICTIVE):
        if modes == {hard}:
            return NUMATUNE_MODES[hard], given.placement.memory_host_cells
    return "preferred", CpuSet.of(given.placement.overhead_cell)


def _access(access: MemoryAccess) -> str:
    return "shared" if access is MemoryAccess.SHARED else "private"


def _huge_pages(given: RenderInput) -> Element | None:
    """A page size per group of guest cells (`nodeset` means those here); others have base pages."""
    groups: dict[Bytes, list[int]] = {}
    for _, placed in given.cells:
        if placed.page_size != BASE_PAGE:
            groups.setdefault(placed.page_size, []).append(placed.id)
    if not groups:
        return None
    return element(
        "hugepages",
        *(
            element(
                "page", size=kib(size), unit="KiB", nodeset=str(CpuSet(frozenset(groups[size])))
            )
            for size in sorted(groups)
        ),
    )


def _allocation(given: RenderInput) -> Element:
    match given.effective.backing.allocation:
        case Allocation.IMMEDIATE:
            return element("allocation", mode="immediate", threads=_allocation_threads(given))
        case Allocation.ON_DEMAND:
            return element("allocation", mode="ondemand")


def _allocation_threads(given: RenderInput) -> int:
    """As many as asked; else one per GiB, as many as vCPUs at most: a small guest gains nothing from more."""
    asked = given.effective.backing.allocation_threads
    if asked is not None:
        return asked
    gibibytes = max(1, given.effective.memory // GIBIBYTE)
    return min(gibibytes, given.effective.vcpus, MAX_ALLOCATION_THREADS)
