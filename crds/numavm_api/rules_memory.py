"""Rules on memory, page sizes and what backs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from numavm_api.backing import Allocation, BackingSource, MemoryAccess, Switch
from numavm_api.cpu import GuestCell, HugePages
from numavm_api.effective import effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import BASE_PAGE, MEBIBYTE, Bytes, format_bytes
from numavm_api.rules_cells import NUMA, Rule
from numavm_api.violation import Violation

MEMORY: Final = "spec.domain.memory"
BACKING: Final = f"{MEMORY}.backing"
HUGE_PAGE_SIZES: Final = tuple(Bytes(2 * MEBIBYTE << shift) for shift in range(14))
"""2Mi to 16Gi: hugetlb's sizes on every architecture of Linux with 4 KiB base pages lie between these."""
MAX_MEMORY: Final = Bytes(64 * 1024**4)
"""64 TiB: what 46 bits of physical address reach, the widest that QEMU's machines give a guest without a named CPU model."""


def memory_rules() -> tuple[Rule, ...]:
    """Return the rules on memory."""
    return (
        _memory_is_named,
        _guest_is_the_sum_of_its_cells,
        _page_sizes_exist,
        _memory_in_whole_pages,
        _memory_within_limits,
        _huge_pages_fit_their_backing,
        _shared_needs_memfd,
        _discard_needs_a_file,
        _fallbacks_differ,
    )


def _memory_is_named(spec: NumaVMSpec) -> Iterator[Violation]:
    numa = spec.domain.cpu.numa
    if spec.domain.memory.guest is None and not (numa and numa.cells):
        yield Violation(
            f"{MEMORY}.guest",
            "nothing",
            "a VM needs memory",
            f"set {MEMORY}.guest, or declare {NUMA}.cells with their memory",
        )


def _guest_is_the_sum_of_its_cells(spec: NumaVMSpec) -> Iterator[Violation]:
    guest, numa = spec.domain.memory.guest, spec.domain.cpu.numa
    if guest is None or numa is None or not numa.cells:
        return
    total = sum(cell.memory for cell in numa.cells)
    if guest != total:
        yield Violation(
            f"{MEMORY}.guest",
            format_bytes(guest),
            f"the cells' memory adds up to {format_bytes(total)}",
            "leave guest out, or make it the sum",
        )


def _page_sizes_exist(spec: NumaVMSpec) -> Iterator[Violation]:
    for field, size in _page_sizes(spec):
        if size not in {BASE_PAGE, *HUGE_PAGE_SIZES}:
            yield Violation(
                field,
                format_bytes(size),
                "a page is 4Ki, or a power of two from 2Mi to 16Gi",
                "name a size that the host has, 2Mi or 1Gi on x86-64",
            )


def _memory_in_whole_pages(spec: NumaVMSpec) -> Iterator[Violation]:
    for field, memory, hugepages in _amounts(spec):
        if memory == 0 and field.startswith(NUMA):
            yield Violation(
                field,
                "0",
                "a cell without memory needs a newer libvirt than any that NumaVM runs on",
                "give it memory, or its CPUs to another cell",
            )
            continue
        sizes = [hugepages.page_size, *hugepages.fallback] if hugepages else []
        units = [(Bytes(MEBIBYTE), "1Mi")]
        units += [(size, f"its page size {format_bytes(size)}") for size in sizes]
        broken = [(unit, name) for unit, name in units if memory == 0 or (unit and memory % unit)]
        for unit, name in broken[:1]:
            yield Violation(
                field,
                format_bytes(memory),
                f"memory is a positive multiple of {name}",
                f"use {format_bytes(_rounded_up(memory, unit))}",
            )


def _memory_within_limits(spec: NumaVMSpec) -> Iterator[Violation]:
    total = effective(spec).memory
    if total > MAX_MEMORY:
        yield Violation(
            f"{NUMA}.cells[*].memory" if _cells(spec) else MEMORY,
            format_bytes(total),
            f"a VM has at most {format_bytes(MAX_MEMORY)}",
            "ask for less",
        )


def _huge_pages_fit_their_backing(spec: NumaVMSpec) -> Iterator[Violation]:
    sizes = [size for _, size in _page_sizes(spec)]
    if all(size == BASE_PAGE for size in sizes):
        return
    backing = spec.domain.memory.backing
    if backing.source is BackingSource.ANONYMOUS:
        yield Violation(
            f"{BACKING}.source",
            backing.source,
            "huge pages come from a memfd",
            "leave source out or set it to Memfd, or drop hugepages",
        )
    if backing.allocation is Allocation.ON_DEMAND:
        yield Violation(
            f"{BACKING}.allocation",
            backing.allocation,
            "a huge page that is missing later kills the VM",
            "leave allocation out or set it to Immediate, or drop hugepages",
        )


