"""How much memory a running guest has: boot memory, modules, balloon; from libvirt's live XML and its figures. Pure.

The guest's own figures are only as good as their stamp: a guest whose driver hangs, or whose balloon gets no
interrupts, leaves the last ones standing for ever (measured). A stale stamp makes them unknown, never values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from lxml import etree

from numavm_api.effective import EffectiveVM
from numavm_api.effective_modules import FILE_BACKED, ModuleKind
from numavm_api.quantity import KIBIBYTE, Bytes
from numavm_api.vm_status import BalloonStatus, ModuleStatus

ALIAS_PREFIX: Final = "ua-mem-"
STALE_PERIODS: Final = 3
STALE_SECONDS: Final = 30
"""Figures older than this, and than three periods, are stale."""


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """What the guest has now."""

    current: Bytes
    modules: tuple[ModuleStatus, ...]
    """By name."""
    balloon: BalloonStatus | None


def memory_figures(
    vm: EffectiveVM,
    domain_xml: str,
    stats: Mapping[str, int],
    *,
    period_seconds: int | None,
    now: float,
) -> MemoryFigures:
    """Return the figures of a running domain.

    Args:
        vm: The spec it was built from, with defaults.
        domain_xml: Its live XML.
        stats: virDomainMemoryStats: KiB by name, and `last_update` in seconds since the epoch.
        period_seconds: How often the guest is asked for its own figures; None: never.
        now: Seconds since the epoch.
    """
    root = etree.fromstring(domain_xml.encode(), etree.XMLParser(resolve_entities=False))
    modules = tuple(sorted(_modules(root), key=lambda one: one.name))
    ram = sum(
        one.current if one.current is not None else one.size
        for one in modules
        if one.model not in FILE_BACKED
    )
    virtio = sum(one.current or 0 for one in modules if one.model == ModuleKind.VIRTIO_MEM)
    balloon = _balloon(root, vm, stats, period_seconds, now)
    without = Bytes(vm.memory + ram)
    current = without if balloon is None else Bytes(balloon.actual + virtio)
    return MemoryFigures(current=current, modules=modules, balloon=balloon)


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


def _balloon(
    root: etree._Element,
    vm: EffectiveVM,
    stats: Mapping[str, int],
    period_seconds: int | None,
    now: float,
) -> BalloonStatus | None:
    device = root.find("devices/memballoon")
    if device is None or device.get("model") == "none" or "actual" not in stats:
        return None
    target = vm.balloon_target or Bytes(
        vm.memory + sum(one.size for one in vm.modules if one.kind is ModuleKind.DIMM)
    )
    stamp = stats.get("last_update", 0)
    stale = period_seconds is not None and now - stamp > max(
        STALE_SECONDS, STALE_PERIODS * period_seconds
    )
    alive = period_seconds is not None and not stale
    guest = {
        name: Bytes(stats[name] * KIBIBYTE)
        for name in ("available", "usable", "unused")
        if alive and name in stats
    }
    return BalloonStatus(
        target=target,
        actual=Bytes(stats["actual"] * KIBIBYTE),
        available=guest.get("available"),
        usable=guest.get("usable"),
        unused=guest.get("unused"),
        last_update=_time(stamp) if stamp else None,
        stale=stale if period_seconds is not None else None,
    )


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
