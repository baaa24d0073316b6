"""Rules on what the guest is told of its cells: distances, latencies, bandwidths, memory-side caches.

Limits from outside: libvirt's virDomainNumaDefValidate() and QEMU's parse_numa_hmat_lb() and parse_numa_hmat_cache(); what
only QEMU refuses shows at the start of a VM, too late.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from numavm_api.cpu import LOCAL_DISTANCE, CellDistances, GuestCell
from numavm_api.hmat import Bandwidth, Latency
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import KIBIBYTE, MEBIBYTE, format_bytes
from numavm_api.rules_cells import NUMA, Rule
from numavm_api.violation import Violation

INTERCONNECTS: Final = f"{NUMA}.interconnects"
_TABLE_BITS: Final = 16
_TABLE_MAX: Final = 65534


def numa_rules() -> tuple[Rule, ...]:
    """Return the rules on distances and HMAT."""
    return (
        _distances_name_other_cells,
        _distances_from_one_source,
        _interconnects_name_cells,
        _interconnects_once,
        _one_direction_between_two_cells,
        _bandwidths_fit_their_table,
        _caches_in_levels,
        _caches_have_figures,
    )


def _distances_name_other_cells(spec: NumaVMSpec) -> Iterator[Violation]:
    cells = _cells(spec)
    known = {cell.id for cell in cells}
    for index, cell in enumerate(cells):
        for at, distance in enumerate(cell.distances):
            field = f"{NUMA}.cells[{index}].distances[{at}]"
            if distance.cell not in known:
                yield _unknown_cell(f"{field}.cell", distance.cell, known)
            local = distance.cell == cell.id
            if local != (distance.value == LOCAL_DISTANCE):
                yield Violation(
                    f"{field}.value",
                    str(distance.value),
                    f"a cell's distance to itself is {LOCAL_DISTANCE}, to another 11 to 255",
                    "leave the entry out" if local else "use 11 or more",
                )
            if distance.cell in {one.cell for one in cell.distances[:at]}:
                yield Violation(
                    f"{field}.cell",
                    str(distance.cell),
                    "an earlier entry names the distance to it",
                    "keep one of the two",
                )


def _distances_from_one_source(spec: NumaVMSpec) -> Iterator[Violation]:
    numa = spec.domain.cpu.numa
    if numa is None or numa.distances is CellDistances.DECLARED:
        return
    if any(cell.distances for cell in numa.cells):
        yield Violation(
            f"{NUMA}.distances",
            numa.distances,
            f"{NUMA}.cells[*].distances are declared too",
            "leave one of the two out",
        )


def _interconnects_name_cells(spec: NumaVMSpec) -> Iterator[Violation]:
    cells = {cell.id: cell for cell in _cells(spec)}
    for field, figure in _figures(spec):
        for end, number in (("initiator", figure.initiator), ("target", figure.target)):
            if number not in cells:
                yield _unknown_cell(f"{field}.{end}", number, set(cells))
        initiator, target = cells.get(figure.initiator), cells.get(figure.target)
        if initiator is not None and initiator.cpus is None:
            yield Violation(
                f"{field}.initiator",
                str(figure.initiator),
                "that cell is memory only, and only CPUs access memory",
                "name a cell with CPUs",
            )
        levels = {cache.level for cache in target.caches} if target else set()
        if target is not None and figure.cache_level not in {None, *levels}:
            yield Violation(
                f"{field}.cacheLevel",
                str(figure.cache_level),
                f"cell {target.id} has no memory-side cache of that level",
                "leave cacheLevel out, or add the cache to the cell's caches",
            )


def _interconnects_once(spec: NumaVMSpec) -> Iterator[Violation]:
    seen: set[tuple[object, ...]] = set()
    for field, figure in _figures(spec):
        key = (type(figure), figure.initiator, figure.target, figure.cache_level, figure.type)
        if key in seen:
            yield Violation(
                field,
                f"{figure.initiator} -> {figure.target}, {figure.type}",
                "an earlier entry is for the same accesses",
                "keep one of the two",
            )
        seen.add(key)


def _one_direction_between_two_cells(spec: NumaVMSpec) -> Iterator[Violation]:
    """Libvirt: "Link already defined" where both cells are initiators of each other (virDomainNumaDefValidate)."""
    ways: set[tuple[int, int]] = set()
    for field, figure in _figures(spec):
        initiator, target = figure.initiator, figure.target
        if initiator != target and (target, initiator) in ways:
            yield Violation(
                field,
                f"{initiator} -> {target}",
                f"an earlier entry is for {target} -> {initiator}, and libvirt takes one direction between two cells",
                "keep the entries of one direction",
            )
        ways.add((initiator, target))


def _bandwidths_fit_their_table(spec: NumaVMSpec) -> Iterator[Violation]:
    """The table has 16 bits per figure, all in multiples of one power of two (ACPI 6.5, 5.2.29.4)."""
    numa = spec.domain.cpu.numa
    bandwidths = numa.interconnects.bandwidths if numa and numa.interconnects else []
    tables: dict[tuple[object, ...], int] = {}
    for index, one in enumerate(bandwidths):
        field, amount = f"{INTERCONNECTS}.bandwidths[{index}].bytesPerSecond", one.bytes_per_second
        if amount == 0 or amount % MEBIBYTE:
            limit = "a bandwidth is a positive multiple of 1Mi"
            yield Violation(field, format_bytes(amount), limit, "round it to a multiple of 1Mi")
            continue
        bits = tables.get((one.cache_level, one.type), 0) | amount
        tables[one.cache_level, one.type] = bits
        base = bits & -bits
        if (bits // base).bit_length() > _TABLE_BITS or amount // base > _TABLE_MAX:
            yield Violation(
                field,
                format_bytes(amount),
                f"with the other bandwidths of type {one.type} it does not fit a table of 16 bits in steps of {format_bytes(base)}",
                "round the bandwidths to multiples of a larger step, such as 1Gi",
            )


def _caches_in_levels(spec: NumaVMSpec) -> Iterator[Violation]:
    for index, cell in enumerate(_cells(spec)):
        field = f"{NUMA}.cells[{index}].caches"
        levels = sorted(cache.level for cache in cell.caches)
        if levels != list(range(1, len(levels) + 1)):
            yield Violation(
                f"{field}[*].level",
                ", ".join(map(str, levels)),
                "levels run from 1 without gaps, each once",
                "renumber the caches",
            )
        sizes = [cache.size for cache in sorted(cell.caches, key=lambda cache: cache.level)]
        if any(size == 0 or size % KIBIBYTE for size in sizes):
            limit = "a cache has a positive number of whole KiB"
            yield Violation(f"{field}[*].size", _texts(sizes), limit, "round the sizes up")
        elif sizes != sorted(set(sizes)):
            yield Violation(
                f"{field}[*].size",
                _texts(sizes),
                "each level is larger than the one before",
                "give the caches growing sizes",
            )


def _caches_have_figures(spec: NumaVMSpec) -> Iterator[Violation]:
    """QEMU: "the latency and bandwidth information should be provided before memory side cache attributes"."""
    figures = [figure for _, figure in _figures(spec)]
    for index, cell in enumerate(_cells(spec)):
        kinds = {type(figure) for figure in figures if figure.target == cell.id}
        missing = [
            name
            for kind, name in ((Latency, "latencies"), (Bandwidth, "bandwidths"))
            if kind not in kinds
        ]
        if cell.caches and missing:
            yield Violation(
                f"{NUMA}.cells[{index}].caches",
                f"{len(cell.caches)} caches",
                f"{' and '.join(missing)} with target {cell.id} are missing, and QEMU takes no cache without",
                f"add them to {INTERCONNECTS}",
            )


def _cells(spec: NumaVMSpec) -> Sequence[GuestCell]:
    numa = spec.domain.cpu.numa
    return numa.cells if numa else ()


def _figures(spec: NumaVMSpec) -> Iterator[tuple[str, Latency | Bandwidth]]:
    numa = spec.domain.cpu.numa
    if numa is None or numa.interconnects is None:
        return
    for index, latency in enumerate(numa.interconnects.latencies):
        yield f"{INTERCONNECTS}.latencies[{index}]", latency
    for index, bandwidth in enumerate(numa.interconnects.bandwidths):
        yield f"{INTERCONNECTS}.bandwidths[{index}]", bandwidth


def _unknown_cell(field: str, number: int, known: set[int]) -> Violation:
    cells = ", ".join(map(str, sorted(known))) or "none"
    return Violation(field, str(number), f"the VM has the cells {cells}", "name one of them")


def _texts(sizes: Sequence[int]) -> str:
    return ", ".join(map(format_bytes, sizes))
