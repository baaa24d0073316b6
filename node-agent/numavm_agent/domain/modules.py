"""Configurator of memory modules: each bound as its guest cell is, on the host cells where that is placed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lxml import etree

from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.units import kib
from numavm_agent.domain.xml import Element, element
from numavm_api.effective_modules import FILE_BACKED, EffectiveModule, ModuleKind
from numavm_api.placement import PlacedCell, Placement
from numavm_api.quantity import Bytes

_PREFIX: Final = "ua-mem-"


def alias_of(name: str) -> str:
    """Return what libvirt calls a module: users' aliases begin with `ua-`."""
    return f"{_PREFIX}{name}"


def name_of(alias: str) -> str | None:
    """Return the module that libvirt calls so; None: no module of NumaVM's."""
    return alias.removeprefix(_PREFIX) if alias.startswith(_PREFIX) else None


def memory_modules(given: RenderInput) -> Iterator[Element]:
    """One element per module, by name."""
    placed = {cell.id: cell for cell in given.placement.cells}
    for module in given.effective.modules:
        cell = placed.get(module.cell) if module.cell is not None else None
        yield module_element(module, cell)


def module_element(module: EffectiveModule, cell: PlacedCell | None) -> Element:
    """Return the element of one module; the host cells are named, so that it is right also where its cell was moved."""
    return element(
        "memory",
        _source(module, cell),
        _target(module),
        element("alias", name=alias_of(module.name)),
        element("address", type_="dimm", slot=module.slot) if module.slot is not None else None,
        model=module.kind.value,
        # What is written must reach the file.
        access="shared" if module.kind in FILE_BACKED else None,
    )


def module_xml(module: EffectiveModule, placement: Placement) -> str:
    """Return the element as text, to plug the module into the running guest."""
    placed = {cell.id: cell for cell in placement.cells}
    cell = placed.get(module.cell) if module.cell is not None else None
    return etree.tostring(module_element(module, cell), encoding="unicode")


def _source(module: EffectiveModule, cell: PlacedCell | None) -> Element | None:
    if module.path is not None:
        return element("source", element("path", module.path))
    if cell is None:
        return None
    return element(
        "source",
        element("pagesize", str(kib(cell.page_size)), unit="KiB"),
        element("nodemask", str(cell.host_cells)),
    )


def _target(module: EffectiveModule) -> Element:
    return element(
        "target",
        element("size", str(kib(module.size)), unit="KiB"),
        element("node", str(module.cell)) if module.cell is not None else None,
        _label(module),
        _amount("block", module.block),
        _amount("requested", module.requested),
    )


def _label(module: EffectiveModule) -> Element | None:
    if module.kind is not ModuleKind.NVDIMM or module.label is None:
        return None
    return element("label", element("size", str(kib(module.label)), unit="KiB"))


def _amount(tag: str, amount: Bytes | None) -> Element | None:
    return element(tag, str(kib(amount)), unit="KiB") if amount is not None else None
