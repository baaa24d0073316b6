"""The agent's part of a NumaVM's status, made whole from what it knows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from numavm_agent.ports import BalloonSeen, VmObject
from numavm_agent.reconcile.backoff import CRASH_LOOP_FROM
from numavm_agent.reconcile.balloon_report import balloon_now, balloon_status, target_of
from numavm_agent.reconcile.changes import pending_changes
from numavm_agent.reconcile.conditions import Finding, dated
from numavm_agent.reconcile.hot_report import HotNow, hot_findings, no_findings
from numavm_agent.reconcile.module_use import unused_modules
from numavm_agent.verify.judge import Verdict
from numavm_agent.verify.module_figures import memory_now
from numavm_api.conditions import AGENT_CONDITIONS, ConditionStatus, ConditionType, Reason
from numavm_api.cpuset import CpuSet
from numavm_api.derived import settled
from numavm_api.effective import effective
from numavm_api.lifecycle import Wanted
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import Bytes
from numavm_api.vm_status import (
    CpuTopologyStatus,
    DomainState,
    DomainStatus,
    MemoryStatus,
    ModuleStatus,
    NumaStatus,
    OperationStatus,
    PausedReason,
    ShutoffReason,
)

_PAUSED: Final = {
    PausedReason.USER: "somebody paused it through libvirt. `virsh resume` on its host lets it go on",
    PausedReason.IO_ERROR: "a disk failed, or what lies under it is full. That mended, `virsh resume` on its host",
    PausedReason.WATCHDOG: "its watchdog was not fed. `kubectl numavm restart` starts it anew",
    PausedReason.CRASHED: "its kernel panicked. `kubectl numavm restart` starts it anew",
    PausedReason.SUSPENDED: "it went to sleep by itself. `virsh dompmwakeup` on its host wakes it",
    PausedReason.UNKNOWN: (
        "QEMU stopped it and libvirt does not say why, as with an error inside KVM: the domain's log on its host does"
    ),
}
_THERE: Final = frozenset({DomainState.RUNNING, DomainState.PAUSED, DomainState.SHUTDOWN})
_ENDS: Final = {
    ShutoffReason.GUEST_SHUTDOWN: (Reason.GUEST_SHUTDOWN, "The guest shut down"),
    ShutoffReason.CRASHED: (Reason.GUEST_CRASHED, "The guest or its QEMU crashed"),
    ShutoffReason.DESTROYED: (Reason.DOMAIN_DESTROYED, "The domain was destroyed by hand"),
    ShutoffReason.HOST_LOST: (Reason.HOST_LOST, "The host went down under it"),
    ShutoffReason.UNKNOWN: (Reason.STOP_REASON_UNKNOWN, "It ended, and nobody knows why"),
    ShutoffReason.START_FAILED: (Reason.START_FAILED, "The start failed"),
    ShutoffReason.STOPPED: (Reason.NOT_RUNNING, "Stopped"),
}
_UNWANTED: Final = {
    Wanted.HALTED: (Reason.HALTED, "spec.runStrategy is Halted"),
    Wanted.FINISHED: (Reason.FINISHED, "It ended, and its run strategy does not start it again"),
    Wanted.DELETED: (Reason.STOPPING, "It is being deleted"),
}
_TELLS_OF_STARTS: Final = (Reason.START_FAILED, Reason.CRASH_LOOP_BACK_OFF)
OWN_FIELDS: Final = ("domain", "currentCPUTopology", "memory", "numa", "operation")
"""Fields of the status, besides conditions, that the agent alone writes."""


@dataclass(frozen=True, slots=True)
class Running:
    """What is known of the run that is there."""

    spec: NumaVMSpec | None
    """The spec it was built from."""
    memory: Bytes
    """What libvirt says the guest has."""
    verdict: Verdict | None
    """What the kernel said last; None: not yet read."""
    modules: tuple[ModuleStatus, ...] | None = None
    """Its memory modules; None: it has none, or they are not yet read."""
    balloon: BalloonSeen | None = None
    """What libvirt says of its balloon now; None: it cannot say, or there is none."""
    operation: OperationStatus | None = None
    """The change that is under way."""
    why_fixed: str | None = None
    """Why its memory cannot be moved while it runs; None: it can."""
    hot: HotNow = field(default_factory=HotNow)
    """What is known of changes of its vCPUs and memory."""


@dataclass(frozen=True, slots=True)
class VmView:
    """All that the report is made from."""

    vm: VmObject
    wanted: Wanted
    domain: DomainStatus
    running: Running | None
    starting: bool
    """A start is under way."""
    start_error: str | None
    """Why the last start failed, where this agent tried it."""
    waits_for: str | None
    """Why nothing happens right now, in words; None: nothing waits."""


def vm_status(view: VmView, *, now: str) -> dict[str, Any]:
    """Return the agent's whole part of the status."""
    there = view.running
    conditions = dated(
        _findings(view, now=now), view.vm.status.conditions, generation=view.vm.generation, now=now
    )
    status: dict[str, Any] = {
        "domain": view.domain.model_copy(
            update={"observed_generation": view.vm.generation}
        ).to_api(),
        "conditions": [condition.to_api() for condition in conditions],
    }
    if there is None or there.spec is None:
        return status
    if there.operation is not None:
        status["operation"] = there.operation.to_api()
    status["currentCPUTopology"] = _topology(there.spec, there.hot.removable).to_api()
    status["memory"] = _memory(there, there.spec, view, now=now).to_api()
    numa = _numa(there.verdict, view)
    if numa is not None:
        status["numa"] = numa.to_api()
    return status


