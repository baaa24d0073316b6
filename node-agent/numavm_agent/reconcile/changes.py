"""Which fields of a spec a running domain does not have yet. Pure; both sides are compared with their defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from numavm_api.effective import EffectiveCell, effective
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
        "guest": format_bytes(vm.memory),
        "backing": {
            "source": backing.source,
            "access": backing.access,
            "allocation": backing.allocation,
        },
    }
    if vm.cells_declared:
        cells = [_cell(cell) for cell in vm.cells]
        document["domain"]["cpu"]["numa"] = {"cells": cells}
    elif vm.cells[0].page_size != BASE_PAGE:
        document["domain"]["memory"]["hugepages"] = _hugepages(vm.cells[0])
    return document


def _cell(cell: EffectiveCell) -> dict[str, Any]:
    binding: dict[str, str] = {"mode": cell.mode}
    if cell.host_cells is not None:
        binding |= {"hostCells": str(cell.host_cells)}
    document: dict[str, Any] = {
        "id": cell.id,
        "cpus": str(cell.vcpus),
        "memory": format_bytes(cell.memory),
        "hostBinding": binding,
    }
    if cell.page_size != BASE_PAGE:
        document["hugepages"] = _hugepages(cell)
    return document


def _hugepages(cell: EffectiveCell) -> dict[str, str]:
    return {"pageSize": format_bytes(cell.page_size)}


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
