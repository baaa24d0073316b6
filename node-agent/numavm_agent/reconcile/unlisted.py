"""Domains of NumaVM whose VM is not in this node's list: kept, unless a readable object says otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from numavm_agent.ports import EventType, Regarding, UnreadableVm, VmObject
from numavm_agent.reconcile.decide import (
    DomainPhase,
    Fencing,
    Keeping,
    Owner,
    decide_unlisted,
    domain_phase,
)
from numavm_agent.reconcile.host_state import HostNow
from numavm_agent.reconcile.inventory import ManagedDomain
from numavm_agent.reconcile.keeping import Keeper
from numavm_agent.reconcile.memory import VmMemory
from numavm_agent.reconcile.operations import StopCause
from numavm_agent.reconcile.tools import Tools
from numavm_api.errors import NumaVMError
from numavm_api.lifecycle import wants_to_run
from numavm_api.numahost import KIND as HOST_KIND

_DEFAULT_GRACE_SECONDS = 60


class UnlistedDomains:
    """Sees to domains that no listed VM owns."""

    def __init__(self, tools: Tools, keeper: Keeper) -> None:
        self._tools = tools
        self._keeper = keeper
        self._told: set[str] = set()

    def owners(self, domains: Mapping[str, ManagedDomain]) -> dict[str, Owner]:
        """Ask the server, by name, for the VM of each domain."""
        return {uid: self._owner(domain) for uid, domain in domains.items()}

    def step(self, domain: ManagedDomain, owner: Owner, memory: VmMemory, host: HostNow) -> None:
        """Do what is next for one such domain."""
        is_busy = self._tools.workers.doing(domain.record.uid) is not None
        now = self._tools.clock.boottime()
        if is_busy or (memory.quiet_until is not None and now < memory.quiet_until):
            return
        settled_run = memory.settled.run_id if memory.settled else None
        phase = domain_phase(domain.seen, domain.record, settled_run=settled_run)
        fencing = Fencing.FENCED if host.spec.fenced else Fencing.NONE
        keeping = decide_unlisted(owner, fencing)
        if phase is DomainPhase.STOPPING:
            spec = domain.record.spec
            grace = spec.termination_grace_period_seconds if spec else _DEFAULT_GRACE_SECONDS
            self._keeper.continue_stop(domain, memory, grace)
        elif phase is DomainPhase.CRASHED:
            self._keeper.clear(domain)
        elif phase not in (DomainPhase.UNSETTLED, DomainPhase.SETTLED):
            return
        elif keeping is Keeping.STOP:
            fenced = fencing is Fencing.FENCED
            cause = StopCause.FENCED if fenced else StopCause.NOT_WANTED
            self._keeper.begin_stop(domain, cause)
        elif phase is DomainPhase.UNSETTLED:
            self._keeper.settle(domain, host)
        else:
            self._keeper.keep(domain, memory, host)

    def tell_orphan(self, domain: ManagedDomain, host_uid: str) -> None:
        """Say once that a domain's VM is gone."""
        record = domain.record
        if record.uid in self._told:
            return
        self._told.add(record.uid)
        note = (
            f"The NumaVM {record.namespace}/{record.name} of domain {domain.seen.name} ({record.uid}) is gone: "
            f"the domain is kept, and holds {record.placement.summary}"
        )
        self._tools.log.warning("orphan", domain=domain.seen.name, uid=record.uid)
        about = Regarding(HOST_KIND, "", self._tools.node, host_uid)
        self._tools.api.post_event(about, EventType.WARNING, "OrphanedDomain", "Keep", note)

    def _owner(self, domain: ManagedDomain) -> Owner:
        record = domain.record
        try:
            vm = self._tools.api.get_vm(record.namespace, record.name)
        except NumaVMError as error:
            self._tools.log.info("owner_unknown", uid=record.uid, error=str(error))
            return Owner.UNKNOWN
        return owner_of(vm, record.uid, self._tools.node)


def owner_of(vm: VmObject | UnreadableVm | None, uid: str, node: str) -> Owner:
    """Return what an answer of the server says of the VM with a uid."""
    if vm is None or vm.uid != uid:
        return Owner.MISSING
    if isinstance(vm, UnreadableVm):
        return Owner.UNKNOWN
    if vm.status.node_name == node:
        return Owner.HERE
    if not wants_to_run(vm.spec, vm.status.domain, deleting=vm.deleting).runs:
        return Owner.UNWANTED
    return Owner.UNPLACED if vm.status.node_name is None else Owner.ELSEWHERE