def own_part(raw_status: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a whole status what `vm_status` makes, to tell whether anything changed."""
    part = {field: raw_status[field] for field in OWN_FIELDS if field in raw_status}
    own = {str(kind) for kind in AGENT_CONDITIONS}
    part["conditions"] = [one for one in raw_status.get("conditions", ()) if one["type"] in own]
    return part


def _findings(view: VmView, *, now: str) -> list[Finding]:
    return [
        _running(view),
        _aligned(view),
        _restart_required(view),
        *_hot(view, now=now),
        _emulation(view),
    ]


def _hot(view: VmView, *, now: str) -> list[Finding]:
    there = view.running
    if there is None or there.spec is None:
        return no_findings()
    modules = there.modules or ()
    unused = _unused(there, there.spec, modules, now=now)
    running, wanted = _comparable(view, there.spec)
    return hot_findings(running, wanted, modules, there.hot, unused=unused)


def _comparable(view: VmView, running: NumaVMSpec) -> tuple[NumaVMSpec, NumaVMSpec]:
    """Return the spec that the guest runs by and the one it is to have, both with its number of derived cells."""
    claim = view.vm.status.placement
    return settled(running, claim), settled(view.vm.spec, claim)


def _unused(
    there: Running, spec: NumaVMSpec, modules: tuple[ModuleStatus, ...], *, now: str
) -> str:
    target = target_of(spec)
    if there.balloon is None or target is None:
        return ""
    figures = balloon_now(there.balloon, target, spec, now=now)
    return unused_modules(effective(spec).memory, modules, figures)


def _running(view: VmView) -> Finding:
    domain = view.domain
    match domain.state:
        case DomainState.RUNNING:
            return _is_running("True", Reason.RUNNING, "The guest runs")
        case DomainState.PAUSED:
            why = _PAUSED[domain.paused_reason or PausedReason.UNKNOWN]
            return _is_running("False", Reason.PAUSED, f"The guest stands still: {why}")
        case DomainState.SHUTDOWN if domain.shutoff_reason is ShutoffReason.STOPPED:
            return _is_running("True", Reason.STOPPING, "The guest was asked to shut down")
        case DomainState.SHUTDOWN:
            return _is_running("True", Reason.STOPPING, "The guest shuts down by itself")
        case DomainState.CRASHED | DomainState.SHUTOFF:
            return _not_running(view)


def _not_running(view: VmView) -> Finding:
    domain = view.domain
    if domain.refused is not None:
        message = f"{domain.refused.reason}: {domain.refused.message}"
        return _is_running("False", Reason.CLAIM_REFUSED, message)
    if not view.wanted.runs:
        return _is_running("False", *_UNWANTED[view.wanted])
    if view.starting:
        return _is_running("False", Reason.STARTING, "The domain is being started")
    reason, message = _why_it_ended(view)
    if (domain.failures or 0) >= CRASH_LOOP_FROM:
        reason = Reason.CRASH_LOOP_BACK_OFF
        message = f"{message}, {domain.failures} times in a row"
    if domain.retry_at is not None:
        message = f"{message}; next start at {domain.retry_at}"
    if view.waits_for is not None:
        message = f"{message}: {view.waits_for}"
    return _is_running("False", reason, message)


def _why_it_ended(view: VmView) -> tuple[Reason, str]:
    ended = view.domain.shutoff_reason
    if ended is None:
        return Reason.NOT_RUNNING, "Not started yet"
    reason, message = _ENDS[ended]
    if ended is ShutoffReason.START_FAILED:
        message = view.start_error or _message_before(view.vm, message)
    return reason, message


def _message_before(vm: VmObject, otherwise: str) -> str:
    """Return why the last start failed, as an agent before this one had reported it."""
    for one in vm.status.conditions:
        if one.type == ConditionType.RUNNING and one.reason in _TELLS_OF_STARTS:
            return one.message.partition("; next start at")[0]
    return otherwise


def _is_running(status: ConditionStatus, reason: Reason, message: str) -> Finding:
    return Finding(ConditionType.RUNNING, status, reason, message)


def _aligned(view: VmView) -> Finding:
    kind = ConditionType.NUMA_ALIGNED
    there = view.running
    if there is None:
        return Finding(kind, "Unknown", Reason.NOT_RUNNING, "The guest does not run")
    if there.verdict is None:
        return Finding(kind, "Unknown", Reason.NOT_VERIFIED, "Threads and pages are not yet read")
    problems = there.verdict.problems
    if not problems:
        return Finding(
            kind,
            "True",
            Reason.KERNEL_CONFIRMS,
            "Every vCPU thread and every page of the guest is where it was promised",
        )
    message = "; ".join(problem.message for problem in problems)
    return Finding(kind, "False", problems[0].reason, message)


def _restart_required(view: VmView) -> Finding:
    kind = ConditionType.RESTART_REQUIRED
    there = view.running
    if there is None:
        return Finding(kind, "False", Reason.NOTHING_PENDING, "The guest does not run")
    if there.spec is None:
        return Finding(
            kind,
            "Unknown",
            Reason.NOT_VERIFIED,
            "This version cannot read the spec that the domain was built from",
        )
    running, wanted = _comparable(view, there.spec)
    changes = pending_changes(
        running, wanted, why_fixed=there.why_fixed, removable=there.hot.removable
    )
    if not changes:
        return Finding(
            kind, "False", Reason.NOTHING_PENDING, "The guest has all that the spec says"
        )
    message = "Set another spec.restartToken to apply: " + "; ".join(changes)
    return Finding(kind, "True", Reason.PENDING_CHANGES, message)


def _emulation(view: VmView) -> Finding:
    kind = ConditionType.SOFTWARE_EMULATION
    match view.domain.type if view.running else None:
        case "TCG":
            return Finding(kind, "True", Reason.TCG, "QEMU emulates the CPU: many times slower")
        case "KVM":
            return Finding(kind, "False", Reason.KVM, "The guest runs under KVM")
        case _:
            return Finding(kind, "Unknown", Reason.NOT_RUNNING, "The guest does not run")


def _topology(spec: NumaVMSpec, removable: CpuSet) -> CpuTopologyStatus:
    cpu = spec.domain.cpu
    return CpuTopologyStatus(
        sockets=cpu.sockets,
        dies=cpu.dies,
        cores=cpu.cores,
        threads=cpu.threads,
        vcpus=len(cpu.boot_vcpus),
        online_vcpus=cpu.boot_vcpus,
        removable_vcpus=(removable & cpu.boot_vcpus) or None,
    )


def _memory(there: Running, built_from: NumaVMSpec, view: VmView, *, now: str) -> MemoryStatus:
    balloon = balloon_status(there.balloon, built_from, view.vm.status.memory, now=now)
    vm, modules = effective(built_from), there.modules or ()
    return MemoryStatus(
        guest_at_boot=vm.memory_with_modules,
        guest_requested=effective(view.vm.spec).memory_with_modules,
        guest_current=memory_now(vm.memory, modules, balloon)
        if modules or balloon
        else there.memory,
        balloon=balloon,
        devices=list(modules),
    )


def _numa(verdict: Verdict | None, view: VmView) -> NumaStatus | None:
    """What was read last; before this agent has read anything, what one before it had, if it is of the same run."""
    if verdict is not None:
        return verdict.numa
    before = view.vm.status.domain
    same_run = before is not None and before.started_at == view.domain.started_at
    return view.vm.status.numa if same_run else None


def is_there(domain: DomainStatus) -> bool:
    """Tell whether the status says that a domain is there."""
    return domain.state in _THERE
