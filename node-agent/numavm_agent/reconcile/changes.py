"""Which fields of a spec a running domain does not have yet. Pure; both sides are compared with their defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from numavm_agent.reconcile.device_changes import device_memory, with_device_defaults
from numavm_api.backing import Switch
from numavm_api.cpu import CellDistances
from numavm_api.effective import EffectiveCell, EffectiveVM, effective
from numavm_api.hmat import Bandwidth, Interconnects, Latency
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import BASE_PAGE, format_bytes

APPLIED_LIVE: Final = frozenset(
    {"runStrategy", "terminationGracePeriodSeconds", "restartToken", "priorityClassName"}
)
"""Fields of the spec that take effect without a restart."""
_NOTHING: Final = "nothing"
_NAMED_BY: Final = ("name", "id")
"""What an entry of a list is called by, so that re-ordering a list is no change."""


def pending_changes(running: NumaVMSpec, wanted: NumaVMSpec) -> list[str]:
    """Return every field that differs, as `spec.path: old -> new`, in the order of the fields' paths."""
    old, new = dict(_leaves(running)), dict(_leaves(wanted))
    paths = sorted(old.keys() | new.keys())
    return [
        f"spec.{path}: {old.get(path, _NOTHING)} -> {new.get(path, _NOTHING)}"
        for path in paths
        if old.get(path, _NOTHING) != new.get(path, _NOTHING)
    ]


def _leaves(spec: NumaVMSpec) -> Iterator[tuple[str, str]]:
    for field, value in _with_defaults(spec).items():
        if field not in APPLIED_LIVE:
            yield from _flatten(field, value)


def _with_defaults(spec: NumaVMSpec) -> dict[str, Any]:
    """Return the spec with the defaults of its models and those across fields: a default written out is no change."""
    document = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    vm = effective(spec)
    backing = vm.backing
    document["domain"]["memory"] = {
        **device_memory(spec, vm),
        "guest": format_bytes(vm.memory),
        "backing": {
            **document["domain"]["memory"]["backing"],
            "source": backing.source,
            "locked": backing.locked,
        },
    }
    with_device_defaults(document["domain"], spec, vm)
    ways = ("maxSockets", "vcpus", "onlineVcpus", "pinning", "realtime")
    cpu = {key: part for key, part in document["domain"]["cpu"].items() if key not in ways}
    document["domain"]["cpu"] = cpu | _cpus(spec, vm)
    if vm.cells_declared:
        document["domain"]["cpu"]["numa"] = _numa(spec, vm)
    elif vm.cells[0].page_size != BASE_PAGE:
        document["domain"]["memory"]["hugepages"] = _hugepages(vm.cells[0])
    return document


def _cpus(spec: NumaVMSpec, vm: EffectiveVM) -> dict[str, Any]:
    """Return the parts of `cpu` that can be said in several ways, each in one."""
    cpu = spec.domain.cpu
    document: dict[str, Any] = {}
    if cpu.all_sockets != cpu.sockets:
        document["maxSockets"] = cpu.all_sockets
    elif vm.online_vcpus is not None:
        document["onlineVcpus"] = str(vm.online_vcpus)
    if cpu.pinning is not None:
        pins = {str(vcpu): str(cpus) for vcpu, cpus in vm.vcpu_candidates.items()}
        emulator = {"emulator": str(vm.emulator_candidates)} if vm.emulator_candidates else {}
        threads = {str(number): str(cpus) for number, cpus in vm.io_thread_candidates.items()}
        document["pinning"] = {"vcpus": pins, "ioThreads": threads, **emulator}
    if vm.realtime is not None:
        document["realtime"] = {"mask": str(vm.realtime.vcpus), "priority": vm.realtime.priority}
    return document


def _numa(spec: NumaVMSpec, vm: EffectiveVM) -> dict[str, Any]:
    document: dict[str, Any] = {"cells": [_cell(cell) for cell in vm.cells]}
    if vm.derived_cells is not None:
        cells = vm.derived_cells.count or "the fewest"
        document["guestMappingPassthrough"] = {"cells": cells}
    elif vm.distances_from_host:
        document["distances"] = CellDistances.FROM_HOST
    if vm.distances is not None:
        document["distances"] = {f"{a}->{b}": value for (a, b), value in vm.distances.items()}
    numa = spec.domain.cpu.numa
    if numa is not None and numa.interconnects is not None:
        document["interconnects"] = _interconnects(numa.interconnects)
    return document


def _interconnects(links: Interconnects) -> dict[str, Any]:
    """Return each figure by what it is of: their order means nothing."""
    return {
        name: {_accesses(figure): figure.model_dump(mode="json") for figure in figures}
        for name, figures in (("latencies", links.latencies), ("bandwidths", links.bandwidths))
    }


def _accesses(figure: Latency | Bandwidth) -> str:
    level = f" level {figure.cache_level}" if figure.cache_level else ""
    return f"{figure.initiator}->{figure.target} {figure.type}{level}"


def _cell(cell: EffectiveCell) -> dict[str, Any]:
    binding: dict[str, str] = {"mode": cell.mode}
    if cell.host_cells is not None:
        binding |= {"hostCells": str(cell.host_cells)}
    document: dict[str, Any] = {
        "id": cell.id,
        "cpus": str(cell.vcpus) or "none",
        "memory": format_bytes(cell.memory),
        "hostBinding": binding,
        "access": cell.access,
        "discard": Switch.ENABLED if cell.discard else Switch.DISABLED,
        "caches": {
            str(cache.level): cache.model_dump(mode="json", by_alias=True) for cache in cell.caches
        },
    }
    if cell.page_size != BASE_PAGE:
        document["hugepages"] = _hugepages(cell)
    return document


def _hugepages(cell: EffectiveCell) -> dict[str, str]:
    sizes = {"pageSize": format_bytes(cell.page_size)}
    if cell.fallback_page_sizes:
        sizes["fallback"] = ", ".join(map(format_bytes, cell.fallback_page_sizes))
    return sizes


def _flatten(path: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - JSON is any value
    match value:
        case dict():
            for key, inner in value.items():
                yield from _flatten(f"{path}.{key}", inner)
        case list():
            for index, inner in enumerate(value):
                yield from _flatten(f"{path}[{_name_of(inner, index)}]", inner)
        case _:
            yield path, str(value)


def _name_of(entry: Any, index: int) -> str:  # noqa: ANN401 - JSON is any value
    if isinstance(entry, dict):
        for key in _NAMED_BY:
            if key in entry:
                return str(entry[key])
    return str(index)
