"""How much memory a running guest has in its modules, by libvirt's live XML. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from lxml import etree

from numavm_api.effective_modules import FILE_BACKED, ModuleKind
from numavm_api.quantity import KIBIBYTE, Bytes
from numavm_api.vm_status import BalloonStatus, ModuleStatus

ALIAS_PREFIX: Final = "ua-mem-"


def module_figures(domain_xml: str) -> tuple[ModuleStatus, ...]:
    """Return the modules of a running domain, by name; those that NumaVM did not name are left out."""
    root = etree.fromstring(domain_xml.encode(), etree.XMLParser(resolve_entities=False))
    return tuple(sorted(_modules(root), key=lambda one: one.name))


def memory_now(
    boot: Bytes, modules: Iterable[ModuleStatus], balloon: BalloonStatus | None
) -> Bytes:
    """Return what the guest has: QEMU counts a balloon against boot memory and DIMMs, never against virtio-mem."""
    here = list(modules)
    virtio = sum(one.current or 0 for one in here if one.model == ModuleKind.VIRTIO_MEM)
    if balloon is not None:
        return Bytes(balloon.actual + virtio)
    fixed = (ModuleKind.VIRTIO_MEM, *FILE_BACKED)
    return Bytes(boot + virtio + sum(one.size for one in here if one.model not in fixed))


def _modules(root: etree._Element) -> Iterator[ModuleStatus]:
    for node in root.iterfind("devices/memory"):
        alias = node.find("alias")
        name = (alias.get("name") or "") if alias is not None else ""
        if not name.startswith(ALIAS_PREFIX):
            continue
        cell = node.findtext("target/node")
        yield ModuleStatus(
            name=name.removeprefix(ALIAS_PREFIX),
            model=node.get("model") or "",
            cell=int(cell) if cell else None,
            size=_kib(node, "target/size") or Bytes(0),
            requested=_kib(node, "target/requested"),
            current=_kib(node, "target/current"),
        )


def _kib(node: etree._Element, path: str) -> Bytes | None:
    text = node.findtext(path)
    return Bytes(int(text) * KIBIBYTE) if text else None
