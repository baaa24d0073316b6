"""When a domain's memory modules are read again, and when a new reading is worth telling.

Figures that move enter a status on a change of 1 % and at most once a minute; one that has come to rest is told
at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from numavm_agent.errors import DomainMissing, HypervisorUnavailable, OperationBusy
from numavm_agent.ports import Clock, Hypervisor
from numavm_agent.reconcile.inventory import ManagedDomain
from numavm_agent.verify.module_figures import module_figures
from numavm_api.effective_modules import ModuleKind
from numavm_api.vm_status import ModuleStatus

Modules = tuple[ModuleStatus, ...]

READ_SECONDS: Final = 5.0
TELL_SECONDS: Final = 60.0
_SHARE: Final = 100


@dataclass(frozen=True, slots=True)
class _Known:
    run_id: int
    told: Modules
    told_at: float
    fresh: Modules
    read_at: float | None
    """None: to be read again."""


@dataclass(slots=True)
class ModuleReader:
    """Reads modules, and remembers what was told."""

    hypervisor: Hypervisor
    clock: Clock
    _known: dict[str, _Known] = field(default_factory=dict)
    """By the domain's UUID."""

    def of(self, domain: ManagedDomain) -> Modules | None:
        """Return the modules to tell of a domain; None: it has none, or nobody knows."""
        spec = domain.record.spec
        if spec is None or not spec.domain.devices.memory or not domain.is_whole:
            return None
        uuid, run_id = domain.seen.uuid, domain.seen.run_id
        known = self._known.get(uuid)
        if known is not None and known.run_id != run_id:
            known = None
        now = self.clock.boottime()
        read_at = known.read_at if known is not None else None
        if known is not None and read_at is not None and now < read_at + READ_SECONDS:
            return known.told
        fresh = self._read(domain)
        if fresh is None:
            return known.told if known else None
        self._known[uuid] = _newer(known, fresh, run_id, now)
        return self._known[uuid].told

    def lost(self, domain: ManagedDomain) -> bool:
        """Tell whether a domain had lost a module that it should have when it was last looked at."""
        known, spec = self._known.get(domain.seen.uuid), domain.record.spec
        if known is None or spec is None or known.read_at is None:
            return False
        if known.run_id != domain.seen.run_id:
            return False
        here = {module.name for module in known.fresh}
        return any(device.name not in here for device in spec.domain.devices.memory)

    def look_again(self, uuid: str) -> None:
        """Have a domain's modules read again at the next chance."""
        known = self._known.get(uuid)
        if known is not None:
            self._known[uuid] = replace(known, read_at=None)

    def forget(self, uuid: str) -> None:
        """Let go of a domain that is no longer here."""
        self._known.pop(uuid, None)

    def _read(self, domain: ManagedDomain) -> Modules | None:
        try:
            return module_figures(self.hypervisor.domain_xml(domain.seen.uuid))
        except (DomainMissing, HypervisorUnavailable, OperationBusy):
            return None  # the next turn sees what is there


def _newer(known: _Known | None, fresh: Modules, run_id: int, now: float) -> _Known:
    if known is None or is_worth_telling(known.told, fresh, seconds=now - known.told_at):
        return _Known(run_id, fresh, now, fresh, now)
    return _Known(run_id, known.told, known.told_at, fresh, now)


def is_worth_telling(told: Modules, fresh: Modules, *, seconds: float) -> bool:
    """Tell whether figures are news after what was told so many seconds ago."""
    came_to_rest = _at_rest(fresh) and not _at_rest(told)
    others = _asked(told) != _asked(fresh)
    return others or came_to_rest or (seconds >= TELL_SECONDS and not _alike(told, fresh))


def _asked(modules: Modules) -> list[tuple[str, int | None]]:
    """Return which modules there are, and what the guest was told to have of each."""
    return [(module.name, module.requested) for module in modules]


def _at_rest(modules: Modules) -> bool:
    return all(
        module.current == module.requested
        for module in modules
        if module.model == ModuleKind.VIRTIO_MEM
    )


def _alike(before: Modules, now: Modules) -> bool:
    old = {module.name: int(module.current or 0) for module in before}
    new = {module.name: int(module.current or 0) for module in now}
    return old.keys() == new.keys() and all(
        abs(old[key] - new[key]) * _SHARE <= max(old[key], new[key]) for key in old
    )
