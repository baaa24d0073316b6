"""The operator's picture of the world.

Caches, ledger and host watch, kept in step, and who must look again when it changes.

Owns the wiring. Every object enters by `saw` or `wrote`, whether from a watch, a list, or as the
answer to a write; from then on ledger and hosts agree with it. What changed is only ever turned
into keys in the queue and a nudge for the scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from enum import StrEnum
from typing import Any, Final

from numavm_api.numahost import LEASE_PREFIX
from numavm_operator.cache import Store
from numavm_operator.clock import Clock
from numavm_operator.hosts import HostWatch
from numavm_operator.ledger import Ledger
from numavm_operator.objects import (
    Host,
    HostLease,
    Node,
    PriorityClass,
    Vm,
    VmKey,
    read_host,
    read_lease,
    read_node,
    read_priority_class,
    read_vm,
)
from numavm_operator.quotas import Quota, Quotas, read_quota
from numavm_operator.reconcile.world import Claimed, HostView, Reach, Waiting, World

DELETED: Final = "DELETED"


class Kind(StrEnum):
    """What is followed; the values are the resources' plural names."""

    VM = "numavms"
    HOST = "numahosts"
    NODE = "nodes"
    LEASE = "leases"
    PRIORITY_CLASS = "priorityclasses"
    QUOTA = "resourcequotas"


_READERS: Final[Mapping[Kind, Callable[[Mapping[str, Any]], Any]]] = {
    Kind.HOST: read_host,
    Kind.NODE: read_node,
    Kind.LEASE: read_lease,
    Kind.PRIORITY_CLASS: read_priority_class,
    Kind.QUOTA: read_quota,
}


def key_of(kind: Kind, raw: Mapping[str, Any]) -> Hashable:
    """Return the key under which an object of a kind is known."""
    metadata = raw["metadata"]
    if kind in (Kind.VM, Kind.QUOTA):
        return VmKey(metadata["namespace"], metadata["name"])
    return str(metadata["name"])


