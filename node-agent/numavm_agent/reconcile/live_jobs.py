"""What changes a running domain whose claim stays, done: balloon, vCPUs, memory modules. In a worker's thread.

Requests to libvirt return before anything has happened, or fail half-way. So each job looks at the domain first, does
what is missing, looks again, and writes into the metadata what it then saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from numavm_agent.domain.metadata import DomainRecord, metadata_xml
from numavm_agent.domain.modules import alias_of, module_xml
from numavm_agent.domain.pins import Pins
from numavm_agent.errors import DomainMissing, OperationBusy
from numavm_agent.reconcile.jobs import Jobs, Moved
from numavm_agent.reconcile.live_plan import (
    LivePlan,
    Shown,
    Unplugging,
    asking,
    balloon_operation,
    balloon_target,
    live_plan,
    plug_operation,
    read_unplugging,
    spec_of_shown,
    unplug_operation,
    vcpu_name,
)
from numavm_agent.verify.module_figures import module_figures
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveVM, effective
from numavm_api.errors import HostFaultError
from numavm_api.killpoints import KillPoint
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.resolved import resolved


@dataclass(frozen=True, slots=True)
class Applying:
    """A change of a running domain under the claim that it has."""

    record: DomainRecord
    """What the domain remembers."""
    aim: NumaVMSpec
    """What its spec is to be."""
    generation: int
    """Of the spec that wants it."""
    pins: Pins
    removable: CpuSet
    """vCPUs that QEMU can take out."""
    refused: frozenset[str] = frozenset()
    """What the guest has said no to since it was asked."""


@dataclass(frozen=True, slots=True)
class LiveJobs:
    """The jobs, with what they need."""

    jobs: Jobs

    def apply(self, change: Applying) -> Moved:
        """Do what is missing, and have the domain remember what it then has.

        Raises:
            DomainMissing: it has ended.
        """
        record, aim = change.record, change.aim
        vm = resolved(effective(aim), record.placement)
        shown = self.shown(record.uid)
        asked = _asked_now(change, shown)
        plan = live_plan(
            vm, shown, removable=change.removable, asked=asked, generation=change.generation
        )
        record = self._begin(record, shown, plan)
        self.plug(record.uid, aim, vm, plan, record.placement, change.pins)
        record = self._follow_balloon(record, aim)
        asked, words = self._ask(record, plan, asked, change.generation)
        self._remember(change, record, asked)
        return Moved(percent=0, settled=None, stuck=None, refusal=words)

    def shown(self, uid: str) -> Shown:
        """Return what a domain has.

        Raises:
            DomainMissing: it has ended.
        """
        for seen in self.jobs.hypervisor.list_domains():
            if seen.uuid == uid:
                pid = self.jobs.reader.qemu_pid(seen.name, uid)
                threads = self.jobs.reader.threads(pid) if pid is not None else ()
                vcpus = frozenset(one.vcpu for one in threads if one.vcpu is not None)
                modules = module_figures(self.jobs.hypervisor.domain_xml(uid))
                return Shown(CpuSet(vcpus), {module.name: module for module in modules})
        raise DomainMissing(f"domain {uid} has ended")

    def plug(
        self,
        uid: str,
        spec: NumaVMSpec,
        vm: EffectiveVM,
        plan: LivePlan,
        placement: Placement,
        pins: Pins,
    ) -> None:
        """Pin vCPUs and power them on; plug modules in, and resize those that can be."""
        for vcpu in plan.on:
            if vcpu in pins.vcpus:
                self.jobs.hypervisor.pin_vcpu(uid, vcpu, pins.vcpus[vcpu])
            self.jobs.hypervisor.plug_vcpu(uid, vcpu)
        named = {
            one.name for one in spec.domain.devices.memory if one.dimm and one.dimm.slot is not None
        }
        with self._taking_memory(uid, pins) if plan.plug else nullcontext():
            for module in vm.modules:
                if module.name in plan.plug:
                    # libvirt finds the slot where the spec names none, for others may have taken it.
                    slot = module.slot if module.name in named else None
                    xml = module_xml(replace(module, slot=slot), placement)
                    self.jobs.hypervisor.attach(uid, xml)
        for module in vm.modules:
            if module.name in plan.resize and module.requested is not None:
                self.jobs.hypervisor.resize(uid, alias_of(module.name), module.requested)

    @contextmanager
    def _taking_memory(self, uid: str, pins: Pins) -> Iterator[None]:
        """Let the emulator run where it must to take memory; an agent killed meanwhile leaves a drift to put back."""
        self.jobs.hypervisor.pin_emulator(uid, pins.taking_memory)
        try:
            yield
        finally:
            self.jobs.hypervisor.pin_emulator(uid, pins.emulator)

    def follow_balloon(self, record: DomainRecord, aim: NumaVMSpec) -> None:
        """Set the balloon where it is to be another; modules that were to come are there."""
        if aim.domain.memory.balloon is None:
            return
        shown = self.shown(record.uid)
        if balloon_operation(record, aim, shown) is not None:
            self._set_balloon(record.uid, aim, shown)

    def _follow_balloon(self, record: DomainRecord, aim: NumaVMSpec) -> DomainRecord:
        """Record what the balloon is about to be, then set it."""
        if aim.domain.memory.balloon is None:
            return record
        shown = self.shown(record.uid)
        operation = balloon_operation(record, aim, shown)
        if operation is None:
            return record
        begun = replace(record, operation=operation)
        self._write(begun)
        self.jobs.kill.reach(KillPoint.BALLOON_RECORDED)
        self._set_balloon(record.uid, aim, shown)
        return begun

    def _set_balloon(self, uid: str, aim: NumaVMSpec, shown: Shown) -> None:
        """Set target and period of the balloon."""
        balloon, target = aim.domain.memory.balloon, balloon_target(aim, shown)
        if balloon is not None and target is not None:
            self.jobs.hypervisor.set_balloon(uid, target)
            self.jobs.hypervisor.set_balloon_period(uid, balloon.stats_period_seconds or 0)

    def _begin(self, record: DomainRecord, shown: Shown, plan: LivePlan) -> DomainRecord:
        """Record what is about to be plugged in, before it is."""
        if not plan.comes:
            return record
        begun = replace(record, operation=plug_operation(shown, plan))
        self._write(begun)
        self.jobs.kill.reach(KillPoint.PLUG_RECORDED)
        return begun

    def _ask(
        self, record: DomainRecord, plan: LivePlan, asked: Unplugging | None, generation: int
    ) -> tuple[Unplugging | None, str | None]:
        """Ask the guest, once it stands in the metadata that it is asked; return what it was asked for, and its no."""
        if not plan.goes:
            # What the spec wants to keep by now is no longer asked for; a late yes is seen as a loss.
            return _narrowed(asked, plan.awaited), None
        waiting = _narrowed(asked, plan.awaited) or Unplugging(generation)
        asks = replace(waiting, generation=generation, names=plan.goes | plan.awaited)
        self._write(replace(record, operation=asking(asks)))
        self.jobs.kill.reach(KillPoint.UNPLUG_RECORDED)
        refusals = self._refusals(record.uid, plan)
        words = "; ".join(f"{name}: {why}" for name, why in refusals.items())
        return replace(asks, refused=asks.refused | refusals.keys()), words or None

    def _refusals(self, uid: str, plan: LivePlan) -> dict[str, str]:
        """Ask the guest for what is to go; return what it could not be asked for, and libvirt's words."""
        hypervisor = self.jobs.hypervisor
        asks = {
            **{name: partial(hypervisor.detach, uid, alias_of(name)) for name in plan.unplug},
            **{vcpu_name(vcpu): partial(hypervisor.unplug_vcpu, uid, vcpu) for vcpu in plan.off},
        }
        refusals: dict[str, str] = {}
        for name, ask in asks.items():
            try:
                ask()
            except OperationBusy:
                continue  # libvirt waited for the guest's answer and gave up: it may still come
            except HostFaultError as error:
                refusals[name] = str(error)
        return refusals

    def _remember(self, change: Applying, record: DomainRecord, asked: Unplugging | None) -> None:
        """Write down what the domain has now, where that is not what stands there."""
        shown = self.shown(record.uid)
        before = change.record.spec or change.aim
        left = _still_there(asked, shown)
        after = replace(
            record,
            spec=spec_of_shown(before, change.aim, shown),
            operation=unplug_operation(left) if left is not None else None,
        )
        if after != change.record or record != change.record:
            self._write(after)

    def _write(self, record: DomainRecord) -> None:
        self.jobs.hypervisor.set_metadata(record.uid, metadata_xml(record))


def _asked_now(change: Applying, shown: Shown) -> Unplugging | None:
    """Return what the guest was asked for and still has, with what it has said no to."""
    asked = _still_there(read_unplugging(change.record.operation), shown)
    if asked is None:
        return None
    return replace(asked, refused=asked.refused | (change.refused & asked.names))


def _narrowed(asked: Unplugging | None, names: frozenset[str]) -> Unplugging | None:
    """Return those names of what the guest was asked for; None: it was asked for none of them."""
    if asked is None or not asked.names & names:
        return None
    return replace(asked, names=asked.names & names, refused=asked.refused & names)


def _still_there(asked: Unplugging | None, shown: Shown) -> Unplugging | None:
    if asked is None:
        return None
    here = {*shown.modules, *(vcpu_name(vcpu) for vcpu in shown.vcpus)}
    return _narrowed(asked, frozenset(here))
