"""The level loop: look at everything, decide, act, report; then wait for a hint or for the period to pass.

Nothing here depends on having seen a change happen. The loop may start anew at any moment, on any state, and converges.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from numavm_agent.errors import HypervisorUnavailable
from numavm_agent.metrics import Watched
from numavm_agent.ports import HostObject, UnreadableVm, VmObject
from numavm_agent.pulse import GuestNow, TurnResult
from numavm_agent.reconcile.decide import Owner
from numavm_agent.reconcile.host_probe import HostProbe, Qemu
from numavm_agent.reconcile.host_report import HostView
from numavm_agent.reconcile.host_state import HostNow, cells_now, own_resident
from numavm_agent.reconcile.inventory import Inventory, InventoryReader, ManagedDomain
from numavm_agent.reconcile.keeping import Keeper
from numavm_agent.reconcile.memory import VmMemory
from numavm_agent.reconcile.other_users import OtherUsersReader
from numavm_agent.reconcile.reporting import Reporter
from numavm_agent.reconcile.tools import Tools
from numavm_agent.reconcile.unlisted import UnlistedDomains
from numavm_agent.reconcile.vms import VmReconciler
from numavm_agent.topology.allocatable import NO_PROMISE
from numavm_agent.topology.readings import HostTopology
from numavm_api.cpuset import CpuSet
from numavm_api.errors import NumaVMError
from numavm_api.numahost import HeldClaim, HostCell
from numavm_api.placement import Placement

_COALESCE_SECONDS: Final = 0.02
"""Hints come in bursts."""


@dataclass(slots=True)
class Desired:
    """What the API server wants of this node, as of its last answer."""

    vms: dict[str, VmObject] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()
    host: HostObject | None = None


class Agent:
    """The agent of one node."""

    def __init__(
        self,
        tools: Tools,
        probe: HostProbe,
        wake: threading.Event,
        period_seconds: float,
        watched: Watched,
    ) -> None:
        self._tools = tools
        self._probe = probe
        self._wake = wake
        self._period = period_seconds
        self._watched = watched
        self._stopping = threading.Event()
        self._inventory = InventoryReader(tools.hypervisor, tools.reader, tools.clock)
        keeper = Keeper(tools)
        self._vms = VmReconciler(tools, self._inventory, keeper)
        self._unlisted = UnlistedDomains(tools, keeper)
        self._reporter = Reporter(tools, period_seconds)
        self._others = OtherUsersReader(tools.kubelet, tools.clock)
        self._desired = Desired()
        self._cells: list[HostCell] = []
        self._highest_epoch = 0

    def stop(self) -> None:
        """Have `run` return after the turn under way; guests go on."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Turn until stopped."""
        while not self._stopping.is_set():
            self._wake.clear()
            self._guarded_turn()
            if self._wake.wait(self._period):
                self._stopping.wait(_COALESCE_SECONDS)

    def _guarded_turn(self) -> None:
        pulse = self._watched.pulse
        pulse.began()
        result = TurnResult.ERROR
        with self._watched.metrics.turn_seconds.time():
            try:
                result = self.turn()
            except NumaVMError as error:
                self._tools.log.warning("turn_failed", error=str(error))
            except Exception:
                # The edge of the loop: a mistake in one turn must not end the agent of a host full of guests.
                self._tools.log.exception("turn_failed_unexpectedly")
        pulse.turned(result)

    def turn(self) -> TurnResult:
        """Look at everything once, and do what is next for each VM."""
        for done in self._tools.workers.take_done():
            self._vms.absorb(done)
        is_fresh = self._read_desired()
        topology = self._tools.reader.topology()
        try:
            qemu = self._probe.result()
            inventory = self._inventory.read(_online(topology))
        except HypervisorUnavailable as error:
            self._without_libvirt(error, is_fresh=is_fresh)
            return TurnResult.LIBVIRT_UNAVAILABLE
        self._vms.note_ends(self._tools.hypervisor.take_ends())
        self._vms.note_device_news(self._tools.hypervisor.take_device_news())
        if self._desired.host is None:
            return (
                TurnResult.API_UNAVAILABLE
            )  # never yet reached: nothing to decide by, nobody to tell
        unlisted = self._unlisted_of(inventory)
        owners = self._unlisted.owners(unlisted) if is_fresh else {}
        host = self._host_now(self._desired.host, topology, inventory, qemu, owners)
        host = self._step_vms(inventory, host, is_fresh=is_fresh)
        self._step_unlisted(unlisted, owners, host)
        self._watched.pulse.runs(self._guests(inventory))
        if not is_fresh:
            return TurnResult.API_UNAVAILABLE
        self._report(host, inventory)
        return TurnResult.OK

    def _guests(self, inventory: Inventory) -> Iterator[GuestNow]:
        for uid, domain in inventory.managed.items():
            known = self._vms.memory.get(uid)
            settled = known.settled if known is not None else None
            yield GuestNow(
                namespace=domain.record.namespace,
                name=domain.record.name,
                uuid=uid,
                pid=domain.pid,
                placement=domain.record.placement,
                numa=settled.verdict.numa if settled is not None else None,
            )

    def _read_desired(self) -> bool:
        """Ask the API server; False: it does not answer, and what it said last still holds."""
        api = self._tools.api
        try:
            listed = api.list_vms()
            host = api.get_host()
        except NumaVMError as error:
            self._tools.log.warning("api_unavailable", error=str(error))
            return False
        unreadable = [vm for vm in listed if isinstance(vm, UnreadableVm)]
        for vm in unreadable:
            self._tools.log.error("vm_unreadable", uid=vm.uid, error=vm.error)
        self._desired = Desired(
            vms={vm.uid: vm for vm in listed if isinstance(vm, VmObject)},
            unreadable=frozenset(vm.uid for vm in unreadable),
            host=host,
        )
        return True

    def _without_libvirt(self, error: HypervisorUnavailable, *, is_fresh: bool) -> None:
        self._tools.log.warning("libvirt_unavailable", error=str(error))
        if is_fresh and self._desired.host is not None:
            self._desired.host = self._reporter.host_without_libvirt(self._desired.host, str(error))
            self._reporter.lease(self._desired.host)

    def _unlisted_of(self, inventory: Inventory) -> dict[str, ManagedDomain]:
        listed = self._desired.vms.keys() | self._desired.unreadable
        return {uid: one for uid, one in inventory.managed.items() if uid not in listed}

    def _host_now(
        self,
        on_server: HostObject,
        topology: HostTopology,
        inventory: Inventory,
        qemu: Qemu | None,
        owners: Mapping[str, Owner],
    ) -> HostNow:
        memory = self._vms.memory
        settled = {uid: one.settled for uid, one in memory.items() if one.settled is not None}
        starting = {uid: one.starting for uid, one in memory.items() if one.starting is not None}
        is_changing = bool(starting) or any(
            not domain.is_whole or domain.record.target is not None
            for domain in inventory.managed.values()
        )
        others = self._others.read(inventory.foreign_cpus, on_server.status)
        self._cells = cells_now(
            topology,
            on_server.spec,
            own_resident(inventory.managed.values(), settled, self._tools.reader),
            self._cells or on_server.status.cells,
            changing=is_changing,
            promised=others.kubelet.promised() if others.kubelet else NO_PROMISE,
        )
        claims = self._claims(inventory, owners)
        self._highest_epoch = max(
            self._highest_epoch,
            on_server.status.highest_epoch,
            *(claim.placement.epoch for claim in claims),
            *(
                vm.status.placement.epoch
                for vm in self._desired.vms.values()
                if vm.status.placement
            ),
        )
        return HostNow(
            spec=on_server.spec,
            topology=topology,
            cells=self._cells,
            others=others,
            claims=tuple(claims),
            starting=starting,
            highest_epoch=self._highest_epoch,
            qemu=qemu,
            foreign_devices=inventory.foreign_devices,
        )

    def _claims(self, inventory: Inventory, owners: Mapping[str, Owner]) -> list[HeldClaim]:
        """Return what is held: by domains, by their own word, and by starts under way."""
        claims = {
            uid: HeldClaim(
                uid=uid,
                namespace=domain.record.namespace,
                name=domain.record.name,
                orphan=owners.get(uid) is Owner.MISSING,
                placement=self._held(uid, domain),
            )
            for uid, domain in inventory.managed.items()
        }
        for uid, memory in self._vms.memory.items():
            vm = self._desired.vms.get(uid)
            if memory.starting is not None and vm is not None:
                claims.setdefault(
                    uid,
                    HeldClaim(
                        uid=uid, namespace=vm.namespace, name=vm.name, placement=memory.starting
                    ),
                )
        return list(claims.values())

    def _held(self, uid: str, domain: ManagedDomain) -> Placement:
        """Return what a domain holds: by its own word, and what is about to be written there."""
        memory = self._vms.memory.get(uid)
        changing = memory.changing if memory is not None else None
        return changing or domain.record.held

    def _step_vms(self, inventory: Inventory, host: HostNow, *, is_fresh: bool) -> HostNow:
        """One VM after the other, in the order of their names, so that admission is one at a time and repeatable."""
        by_name = sorted(self._desired.vms.values(), key=lambda vm: (vm.namespace, vm.name))
        for vm in by_name:
            domain = inventory.managed.get(vm.uid)
            if domain is None and not is_fresh:
                continue  # nothing is started or released on an old word
            try:
                host = self._vms.step(vm, domain, host)
            except HypervisorUnavailable:
                raise
            except NumaVMError as error:
                self._tools.log.warning("step_failed", uid=vm.uid, error=str(error))
        return host

    def _step_unlisted(
        self, unlisted: Mapping[str, ManagedDomain], owners: Mapping[str, Owner], host: HostNow
    ) -> None:
        for uid, domain in unlisted.items():
            owner = owners.get(uid, Owner.UNKNOWN)
            memory = self._vms.memory.setdefault(uid, VmMemory())
            self._unlisted.step(domain, owner, memory, host)
            if owner is Owner.MISSING and self._desired.host is not None:
                self._unlisted.tell_orphan(domain, self._desired.host.uid)

    def _report(self, host: HostNow, inventory: Inventory) -> None:
        on_server = self._desired.host
        if on_server is None:
            return
        view = HostView(
            agent_version=self._tools.version,
            generation=on_server.generation,
            spec=host.spec,
            topology=host.topology,
            cells=host.cells,
            pools=host.pools,
            others=host.others,
            claims=host.claims,
            highest_epoch=host.highest_epoch,
            qemu=host.qemu,
            why_fixed=self._tools.rehome.memory.why_fixed(),
        )
        self._desired.host = self._reporter.host(view, on_server)
        self._reporter.lease(self._desired.host)
        for uid, vm in self._desired.vms.items():
            self._reporter.vm(vm, self._vms.view(vm, inventory.managed.get(uid)))
        self._forget(inventory)

    def _forget(self, inventory: Inventory) -> None:
        here = self._desired.vms.keys() | inventory.managed.keys()
        self._reporter.forget_all_but(set(here))
        doing = self._tools.workers.doing
        memory = self._vms.memory
        for uid in [uid for uid in memory if uid not in here and doing(uid) is None]:
            self._vms.forget(uid)


def _online(topology: HostTopology) -> CpuSet:
    return CpuSet.union_of(topology.cell_cpus().values())
