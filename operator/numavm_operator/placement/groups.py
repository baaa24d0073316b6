"""Hosts grouped by what a kind of request can see of them: one answer serves all hosts of a group.

A request sees what is free in numbers and whether a host is open to VMs like it; labels, names, cores, devices and
single CPUs only where it asks for them. A fleet's groups are kept up to date host by host, and a group that has lost
all its hosts is remembered for a while, since hosts come back to states that they were in.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

from numavm_operator.placement.host import FitKey
from numavm_operator.placement.request import Wanted
from numavm_operator.placement.state import HostState

MAX_GROUPS_PER_HOST: Final = 4
"""Groups remembered per host of the fleet, before those without a host are forgotten."""
MIN_GROUPS: Final = 1000
"""So many are remembered even for a small fleet."""
STALE_NAMES: Final = 2
"""Names in a group's heap per host that is there, before the heap is made anew."""

States = Mapping[str, HostState]


@dataclass(frozen=True, slots=True)
class Sight:
    """What of a host a request can tell apart beside the counts of what is free."""

    labels: tuple[str, ...] = ()
    """Labels of the node that it asks for."""
    name: bool = False
    cores: bool = False
    devices: bool = False
    single_cpus: bool = False
    classes: bool = False

    @classmethod
    def of(cls, wanted: Wanted) -> Sight:
        """Return the sight of requests that want this."""
        nodes = wanted.host.nodes
        terms = [*(nodes.required or ()), *(term for _, term in nodes.preferred)]
        asks = [ask for term in terms for ask in term]
        labels = {label for label, _ in wanted.host.node_selector}
        labels |= {ask.key for ask in asks if not ask.of_name}
        return cls(
            labels=tuple(sorted(labels)),
            name=any(ask.of_name for ask in asks),
            cores=any(way.shape.by_cores for way in wanted.ways),
            devices=any(way.shape.devices for way in wanted.ways),
            single_cpus=any(way.shape.by_hand for way in wanted.ways),
            classes=any(way.shape.classed for way in wanted.ways),
        )

    def kind_of(self, state: HostState) -> FitKey:
        """Return what decides whether a host comes into question, whatever is free there."""
        host = state.host
        if not (self.labels or self.name):
            return host.kind
        labels = host.node.labels or {}
        values = tuple(labels.get(label) for label in self.labels)
        return FitKey.of((host.kind, values, host.name if self.name else None))

    def key_of(self, state: HostState) -> FitKey:
        """Return what all hosts of a group have in common."""
        free = state.fit_key(
            cores=self.cores,
            devices=self.devices,
            single_cpus=self.single_cpus,
            classes=self.classes,
        )
        return FitKey.of((self.kind_of(state), free))


@dataclass(slots=True, eq=False)
class Group:
    """Hosts that are alike to a kind of request."""

    number: int
    kind: int
    """Groups of one kind differ in what is free only."""
    state: HostState
    """Of one of the hosts that were ever in it."""
    names: set[str] = field(default_factory=set)
    _in_order: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Take a host in."""
        self.names.add(name)
        heappush(self._in_order, name)
        if len(self._in_order) > STALE_NAMES * len(self.names):
            self._in_order = list(self.names)
            heapify(self._in_order)

    def first(self, out: Container[str]) -> str | None:
        """Return its first host by name that is not `out`."""
        while self._in_order and self._in_order[0] not in self.names:
            heappop(self._in_order)
        if not self._in_order or self._in_order[0] not in out:
            return self._in_order[0] if self._in_order else None
        return min((name for name in self.names if name not in out), default=None)


@dataclass(slots=True, eq=False)
class Grouping:
    """All hosts of a fleet, by group."""

    sight: Sight
    position: int = 0
    """How much of the fleet's journal is in."""
    groups: dict[int, Group] = field(default_factory=dict)
    """By number."""
    of_host: dict[str, Group] = field(default_factory=dict)
    came: list[Group] = field(default_factory=list)
    """Groups in the order in which they came to have a host, again and again, since it last forgot some."""
    forgot: int = 0
    """How often it has forgotten those that had none."""
    _by_key: dict[FitKey, Group] = field(default_factory=dict)
    _kinds: dict[FitKey, int] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)
    """Of groups and kinds: none is given twice."""

    @classmethod
    def of(cls, states: States, sight: Sight, position: int) -> Grouping:
        """Return the groups of a whole fleet."""
        grouping = cls(sight, position)
        for name in states:
            grouping.refresh(name, states)
        return grouping

    @property
    def overgrown(self) -> bool:
        """Whether it remembers more groups that have no host than it is worth."""
        return len(self.groups) > max(MIN_GROUPS, MAX_GROUPS_PER_HOST * len(self.of_host))

    def forget_empty(self) -> None:
        """Forget the groups that have no host; those that have one count as if they came just now."""
        self._by_key = {key: group for key, group in self._by_key.items() if group.names}
        self.groups = {group.number: group for group in self._by_key.values()}
        self.came = list(self.groups.values())
        self.forgot += 1
        kinds = {group.kind for group in self.came}
        self._kinds = {key: number for key, number in self._kinds.items() if number in kinds}

    def refresh(self, name: str, states: States) -> None:
        """Look at one host again that changed, came or went."""
        before = self.of_host.get(name)
        state = states.get(name)
        if before is not None and state is before.state:
            return
        group = None if state is None else self._group_of(state)
        if group is before:
            return
        if before is not None:
            before.names.discard(name)
            del self.of_host[name]
        if group is not None:
            if not group.names:
                self.came.append(group)
            group.add(name)
            self.of_host[name] = group

    def _group_of(self, state: HostState) -> Group:
        key = self.sight.key_of(state)
        group = self._by_key.get(key)
        if group is None:
            group = Group(next(self._numbers), self._kind_of(state), state)
            self.groups[group.number] = group
            self._by_key[key] = group
        return group

    def _kind_of(self, state: HostState) -> int:
        facts = self.sight.kind_of(state)
        known = self._kinds.get(facts)
        if known is None:
            known = self._kinds[facts] = next(self._numbers)
        return known
