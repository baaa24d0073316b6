"""What the status says of a guest's balloon: target, what the guest has, its own figures while they are alive. Pure.

Figures that move enter the status on a change of one part in a hundred, the guest's own at most once a minute. What a
guest said of itself is told with its time, and marked as stale once it has not spoken for three periods: then it is no
value of now (measured: the figures of a guest whose driver is gone stand still, and only their time says so).
"""

from __future__ import annotations

from typing import Final

from numavm_agent.ports import BalloonSeen
from numavm_agent.reconcile.live_plan import target_with
from numavm_agent.reconcile.transitions import seconds_of, timestamp
from numavm_api.effective import effective
from numavm_api.effective_modules import ModuleKind
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import Bytes
from numavm_api.vm_status import BalloonStatus, MemoryStatus

STALE_PERIODS: Final = 3
_SHARE: Final = 100
_OWN_SECONDS: Final = 60.0
_GUESTS_OWN: Final = ("available", "usable", "unused")


def target_of(spec: NumaVMSpec) -> Bytes | None:
    """Return what the guest is to have; None: it has no balloon."""
    modules = effective(spec).modules
    return target_with(spec, sum(one.size for one in modules if one.kind is ModuleKind.DIMM))


def balloon_status(
    seen: BalloonSeen | None, spec: NumaVMSpec, before: MemoryStatus | None, *, now: str
) -> BalloonStatus | None:
    """Return what the status says.

    Args:
        seen: What libvirt says now; None: it cannot, and what was said before stands.
        spec: The spec that the domain has.
        before: What the status said.
        now: The time.
    """
    target = target_of(spec)
    said = before.balloon if before is not None else None
    if target is None:
        return None
    if seen is None:
        return said
    fresh = balloon_now(seen, target, spec, now=now)
    return said if said is not None and _is_alike(said, fresh, now) else fresh


def balloon_now(seen: BalloonSeen, target: Bytes, spec: NumaVMSpec, *, now: str) -> BalloonStatus:
    """Return what libvirt and the guest say at this moment, whatever was told before."""
    balloon = spec.domain.memory.balloon
    period = balloon.stats_period_seconds if balloon is not None else None
    if period is None or not seen.last_update:
        return BalloonStatus(target=target, actual=seen.current)
    age = (seconds_of(now) or 0.0) - seen.last_update
    return BalloonStatus(
        target=target,
        actual=seen.current,
        available=seen.available,
        usable=seen.usable,
        unused=seen.unused,
        last_update=timestamp(seen.last_update),
        stale=age > STALE_PERIODS * period,
    )


def _is_alike(said: BalloonStatus, fresh: BalloonStatus, now: str) -> bool:
    """Tell whether nothing worth a write has changed."""
    if (said.target, said.stale) != (fresh.target, fresh.stale):
        return False
    arrived = fresh.actual == fresh.target != said.actual
    if arrived or not _near(said.actual, fresh.actual):
        return False
    spoke = seconds_of(said.last_update)
    is_recent = spoke is not None and (seconds_of(now) or 0.0) < spoke + _OWN_SECONDS
    return is_recent or all(
        _near(getattr(said, name), getattr(fresh, name)) for name in _GUESTS_OWN
    )


def _near(old: Bytes | None, new: Bytes | None) -> bool:
    if old is None or new is None:
        return old == new
    return abs(old - new) * _SHARE <= max(old, new)
