"""Who holds what.

The union of the claims in `status.placement`, those that hosts report, and those just decided.

Owns the placement engine's `Fleet` and keeps it in step with the objects, claim by claim. There is
no other state: a new leader builds the same ledger from the same objects, and where the API server
was restored from a backup, the hosts' reports still say what is busy. A claim leaves the ledger
only when no source names it any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from numavm_api.numahost import HeldClaim
from numavm_api.placement import Placement
from numavm_operator.objects import Host, Node, Vm
from numavm_operator.placement import Fleet, host_from
from numavm_operator.reconcile.world import HostClaim


@dataclass(frozen=True, slots=True)
class Holding:
    """A claim on a host."""

    node_name: str
    placement: Placement


class Ledger:
    """The claims, and the fleet they are held on."""

    def __init__(self, capacity_appeared: Callable[[], None]) -> None:
        self.fleet = Fleet.empty()
        self._capacity_appeared = capacity_appeared
        self._stated: dict[str, Holding] = {}
        self._assumed: dict[str, Holding] = {}
        self._by_host: dict[str, dict[str, HeldClaim]] = {}
        self._reported: dict[str, dict[str, HeldClaim]] = defaultdict(dict)
        self._released: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._fenced: set[str] = set()
        self._highest_epoch = 0

    def vm_changed(self, old: Vm | None, new: Vm | None) -> None:
        """Take in a NumaVM's status, or that it is gone."""
        if old is not None and (new is None or old.uid != new.uid):
            self._state(old.uid, None)
            if not self._reported.get(old.uid):
                self._released.pop(old.uid, None)
        if new is None:
            return
        if old is not None and old.labels != new.labels:
            self._capacity_appeared()  # to VMs that spread from such as it was
        domain = new.status.domain
        if domain is not None and domain.released is not None:
            self._released[new.uid].add((domain.node_name, domain.released))
        node_name, placement = new.status.node_name, new.status.placement
        holding = Holding(node_name, placement) if node_name and placement else None
        self._state(new.uid, holding)
        for name in list(self._reported.get(new.uid, ())):
            self._sync(name, new.uid)

    def host_changed(
        self,
        name: str,
        host: Host | None,
        *,
        node: Node | None,
        reachable: bool,
    ) -> None:
        """Take in a NumaHost, its node and whether it counts, or that it is gone.

        Claims on it are kept.
        """
        before = self.fleet
        fenced = host is not None and host.spec.fenced
        claims = {claim.uid: claim for claim in host.status.claims} if host is not None else {}
        known = self._by_host.get(name, {})
        touched = {uid for uid in known.keys() | claims.keys() if known.get(uid) != claims.get(uid)}
        self._by_host[name] = claims
        if fenced != (name in self._fenced):
            (self._fenced.add if fenced else self._fenced.discard)(name)
            touched |= set(self.fleet.claims(name)) | self._uids_on(name)
        for uid in touched:
            self._report(uid, name, claims.get(uid))
            self._sync(name, uid)
        if host is None:
            self.fleet = self.fleet.without_host(name)
            self._by_host.pop(name, None)
            return
        self._note_epoch(host.status.highest_epoch)
        self.fleet = self.fleet.with_host(
            host_from(
                name,
                host.spec,
                host.status,
                labels=node.labels if node is not None else {},
                taints=node.taints if node is not None else (),
                cordoned=node is not None and node.cordoned,
                reachable=reachable,
            )
        )
        if self.fleet.hosts.get(name) != before.hosts.get(name):
            self._capacity_appeared()

    def assume(self, uid: str, node_name: str, placement: Placement) -> None:
        """Hold a claim that is decided and not yet seen on the API server."""
        self._assumed[uid] = Holding(node_name, placement)
        self._sync(node_name, uid)

    def forget(self, uid: str) -> None:
        """Let go of what was assumed."""
        assumed = self._assumed.pop(uid, None)
        if assumed is not None:
            self._sync(assumed.node_name, uid)

    def released(self, uid: str, node_name: str, placement_id: str) -> None:
        """Note that a host's word on a claim is out of date: its agent had released it."""
        self._released[uid].add((node_name, placement_id))
        self._sync(node_name, uid)

    def reports_of(self, uid: str) -> tuple[HostClaim, ...]:
        """Return what hosts say a VM holds, without what their agents have released since."""
        at = self._reported.get(uid, {})
        return tuple(
            HostClaim(name, claim)
            for name, claim in sorted(at.items())
            if (name, claim.placement.id) not in self._released.get(uid, ())
        )

    @property
    def highest_epoch(self) -> int:
        """The newest epoch that any claim or host was ever seen to know of; asked for at each placement."""
        return self._highest_epoch

    def _note_epoch(self, epoch: int) -> None:
        self._highest_epoch = max(self._highest_epoch, epoch)

    def _state(self, uid: str, holding: Holding | None) -> None:
        before = self._stated.pop(uid, None)
        if holding is not None:
            self._stated[uid] = holding
            self._note_epoch(holding.placement.epoch)
        for node_name in {at.node_name for at in (before, holding) if at is not None}:
            self._sync(node_name, uid)

    def _report(self, uid: str, name: str, claim: HeldClaim | None) -> None:
        if claim is not None:
            self._note_epoch(claim.placement.epoch)
            self._reported[uid][name] = claim
            return
        at = self._reported.get(uid, {})
        at.pop(name, None)
        if not at:
            self._reported.pop(uid, None)
            self._released.pop(uid, None)

    def _uids_on(self, name: str) -> set[str]:
        holdings = [*self._stated.items(), *self._assumed.items()]
        return {uid for uid, holding in holdings if holding.node_name == name}

    def _sources(self, node_name: str, uid: str) -> Iterable[Placement]:
        if node_name in self._fenced:
            return
        for source in (self._stated, self._assumed):
            holding = source.get(uid)
            if holding is not None and holding.node_name == node_name:
                yield from _held(holding.placement)
        for report in self.reports_of(uid):
            if report.node_name == node_name:
                yield from _held(report.claim.placement)

    def _sync(self, node_name: str, uid: str) -> None:
        """Bring the fleet's claims of one VM on one host in step with what the sources say."""
        wanted = {placement.id: placement for placement in self._sources(node_name, uid)}
        held = {placement.id for placement in self.fleet.claims(node_name).get(uid, ())}
        for identity, placement in wanted.items():
            if identity not in held:
                self.fleet = self.fleet.with_claim(node_name, uid, placement)
        for identity in held - set(wanted):
            self.fleet = self.fleet.without_claim(node_name, uid, identity)
            self._capacity_appeared()


def _held(placement: Placement) -> Iterable[Placement]:
    """Return a claim, and the one before it that is still held while a running VM is changed."""
    yield placement.alone
    before = placement.earlier
    if before is not None:
        yield before
