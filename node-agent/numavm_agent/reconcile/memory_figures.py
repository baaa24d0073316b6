"""When a domain's memory figures are read again, and when a new reading is worth telling.

Figures that move enter a status on a change of 1 % and at most once a minute; a balloon that has come to rest is told
at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from numavm_agent.errors import DomainMissing, HypervisorUnavailable, OperationBusy
from numavm_agent.ports import Clock, Hypervisor
from numavm_agent.reconcile.inventory import ManagedDomain
from numavm_agent.verify.memory_figures import MemoryFigures, memory_figures
from numavm_api.effective import effective
from numavm_api.effective_modules import ModuleKind
from numavm_api.numavm import NumaVMSpec

READ_SECONDS: Final = 5.0
TELL_SECONDS: Final = 60.0
_SHARE: Final = 100


@dataclass(frozen=True, slots=True)
class _Known:
    run_id: int
    told: MemoryFigures
    told_at: float
    read_at: float


@dataclass(slots=True)
class FigureReader:
    """Reads figures, and remembers what was told."""

    hypervisor: Hypervisor
    clock: Clock
    _known: dict[str, _Known] = field(default_factory=dict)
    """By the domain's UUID."""

    def of(self, domain: ManagedDomain) -> MemoryFigures | None:
        """Return the figures to tell of a domain; None: it has nothing that moves, or nobody knows."""
        spec = domain.record.spec
        if spec is None or not _has_figures(spec) or not domain.is_whole:
            return None
        uuid, run_id = domain.seen.uuid, domain.seen.run_id
        known = self._known.get(uuid)
        if known is not None and known.run_id != run_id:
            known = None
        now = self.clock.boottime()
        if known is not None and now < known.read_at + READ_SECONDS:
            return known.told
        fresh = self._read(spec, domain)
        if fresh is None:
            return known.told if known else None
        self._known[uuid] = _newer(known, fresh, run_id, now)
        return self._known[uuid].told

    def forget(self, uuid: str) -> None:
        """Let go of a domain that is no longer here."""
        self._known.pop(uuid, None)

    def _read(self, spec: NumaVMSpec, domain: ManagedDomain) -> MemoryFigures | None:
        balloon = spec.domain.memory.balloon
        uuid = domain.seen.uuid
        try:
            xml = self.hypervisor.domain_xml(uuid)
            stats = self.hypervisor.memory_stats(uuid) if balloon else {}
        except (DomainMissing, HypervisorUnavailable, OperationBusy):
            return None  # the next turn sees what is there
        return memory_figures(
            effective(spec),
            xml,
            stats,
            period_seconds=balloon.stats_period_seconds if balloon else None,
            now=self.clock.now(),
        )


def _has_figures(spec: NumaVMSpec) -> bool:
    return spec.domain.memory.balloon is not None or bool(spec.domain.devices.memory)


def _newer(known: _Known | None, fresh: MemoryFigures, run_id: int, now: float) -> _Known:
    if known is None or is_worth_telling(known.told, fresh, seconds=now - known.told_at):
        return _Known(run_id, fresh, now, now)
    return _Known(run_id, known.told, known.told_at, now)


def is_worth_telling(told: MemoryFigures, fresh: MemoryFigures, *, seconds: float) -> bool:
    """Tell whether figures are news after what was told so many seconds ago."""
    came_to_rest = _at_rest(fresh) and not _at_rest(told)
    return came_to_rest or (seconds >= TELL_SECONDS and not _alike(told, fresh))


def _at_rest(figures: MemoryFigures) -> bool:
    balloon = figures.balloon
    return (balloon is None or balloon.actual == balloon.target) and all(
        module.current == module.requested
        for module in figures.modules
        if module.model == ModuleKind.VIRTIO_MEM
    )


def _alike(before: MemoryFigures, now: MemoryFigures) -> bool:
    old, new = _amounts(before), _amounts(now)
    return old.keys() == new.keys() and all(
        abs(old[key] - new[key]) * _SHARE <= max(old[key], new[key]) for key in old
    )


def _amounts(figures: MemoryFigures) -> dict[str, int]:
    amounts = {"current": int(figures.current)}
    for module in figures.modules:
        amounts[f"module {module.name}"] = int(module.current or 0)
    balloon = figures.balloon
    if balloon is not None:
        amounts["actual"] = int(balloon.actual)
        amounts |= {
            name: int(value)
            for name, value in (("usable", balloon.usable), ("unused", balloon.unused))
            if value is not None
        }
    return amounts