def _shared_needs_memfd(spec: NumaVMSpec) -> Iterator[Violation]:
    """Anonymous memory cannot be mapped by others; pages of a shared file on disk go where the kernel likes.

    mbind(2): a policy on a shared mapping of a file has no effect unless the file lies in tmpfs or hugetlbfs.
    """
    source = spec.domain.memory.backing.source
    limits = {
        BackingSource.ANONYMOUS: "access Shared needs memory that another process can map",
        BackingSource.FILE: "the kernel binds no page of a shared file on disk to a host cell",
    }
    if source is None or source not in limits:
        return
    for field, access, huge in _accesses(spec):
        if access is MemoryAccess.SHARED and not (source is BackingSource.FILE and huge):
            yield Violation(
                f"{BACKING}.source",
                source,
                f"{field} is Shared, and {limits[source]}",
                "leave source out or set it to Memfd",
            )


def _discard_needs_a_file(spec: NumaVMSpec) -> Iterator[Violation]:
    """Libvirt drops the wish without a word where memory is no file (measured)."""
    backing = spec.domain.memory.backing
    if backing.source is BackingSource.FILE:
        return
    fields = [(f"{BACKING}.discard", backing.discard)]
    fields += [
        (f"{NUMA}.cells[{index}].discard", cell.discard)
        for index, cell in enumerate(_cells(spec))
        if cell.discard is not None
    ]
    for field, discard in fields:
        if discard is Switch.ENABLED:
            yield Violation(
                field,
                discard,
                "only a file has content to throw away",
                f"leave discard out, or set {BACKING}.source to File",
            )


def _fallbacks_differ(spec: NumaVMSpec) -> Iterator[Violation]:
    for field, hugepages in _hugepages(spec):
        sizes = [hugepages.page_size, *hugepages.fallback]
        for index, size in enumerate(sizes):
            if size in sizes[:index]:
                yield Violation(
                    f"{field}.fallback[{index - 1}]",
                    format_bytes(size),
                    "that size is tried before",
                    "take the entry out",
                )


def _cells(spec: NumaVMSpec) -> Sequence[GuestCell]:
    numa = spec.domain.cpu.numa
    return numa.cells if numa else ()


def _accesses(spec: NumaVMSpec) -> Iterator[tuple[str, MemoryAccess, bool]]:
    """Yield (field, access, in huge pages) of the whole guest or of each cell."""
    whole, vm = spec.domain.memory.backing.access, effective(spec)
    own = {cell.id: (index, cell.access) for index, cell in enumerate(_cells(spec))}
    for cell in vm.cells:
        index, access = own.get(cell.id, (0, None))
        field = f"{BACKING}.access" if access is None else f"{NUMA}.cells[{index}].access"
        yield field, access or whole, cell.page_size > BASE_PAGE


def _hugepages(spec: NumaVMSpec) -> Iterator[tuple[str, HugePages]]:
    if spec.domain.memory.hugepages:
        yield f"{MEMORY}.hugepages", spec.domain.memory.hugepages
    for index, cell in enumerate(_cells(spec)):
        if cell.hugepages:
            yield f"{NUMA}.cells[{index}].hugepages", cell.hugepages


def _page_sizes(spec: NumaVMSpec) -> Iterator[tuple[str, Bytes]]:
    for field, hugepages in _hugepages(spec):
        yield f"{field}.pageSize", hugepages.page_size
        for index, size in enumerate(hugepages.fallback):
            yield f"{field}.fallback[{index}]", size
    for index, device in enumerate(spec.domain.devices.memory):
        if device.hugepages:
            yield (
                f"spec.domain.devices.memory[{index}].hugepages.pageSize",
                device.hugepages.page_size,
            )


def _amounts(spec: NumaVMSpec) -> Iterator[tuple[str, Bytes, HugePages | None]]:
    """Yield (field, memory, huge pages) for every amount that somebody wrote."""
    whole = spec.domain.memory
    if not _cells(spec) and whole.guest is not None:
        yield f"{MEMORY}.guest", whole.guest, whole.hugepages
    for index, cell in enumerate(_cells(spec)):
        yield f"{NUMA}.cells[{index}].memory", cell.memory, cell.hugepages or whole.hugepages


def _rounded_up(memory: Bytes, page_size: Bytes) -> Bytes:
    """Return the next positive multiple of both 1Mi and the page size, powers of two both."""
    unit = max(page_size, MEBIBYTE)
    return Bytes(max(1, -(-memory // unit)) * unit)
