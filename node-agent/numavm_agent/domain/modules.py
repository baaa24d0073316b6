"""Configurator of memory modules: each bound as its guest cell is, on the host cells where that is placed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lxml import etree

from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.units import kib
from numavm_agent.domain.xml import Element, element
from numavm_api.effective_modules import FILE_BACKED, EffectiveModule, ModuleKind
from numavm_api.placement import PlacedCell, PlacedModule, Placement
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
    for module in given.effective.modules:
        yield module_element(module, _where(module, given.placement))


def module_element(module: EffectiveModule, where: PlacedCell | PlacedModule | None) -> Element:
    """Return the element of one module; the host cells are named, so that it is right also where its cell was moved."""
    return element(
        "memory",
        _source(module, where),
        _target(module),
        element("alias", name=alias_of(module.name)),
        element("address", type_="dimm", slot=module.slot) if module.slot is not None else None,
        model=module.kind.value,
        # What is written must reach the file.
        access="shared" if module.kind in FILE_BACKED else None,
    )


def module_xml(module: EffectiveModule, placement: Placement) -> str:
    """Return the element as text, to plug the module into the running guest."""
    element_of_it = module_element(module, _where(module, placement))
    return etree.tostring(element_of_it, encoding="unicode")


def _where(module: EffectiveModule, placement: Placement) -> PlacedCell | PlacedModule | None:
    """Return what the claim says of a module: its own part, else that of its cell."""
    own = next((one for one in placement.modules if one.name == module.name), None)
    return own or next((cell for cell in placement.cells if cell.id == module.cell), None)


def _source(module: EffectiveModule, where: PlacedCell | PlacedModule | None) -> Element | None:
    if module.path is not None:
        return element(
            "source",
            element("path", module.path),
            _amount("alignsize", module.align_size),
            element("pmem") if module.pmem else None,
        )
    if where is None:
        return None
    return element(
        "source",
        element("pagesize", str(kib(where.page_size)), unit="KiB"),
        element("nodemask", str(where.host_cells)),
    )


def _target(module: EffectiveModule) -> Element:
    return element(
        "target",
        element("size", str(kib(module.size)), unit="KiB"),
        element("node", str(module.cell)) if module.cell is not None else None,
        _label(module),
        _amount("block", module.block),
        _amount("requested", module.requested),
        element("readonly") if module.read_only else None,
    )


def _label(module: EffectiveModule) -> Element | None:
    if module.kind is not ModuleKind.NVDIMM or module.label is None:
        return None
    return element("label", element("size", str(kib(module.label)), unit="KiB"))


def _amount(tag: str, amount: Bytes | None) -> Element | None:
    return element(tag, str(kib(amount)), unit="KiB") if amount is not None else None
