"""Which hosts are alive, judged by when this operator saw their Leases change, on its own clock.

Owns the judgement. A Lease's own timestamps are another machine's clock and are not read. A host
counts only after its Lease changed while this operator leads, and while its NumaHost is known at
least as new as its agent had found it true: so that nothing is placed by a report from before the
API server was restored from a backup, or from before its agent died.
"""

from __future__ import annotations

from dataclasses import dataclass

from numavm_api.numahost import LEASE_PREFIX, LEASE_SECONDS
from numavm_operator.clock import Clock
from numavm_operator.objects import Host, HostLease
from numavm_operator.reconcile.world import Reach


@dataclass(slots=True)
class _Beat:
    mark: str
    changed_at: float | None
    """None: it was found like this, and not seen to change."""
    host_version: int | None
    seconds: float


class HostWatch:
    """Follows the Leases of all hosts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.seconds()
        self._beats: dict[str, _Beat] = {}

    def began_to_lead(self) -> None:
        """Forget everything: what was seen before counts for nothing."""
        self._since = self._clock.seconds()
        self._beats.clear()

    def saw(self, lease: HostLease) -> None:
        """Take in a host's Lease."""
        name = lease.name.removeprefix(LEASE_PREFIX)
        known = self._beats.get(name)
        if known is None:
            self._beats[name] = _Beat(lease.beat, None, lease.host_version, lease.seconds)
        elif known.mark != lease.beat:
            now = self._clock.seconds()
            self._beats[name] = _Beat(lease.beat, now, lease.host_version, lease.seconds)

    def reach(self, host: Host | None, name: str) -> Reach:
        """Return what is known of a host's agent."""
        beat = self._beats.get(name)
        now = self._clock.seconds()
        if host is not None and beat is not None and beat.changed_at is not None:
            fresh = now < beat.changed_at + beat.seconds
            return Reach.REACHABLE if fresh else Reach.UNREACHABLE
        grace = beat.seconds if beat is not None else LEASE_SECONDS
        return Reach.UNDETERMINED if now < self._since + grace else Reach.UNREACHABLE

    def confirmed(self, host: Host) -> bool:
        """Tell whether a host's report is its agent's own word of this leadership.

        Alive, and known as new as its agent has it.
        """
        beat = self._beats.get(host.name)
        return (
            self.reach(host, host.name) is Reach.REACHABLE
            and beat is not None
            and beat.host_version is not None
            and beat.host_version <= host.resource_version
        )

    @property
    def settled(self) -> bool:
        """Tell whether every host that is alive had the time to show it."""
        return self._clock.seconds() >= self._since + LEASE_SECONDS
