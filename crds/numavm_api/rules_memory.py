"""Rules on memory, page sizes and what backs them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_api.effective import effective
from numavm_api.memory import Allocation, BackingSource, MemoryAccess
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
    )


def _memory_is_named(spec: NumaVMSpec) -> Iterator[Violation]:
    if spec.domain.memory.guest is None and spec.domain.cpu.numa is None:
        yield Violation(
            f"{MEMORY}.guest",
            "nothing",
            "a VM needs memory",
            f"set {MEMORY}.guest, or declare {NUMA}.cells with their memory",
        )


def _guest_is_the_sum_of_its_cells(spec: NumaVMSpec) -> Iterator[Violation]:
    guest, numa = spec.domain.memory.guest, spec.domain.cpu.numa
    if guest is None or numa is None:
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
    for field, memory, page_size in _amounts(spec):
        for unit, name in (
            (Bytes(MEBIBYTE), "1Mi"),
            (page_size, f"its page size {format_bytes(page_size)}"),
        ):
            if memory == 0 or (unit and memory % unit):
                yield Violation(
                    field,
                    format_bytes(memory),
                    f"memory is a positive multiple of {name}",
                    f"use {format_bytes(_rounded_up(memory, unit))}",
                )
                break


def _memory_within_limits(spec: NumaVMSpec) -> Iterator[Violation]:
    total = effective(spec).memory
    if total > MAX_MEMORY:
        yield Violation(
            MEMORY if spec.domain.cpu.numa is None else f"{NUMA}.cells[*].memory",
            format_bytes(total),
            f"a VM has at most {format_bytes(MAX_MEMORY)}",
            "ask for less",
        )


def _huge_pages_fit_their_backing(spec: NumaVMSpec) -> Iterator[Violation]:
    if all(cell.page_size == BASE_PAGE for cell in effective(spec).cells):
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
    backing = spec.domain.memory.backing
    if backing.access is MemoryAccess.SHARED and backing.source is BackingSource.ANONYMOUS:
        yield Violation(
            f"{BACKING}.source",
            backing.source,
            f"{BACKING}.access Shared needs memory that another process can map",
            "leave source out or set it to Memfd",
        )


def _page_sizes(spec: NumaVMSpec) -> Iterator[tuple[str, Bytes]]:
    if spec.domain.memory.hugepages:
        yield f"{MEMORY}.hugepages.pageSize", spec.domain.memory.hugepages.page_size
    numa = spec.domain.cpu.numa
    for index, cell in enumerate(numa.cells if numa else ()):
        if cell.hugepages:
            yield f"{NUMA}.cells[{index}].hugepages.pageSize", cell.hugepages.page_size


def _amounts(spec: NumaVMSpec) -> Iterator[tuple[str, Bytes, Bytes]]:
    """Yield (field, memory, page size) for every amount that somebody wrote."""
    whole = spec.domain.memory
    page_size = whole.hugepages.page_size if whole.hugepages else BASE_PAGE
    numa = spec.domain.cpu.numa
    if numa is None:
        if whole.guest is not None:
            yield f"{MEMORY}.guest", whole.guest, page_size
        return
    for index, cell in enumerate(numa.cells):
        own = cell.hugepages.page_size if cell.hugepages else page_size
        yield f"{NUMA}.cells[{index}].memory", cell.memory, own


def _rounded_up(memory: Bytes, page_size: Bytes) -> Bytes:
    """Return the next positive multiple of both 1Mi and the page size, powers of two both."""
    unit = max(page_size, MEBIBYTE)
    return Bytes(max(1, -(-memory // unit)) * unit)