class Picture:
    """What the operator believes."""

    def __init__(
        self,
        clock: Clock,
        look_at: Callable[[VmKey], None],
        wake_scheduler: Callable[[], None],
        host_reported: Callable[[str], None],
    ) -> None:
        """Begin empty.

        Args:
            clock: For the judgement of Leases.
            look_at: Called with each VM that must be looked at again.
            wake_scheduler: Called when capacity may have appeared.
            host_reported: Called with each host whose NumaHost has changed in whatever way.
        """
        self._host_reported = host_reported
        self._look_at = look_at
        self._wake_scheduler = wake_scheduler
        self.ledger = Ledger(wake_scheduler)
        self.watch = HostWatch(clock)
        self.quotas = Quotas()
        self.vms: Store[VmKey, Vm] = Store(self._vm_changed)
        self.hosts: Store[str, Host] = Store(self._host_changed)
        self.nodes: Store[str, Node] = Store(self._node_changed)
        self.leases: Store[str, HostLease] = Store(self._lease_changed)
        self.priority_classes: Store[str, PriorityClass] = Store(
            lambda _name, _old, _new: self._wake_scheduler()
        )
        self._stores: dict[Kind, Store[Any, Any]] = {
            Kind.VM: self.vms,
            Kind.HOST: self.hosts,
            Kind.NODE: self.nodes,
            Kind.LEASE: self.leases,
            Kind.PRIORITY_CLASS: self.priority_classes,
            Kind.QUOTA: Store(self._quota_changed),
        }
        self._by_uid: dict[str, VmKey] = {}
        self._on_host: dict[str, set[VmKey]] = {}
        self._shown: dict[str, tuple[Reach, bool, bool]] = {}
        self._waiting: dict[VmKey, tuple[str, Waiting]] = {}
        self.complete = False
        """Whether everything was listed once."""
        self.patient = False
        """Whether even hosts that no object names must have had the time to appear."""

    def saw(self, kind: Kind, raw: Mapping[str, Any], *, deleted: bool) -> bool:
        """Take in one object as a watch or a list shows it; tell whether it was news.

        What is known already is not read again: a list of ten thousand objects in which nothing is new costs little.
        """
        metadata = raw["metadata"]
        if kind is Kind.LEASE and not metadata["name"].startswith(LEASE_PREFIX):
            return False
        store, key, version = (
            self._stores[kind],
            key_of(kind, raw),
            int(metadata["resourceVersion"]),
        )
        if deleted:
            return store.remove(key, version)
        known = store.get(key)
        if known is not None and known.resource_version >= version:
            return False
        return store.put(key, read_vm(raw, known) if kind is Kind.VM else _READERS[kind](raw))

    def keep_only(self, kind: Kind, keys: Collection[Hashable], version: int) -> None:
        """Take in that a full list made at `version` had these objects and no others; what was seen later stays."""
        self._stores[kind].keep_only(keys, version)

    def wrote(self, vm: Vm) -> None:
        """Take in a VM as the answer to a write."""
        self.vms.put(vm.key, vm)

    def vm_of(self, uid: str) -> Vm | None:
        """Return the VM of this uid."""
        key = self._by_uid.get(uid)
        return self.vms.get(key) if key is not None else None

    def world(self, key: VmKey) -> World | None:
        """Return all that a decision about a VM is made from, or None where there is no such VM."""
        vm = self.vms.get(key)
        if vm is None:
            return None
        return World(
            vm=vm,
            host=self._host_view(vm.status.node_name),
            claimed=tuple(self._claimed(vm)),
            waiting=self.waiting(vm),
        )

    def waiting(self, vm: Vm) -> Waiting | None:
        """Return the scheduler's last word on this very VM."""
        uid, waiting = self._waiting.get(vm.key, (None, None))
        return waiting if uid == vm.uid else None

    def set_waiting(self, vm: Vm, waiting: Waiting | None) -> bool:
        """Note the scheduler's word on a VM, None where it no longer waits.

        Tell whether that is news.
        """
        before = self.waiting(vm)
        if waiting is None:
            self._waiting.pop(vm.key, None)
        else:
            self._waiting[vm.key] = (vm.uid, waiting)
        return before != waiting

    @property
    def open_for_placement(self) -> bool:
        """Tell whether every host was heard that might hold what no object states (see `hosts`)."""
        if not self.complete:
            return False
        if self.watch.settled:
            return True
        return not self.patient and all(self._heard(host) for host in self.hosts)

    def _heard(self, host: Host) -> bool:
        """Tell whether a host has confirmed its report, or had its time to do so."""
        dead = host.spec.fenced or self.watch.reach(host, host.name) is Reach.UNREACHABLE
        return dead or self.watch.confirmed(host)

    def judge_hosts(self) -> None:
        """Look at the clock: hosts whose Lease ran out become unreachable."""
        for name in {*self.hosts.keys(), *(name for name in self._on_host if name)}:
            self._judge(name)

    def _host_view(self, name: str | None) -> HostView | None:
        if not name:
            return None
        host = self.hosts.get(name)
        return HostView(
            name=name,
            exists=host is not None,
            reach=self.watch.reach(host, name),
            fenced=host is not None and host.spec.fenced,
            boot_id=host.status.boot_id if host is not None else None,
            why_fixed=_why_fixed(host),
            threads_per_core=_threads_per_core(host),
        )

    def _claimed(self, vm: Vm) -> list[Claimed]:
        found = []
        for report in self.ledger.reports_of(vm.uid):
            host = self.hosts.get(report.node_name)
            if host is not None:
                found.append(Claimed(report, self.watch.confirmed(host), host.spec.fenced))
        return found

    def _vm_changed(self, key: VmKey, old: Vm | None, new: Vm | None) -> None:
        self.ledger.vm_changed(old, new)
        self.quotas.vm_changed(key, old, new)
        if old is not None:
            self._by_uid.pop(old.uid, None)
            self._on_host.get(old.status.node_name or "", set()).discard(key)
        if new is not None:
            self._by_uid[new.uid] = key
            self._on_host.setdefault(new.status.node_name or "", set()).add(key)
        else:
            self._waiting.pop(key, None)
        self._look_at(key)

    def _host_changed(self, name: str, old: Host | None, new: Host | None) -> None:
        self._refresh(name)
        self._host_reported(name)
        # A VM is looked at where a claim came or went; other news of a host is for the scheduler.
        for uid, _ in _claims_of(old) ^ _claims_of(new):
            key = self._by_uid.get(uid)
            if key is not None:
                self._look_at(key)
        self._judge(name)

    def _node_changed(self, name: str, old: Node | None, new: Node | None) -> None:
        if _of_node(old) != _of_node(new):
            self._refresh(name)

    def _quota_changed(self, key: VmKey, _old: Quota | None, new: Quota | None) -> None:
        self.quotas.quota_changed(key, new)
        self._wake_scheduler()

    def _lease_changed(self, name: str, _old: HostLease | None, new: HostLease | None) -> None:
        if new is not None:
            self.watch.saw(new)
        self._judge(name.removeprefix(LEASE_PREFIX))

    def _judge(self, name: str) -> None:
        """Where the judgement of a host has changed, tell the ledger, and look at its VMs."""
        host = self.hosts.get(name)
        reach = self.watch.reach(host, name)
        confirmed = host is not None and self.watch.confirmed(host)
        shown = (reach, confirmed, host is not None and host.spec.fenced)
        before = self._shown.get(name)
        if shown == before:
            return
        self._shown[name] = shown
        self._refresh(name)
        self._wake_scheduler()
        for key in self._affected(name, host):
            self._look_at(key)

    def _affected(self, name: str, host: Host | None) -> set[VmKey]:
        keys = set(self._on_host.get(name, ()))
        for claim in host.status.claims if host is not None else ():
            if claim.uid in self._by_uid:
                keys.add(self._by_uid[claim.uid])
        return keys

    def _refresh(self, name: str) -> None:
        host, node = self.hosts.get(name), self.nodes.get(name)
        counts = host is not None and node is not None and host.unreadable is None
        self.ledger.host_changed(
            name,
            host,
            node=node,
            reachable=counts and host is not None and self.watch.confirmed(host),
        )


def _of_node(node: Node | None) -> tuple[object, ...] | None:
    """Return what placement looks at."""
    return None if node is None else (node.labels, node.taints, node.cordoned)


def _threads_per_core(host: Host | None) -> int | None:
    cells = host.status.cells if host is not None else []
    return max((len(cpu.siblings) for cell in cells for cpu in cell.cpus), default=None)


def _why_fixed(host: Host | None) -> str | None:
    able = host.status.capabilities if host is not None else None
    if able is not None and able.memory_moves:
        return None
    unknown = "its agent has not said that it can"
    return (able.memory_moves_message if able is not None else None) or unknown


def _claims_of(host: Host | None) -> set[tuple[str, str]]:
    if host is None:
        return set()
    return {(claim.uid, claim.placement.id) for claim in host.status.claims}
