"""HotVCPUChange and HotMemoryChange: how changes of a running guest's vCPUs and memory stand. Pure.

True: the guest has all that can be changed while it runs. Unknown: a change waits for the claim, or for the guest,
which may take its time. False: the guest said no, or libvirt could not; it is tried again when the spec changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from numavm_agent.domain.metadata import Operation
from numavm_agent.reconcile.changes import switches_vcpus
from numavm_agent.reconcile.conditions import Finding
from numavm_agent.reconcile.live_plan import (
    BALLOON,
    PLUG,
    Unplugging,
    is_vcpu_name,
    read_unplugging,
)
from numavm_agent.reconcile.module_changes import module_changes
from numavm_api.conditions import ConditionStatus, ConditionType, Reason
from numavm_api.cpuset import CpuSet
from numavm_api.growth import as_modules
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import Bytes, format_bytes
from numavm_api.vm_status import ModuleStatus


@dataclass(frozen=True, slots=True)
class HotNow:
    """What is known of changes of a running domain."""

    operation: Operation | None = None
    """What its metadata say."""
    removable: CpuSet = field(default_factory=CpuSet)
    """vCPUs that QEMU can take out."""
    refusal: str | None = None
    """libvirt's words where it could not ask the guest."""
    error: str | None = None
    """Why the last step failed."""
    is_busy: bool = False
    """A change is being applied right now."""


def hot_findings(
    running: NumaVMSpec,
    wanted: NumaVMSpec,
    modules: Iterable[ModuleStatus],
    hot: HotNow,
    *,
    unused: str = "",
) -> list[Finding]:
    """Return both conditions of a domain that runs.

    Args:
        running: The spec that it has.
        wanted: The spec as it is to be.
        modules: Its memory modules.
        hot: What is known of changes under way.
        unused: What is plugged in and the guest does not use, in words.
    """
    vcpus = _vcpus_waiting(running, wanted, hot)
    memory = _memory_waiting(running, as_modules(running, wanted))
    moving = "; ".join(part for part in (*_resizing(modules), unused) if part)
    return [
        _finding(ConditionType.HOT_VCPU_CHANGE, hot, vcpus, ""),
        _finding(ConditionType.HOT_MEMORY_CHANGE, hot, memory, moving),
    ]


def no_findings() -> list[Finding]:
    """Return both conditions where nothing runs."""
    kinds = (ConditionType.HOT_VCPU_CHANGE, ConditionType.HOT_MEMORY_CHANGE)
    text = "The guest does not run"
    return [Finding(kind, "Unknown", Reason.NOT_RUNNING, text) for kind in kinds]


def _finding(kind: ConditionType, hot: HotNow, waiting: str, moving: str) -> Finding:
    """Return one condition; what is worst is told.

    Args:
        kind: Which one.
        hot: What is known of changes under way.
        waiting: What waits for room in the claim.
        moving: What the guest is about to follow.
    """
    asked = _of_kind(kind, read_unplugging(hot.operation))
    if asked is not None and asked.refused:
        names = ", ".join(sorted(asked.refused))
        words = f" ({hot.refusal})" if hot.refusal else ""
        text = (
            f"The guest does not give back {names}{words}. It is asked again when the spec changes"
        )
        return Finding(kind, "False", Reason.GUEST_REFUSED, text)
    if hot.error is not None and _concerns(kind, hot.operation):
        return Finding(kind, "False", Reason.CHANGE_FAILED, f"{hot.error}. It is tried again")
    if asked is not None and asked.names:
        names = ", ".join(sorted(asked.names))
        text = f"The guest was asked to give back {names}, and has not yet"
        return Finding(kind, "Unknown", Reason.AWAITING_GUEST, text)
    return Finding(kind, *_under_way(hot, waiting, moving))


def _under_way(hot: HotNow, waiting: str, moving: str) -> tuple[ConditionStatus, Reason, str]:
    if hot.is_busy:
        return "Unknown", Reason.CHANGING, "A change is being applied"
    if moving:
        return "Unknown", Reason.AWAITING_GUEST, moving
    if waiting:
        text = f"{waiting}: waits for room in the claim, see CapacityReserved"
        return "Unknown", Reason.AWAITING_CLAIM, text
    return "True", Reason.NO_CHANGE, "The guest has all that can be changed while it runs"


def _of_kind(kind: ConditionType, asked: Unplugging | None) -> Unplugging | None:
    if asked is None:
        return None
    is_vcpus = kind is ConditionType.HOT_VCPU_CHANGE
    names = frozenset(name for name in asked.names if is_vcpu_name(name) is is_vcpus)
    return Unplugging(asked.generation, names, asked.refused & names)


def _concerns(kind: ConditionType, operation: Operation | None) -> bool:
    """Tell whether a condition is about what an operation gives the guest."""
    is_vcpus = kind is ConditionType.HOT_VCPU_CHANGE
    if operation is None or operation.kind != PLUG:
        return operation is not None and operation.kind == BALLOON and not is_vcpus
    parts = [part for part in operation.after.split(", ") if part]
    return any(part.startswith("vCPUs ") is is_vcpus for part in parts)


def _vcpus_waiting(running: NumaVMSpec, wanted: NumaVMSpec, hot: HotNow) -> str:
    if not switches_vcpus(running, wanted, hot.removable):
        return ""
    return f"vCPUs {wanted.domain.cpu.boot_vcpus} instead of {running.domain.cpu.boot_vcpus}"


def _memory_waiting(running: NumaVMSpec, wanted: NumaVMSpec) -> str:
    changes = module_changes(running, wanted)
    names = sorted(one.name for one in (*changes.added, *changes.resized))
    return f"memory modules {', '.join(names)}" if names else ""


def _resizing(modules: Iterable[ModuleStatus]) -> Iterable[str]:
    for module in modules:
        if module.requested is not None and module.current != module.requested:
            has, asked = format_bytes(module.current or Bytes(0)), format_bytes(module.requested)
            yield f"The guest has {has} of the {asked} requested of memory module {module.name}"
