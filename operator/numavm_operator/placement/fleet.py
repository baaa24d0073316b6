"""The hosts and what is held on them: immutable, with a memory of what was computed before.

Each step returns a new fleet that shares every host that did not change. What decisions found out about hosts
is remembered by content (`memory`), so that hosts that are alike, and hosts that did not change, are not
computed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from numavm_api.placement import Placement
from numavm_operator.placement.host import Host
from numavm_operator.placement.memory import Lineage
from numavm_operator.placement.state import HostState

_Claims = dict[str, tuple[Placement, ...]]


class Fleet:
    """Hosts and claims. Make one with `Fleet.empty()` and step from there."""

    __slots__ = ("_claims", "_lineage", "_states")

    def __init__(
        self, states: dict[str, HostState], claims: dict[str, _Claims], lineage: Lineage
    ) -> None:
        self._states = states
        self._claims = claims
        self._lineage = lineage

    @classmethod
    def empty(cls) -> Fleet:
        """Return a fleet without hosts."""
        return cls({}, {}, Lineage.of_nothing())

    @property
    def states(self) -> Mapping[str, HostState]:
        """Every known host with what is left of it."""
        return MappingProxyType(self._states)

    @property
    def hosts(self) -> Mapping[str, Host]:
        """Every known host."""
        return {name: state.host for name, state in self._states.items()}

    @property
    def lineage(self) -> Lineage:
        """What was computed for this fleet and those before it."""
        return self._lineage

    def apart(self) -> Fleet:
        """Return the same fleet with a history of its own: what is tried on it leaves no trace on this one's."""
        return Fleet(self._states, self._claims, Lineage.new())

    def claims(self, node_name: str) -> Mapping[str, tuple[Placement, ...]]:
        """Return what is held on a host, known or not, by uid."""
        return MappingProxyType(self._claims.get(node_name, {}))

    def with_host(self, host: Host) -> Fleet:
        """Return the fleet with this host, in the place of another of its name; claims on it stay."""
        known = self._states.get(host.name)
        if known is not None and known.host == host:
            return self
        state = HostState.of(host, self._claims.get(host.name, {}))
        return self._with_state(host.name, state, self._claims)

    def without_host(self, node_name: str) -> Fleet:
        """Return the fleet without this host. Claims on it are kept in mind, for when it comes back."""
        if node_name not in self._states:
            return self
        return self._with_state(node_name, None, self._claims)

    def with_claim(self, node_name: str, uid: str, placement: Placement) -> Fleet:
        """Return the fleet in which `uid` holds `placement` on a host, beside what it holds there already.

        The same claim counts once, however often it is given; of two of the same id that differ, the union is
        held.
        """
        held = self._claims.get(node_name, {}).get(uid, ())
        if placement in held:
            return self
        return self._with_held(node_name, uid, (*held, placement))

    def without_claim(self, node_name: str, uid: str, placement_id: str | None = None) -> Fleet:
        """Return the fleet in which `uid` no longer holds this claim on a host; without an id, none at all."""
        held = self._claims.get(node_name, {}).get(uid, ())
        kept = tuple(
            claim for claim in held if placement_id is not None and claim.id != placement_id
        )
        if len(kept) == len(held):
            return self
        return self._with_held(node_name, uid, kept)

    def _with_held(self, node_name: str, uid: str, held: tuple[Placement, ...]) -> Fleet:
        here = {**self._claims.get(node_name, {}), uid: held}
        if not held:
            del here[uid]
        claims = {**self._claims, node_name: here}
        state = self._states.get(node_name)
        if state is None:
            return Fleet(self._states, claims, self._lineage)
        return self._with_state(node_name, state.with_claims(uid, held), claims)

    def _with_state(
        self, node_name: str, state: HostState | None, claims: dict[str, _Claims]
    ) -> Fleet:
        states = dict(self._states)
        if state is None:
            del states[node_name]
        else:
            states[node_name] = state
        return Fleet(states, claims, self._lineage.after(node_name, states))
