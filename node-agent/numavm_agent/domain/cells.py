"""Configurator's parts of guest cells: what is in each, and what the guest is told of the ways between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.units import kib
from numavm_agent.domain.xml import Element, element
from numavm_api.backing import MemoryAccess
from numavm_api.cpu import LOCAL_DISTANCE, REMOTE_DISTANCE
from numavm_api.effective import EffectiveCell
from numavm_api.hmat import (
    AccessType,
    Bandwidth,
    CacheAssociativity,
    CachePolicy,
    Interconnects,
    Latency,
    MemorySideCache,
)
from numavm_api.placement import PlacedCell
from numavm_api.quantity import KIBIBYTE

_NEXT_DISTANCE: Final = LOCAL_DISTANCE + 1
"""libvirt takes no smaller one between two cells, be they on one host cell."""
_ASSOCIATIVITIES: Final = {
    CacheAssociativity.NONE: "none",
    CacheAssociativity.DIRECT: "direct",
    CacheAssociativity.FULL: "full",
}
_POLICIES: Final = {
    CachePolicy.NONE: "none",
    CachePolicy.WRITEBACK: "writeback",
    CachePolicy.WRITETHROUGH: "writethrough",
}
_TYPES: Final = {
    AccessType.ACCESS: "access",
    AccessType.READ: "read",
    AccessType.WRITE: "write",
}
_KINDS: Final = list(AccessType)


def numa(given: RenderInput) -> Element:
    """Guest cells and interconnects.

    Every vCPU is in a cell: libvirt puts others into cell 0 (measured).
    """
    distances = _distances(given)
    links = _interconnects(given)
    return element(
        "numa",
        *(_cell(given, cell, placed, distances) for cell, placed in given.cells),
        _links(links) if links else None,
    )


def _cell(
    given: RenderInput,
    cell: EffectiveCell,
    placed: PlacedCell,
    distances: Mapping[tuple[int, int], int] | None,
) -> Element:
    return element(
        "cell",
        _siblings(given, cell, distances) if distances else None,
        *(_cache(cache) for cache in _caches(given, cell, placed)),
        id_=cell.id,
        cpus=str(cell.vcpus) if cell.vcpus else None,
        memory=kib(cell.memory),
        unit="KiB",
        memAccess=_access(given, cell),
        discard="yes" if cell.discard else None,
    )


def _access(given: RenderInput, cell: EffectiveCell) -> str | None:
    """Return the word for a cell whose access is not the domain's.

    Beside anonymous memory libvirt takes the word, whatever it says, for a wish to keep guest memory
    in a file on disk (measured); there every cell has the domain's.
    """
    if cell.access is given.domain_access:
        return None
    return "shared" if cell.access is MemoryAccess.SHARED else "private"


def _distances(given: RenderInput) -> Mapping[tuple[int, int], int] | None:
    """Return the whole matrix; None: the guest sees 10 and 20 anyway."""
    vm = given.effective
    if not vm.distances_from_host:
        return vm.distances
    if len(vm.cells) == 1:
        return None
    return {
        (here.id, there.id): _host_distance(given, here, there)
        for _, here in given.cells
        for _, there in given.cells
    }


def _host_distance(given: RenderInput, here: PlacedCell, there: PlacedCell) -> int:
    """Return the largest distance between the host cells of two guest cells."""
    if here.id == there.id:
        return LOCAL_DISTANCE
    known = [
        given.host.distances.get(one, {}).get(other, REMOTE_DISTANCE)
        for one in here.host_cells
        for other in there.host_cells
    ]
    return max(_NEXT_DISTANCE, *known)


def _siblings(
    given: RenderInput, cell: EffectiveCell, distances: Mapping[tuple[int, int], int]
) -> Element:
    return element(
        "distances",
        *(
            element("sibling", id_=other.id, value=distances[cell.id, other.id])
            for other in given.effective.cells
        ),
    )


def _caches(
    given: RenderInput, cell: EffectiveCell, placed: PlacedCell
) -> tuple[MemorySideCache, ...]:
    """Return the declared caches; of a derived cell, those of its host cell where it has figures, too."""
    if given.effective.derived_cells is None:
        return cell.caches
    figures = given.host.figures.get(placed.host_cells.first())
    has_both = figures is not None and any(_host_figures(given, placed))
    return tuple(figures.caches) if figures is not None and has_both else ()


def _cache(cache: MemorySideCache) -> Element:
    return element(
        "cache",
        element("size", value=cache.size // KIBIBYTE, unit="KiB"),
        element("line", value=cache.line_bytes, unit="B"),
        level=cache.level,
        associativity=_ASSOCIATIVITIES[cache.associativity],
        policy=_POLICIES[cache.policy],
    )


def _interconnects(given: RenderInput) -> Interconnects | None:
    if given.effective.derived_cells is None:
        numa = given.spec.domain.cpu.numa
        return numa.interconnects if numa else None
    every = [figure for _, placed in given.cells for figure in _host_figures(given, placed)]
    ends = {(figure.initiator, figure.target) for figure in every}
    # libvirt takes one direction between two cells ("Link already defined").
    found = [
        figure
        for figure in every
        if figure.initiator <= figure.target or (figure.target, figure.initiator) not in ends
    ]
    if not found:
        return None
    return Interconnects(
        latencies=[one for one in found if isinstance(one, Latency)],
        bandwidths=[one for one in found if isinstance(one, Bandwidth)],
    )


def _host_figures(given: RenderInput, target: PlacedCell) -> Iterator[Latency | Bandwidth]:
    """Yield what the host's HMAT says of a guest cell's host cell, seen from the guest's cells."""
    figures = given.host.figures.get(target.host_cells.first())
    if figures is None:
        return
    timed = (
        (AccessType.READ, figures.read_latency_nanoseconds, figures.read_bytes_per_second),
        (AccessType.WRITE, figures.write_latency_nanoseconds, figures.write_bytes_per_second),
    )
    for cell, placed in given.cells:
        if not cell.vcpus or placed.host_cells.first() not in figures.initiators:
            continue
        for kind, latency, bandwidth in timed:
            if latency and bandwidth:
                ends = {"initiator": cell.id, "target": target.id, "type": kind}
                yield Latency.model_validate({**ends, "latencyNanoseconds": latency})
                yield Bandwidth.model_validate({**ends, "bytesPerSecond": bandwidth})


def _links(links: Interconnects) -> Element:
    """Latencies, then bandwidths, each in the order of their ends: the spec's order means nothing."""
    return element(
        "interconnects",
        *(
            element("latency", **_ends(one), value=one.latency_nanoseconds)
            for one in sorted(links.latencies, key=_order)
        ),
        *(
            element("bandwidth", **_ends(one), value=kib(one.bytes_per_second), unit="KiB")
            for one in sorted(links.bandwidths, key=_order)
        ),
    )


def _order(figure: Latency | Bandwidth) -> tuple[int, ...]:
    kind = _KINDS.index(figure.type)
    return (figure.initiator, figure.target, figure.cache_level or 0, kind)


def _ends(figure: Latency | Bandwidth) -> dict[str, str | int | None]:
    return {
        "initiator": figure.initiator,
        "target": figure.target,
        "cache": figure.cache_level,
        "type_": _TYPES[figure.type],
    }
