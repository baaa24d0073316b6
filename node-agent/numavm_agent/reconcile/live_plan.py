"""What is next for a running domain whose claim stays: from what is wanted and what libvirt and the kernel show. Pure.

Nothing here knows what was done before: a step that was cut off, or undone by the guest, is found again. What a guest
was asked to give back is remembered in the domain's metadata with the generation of the spec that asked, so that
nobody asks twice for the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from numavm_agent.domain.metadata import DomainRecord, Operation
from numavm_agent.reconcile.module_changes import (
    Asked,
    ModuleStep,
    left_behind,
    next_module_step,
)
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveVM, effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import Bytes, format_bytes
from numavm_api.vm_status import ModuleStatus

PLUG: Final = "Plug"
"""vCPUs and modules come, virtio-mem is resized."""
BALLOON: Final = "Balloon"
"""Target of the balloon, or period of its figures."""
UNPLUG: Final = "Unplug"
"""The guest was asked to give something back."""
_NOTHING: Final = "nothing"
_VCPU: Final = "vcpu:"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a running domain has."""

    vcpus: CpuSet
    """Those with a thread."""
    modules: Mapping[str, ModuleStatus] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unplugging:
    """What a guest was asked to give back, as the domain's metadata have it."""

    generation: int
    """Of the spec that asked."""
    names: frozenset[str] = frozenset()
    """Modules by their names, vCPUs as `vcpu:3`, which no module can be called."""
    refused: frozenset[str] = frozenset()
    """Those that the guest will not give back."""


@dataclass(frozen=True, slots=True)
class LivePlan:
    """What to do now; all of it is empty where the domain is as wanted, or waits for its guest."""

    on: CpuSet = field(default_factory=CpuSet)
    off: CpuSet = field(default_factory=CpuSet)
    """vCPUs that the guest is to be asked for."""
    plug: tuple[str, ...] = ()
    resize: tuple[str, ...] = ()
    unplug: tuple[str, ...] = ()
    awaited: frozenset[str] = frozenset()
    """Asked for, and still there."""

    @property
    def comes(self) -> bool:
        """Tell whether anything is plugged in or resized."""
        return bool(self.on or self.plug or self.resize)

    @property
    def goes(self) -> frozenset[str]:
        """What the guest is to be asked for now."""
        return frozenset(self.unplug) | {vcpu_name(vcpu) for vcpu in self.off}


def vcpu_name(vcpu: int) -> str:
    """Return what a vCPU is called among what is given back."""
    return f"{_VCPU}{vcpu}"


def is_vcpu_name(name: str) -> bool:
    """Tell whether a name among what is given back is a vCPU's."""
    return name.startswith(_VCPU) and name.removeprefix(_VCPU).isdecimal()


def live_plan(
    aim: EffectiveVM, shown: Shown, *, removable: CpuSet, asked: Unplugging | None, generation: int
) -> LivePlan:
    """Return what is next.

    Args:
        aim: The VM as it is to be.
        shown: As it is.
        removable: vCPUs that QEMU can take out.
        asked: What the guest was asked for.
        generation: Of the spec as it is now.
    """
    is_asked = asked is not None and asked.generation >= generation
    has_asked = asked.names if asked is not None and is_asked else frozenset[str]()
    wanted = {module.name: module for module in aim.modules}
    steps = {
        name: next_module_step(
            wanted.get(name),
            shown.modules.get(name),
            Asked.YES if name in has_asked else Asked.NO,
        )
        for name in sorted(wanted.keys() | shown.modules.keys())
    }
    leaving = (shown.vcpus - aim.boot_vcpus) & removable
    off = CpuSet(frozenset(vcpu for vcpu in leaving if vcpu_name(vcpu) not in has_asked))
    awaited = {name for name, step in steps.items() if step is ModuleStep.AWAIT}
    return LivePlan(
        on=aim.boot_vcpus - shown.vcpus,
        off=off,
        plug=_of(steps, ModuleStep.PLUG),
        resize=_of(steps, ModuleStep.RESIZE),
        unplug=_of(steps, ModuleStep.UNPLUG),
        awaited=frozenset(awaited | {vcpu_name(vcpu) for vcpu in leaving - off}),
    )


def _of(steps: Mapping[str, ModuleStep], step: ModuleStep) -> tuple[str, ...]:
    return tuple(name for name, one in steps.items() if one is step)


def spec_of_shown(before: NumaVMSpec, aim: NumaVMSpec, shown: Shown) -> NumaVMSpec:
    """Return the spec that a domain has: `aim`, and what its guest has not given back yet."""
    spec = left_behind(before, aim, shown.modules)
    kept = (before.domain.cpu.boot_vcpus - aim.domain.cpu.boot_vcpus) & shown.vcpus
    if not kept:
        return spec
    cpu = spec.domain.cpu
    update = {
        "sockets": cpu.all_sockets,
        "max_sockets": None,
        "vcpus": None,
        "online_vcpus": aim.domain.cpu.boot_vcpus | kept,
    }
    domain = spec.domain.model_copy(update={"cpu": cpu.model_copy(update=update)})
    return spec.model_copy(update={"domain": domain})


def plug_operation(before: Shown, plan: LivePlan) -> Operation:
    """Return the record of what is about to be plugged in."""
    names = [f"vCPUs {plan.on}"] if plan.on else []
    has = f"vCPUs {before.vcpus}, modules {', '.join(sorted(before.modules)) or _NOTHING}"
    return Operation(PLUG, has, ", ".join([*names, *plan.plug, *plan.resize]), PLUG)


def balloon_operation(record: DomainRecord, aim: NumaVMSpec, shown: Shown) -> Operation | None:
    """Return the record of a balloon that is about to be set; None: it is as wanted.

    One that stands there already was cut off: nobody knows whether libvirt has heard of it, so it is set anew. So it is
    after DIMMs came or went: QEMU keeps the size of the balloon then, not what the guest has (measured).
    """
    spec = record.spec
    before, after = _balloon_words(spec), _balloon_words(aim)
    if spec is None or before is None or after is None:
        return None
    was_cut_off = record.operation is not None and record.operation.kind == BALLOON
    had = {one.name for one in spec.domain.devices.memory if one.dimm is not None}
    is_other = before != after or had != {one.name for one in dimms(shown)}
    return Operation(BALLOON, before, after, BALLOON) if was_cut_off or is_other else None


def balloon_target(aim: NumaVMSpec, shown: Shown) -> Bytes | None:
    """Return what the guest is to have by its balloon, with the DIMMs that are there; None: it has no balloon."""
    return target_with(aim, sum(one.size for one in dimms(shown)))


def target_with(spec: NumaVMSpec, dimms: int) -> Bytes | None:
    """Return what the guest is to have with so many bytes of DIMMs; None: it has no balloon.

    QEMU's balloon does not count virtio-mem, and a file is no memory of the guest's.
    """
    balloon = spec.domain.memory.balloon
    if balloon is None:
        return None
    return Bytes(effective(spec).memory + dimms) if balloon.target is None else balloon.target


def dimms(shown: Shown) -> list[ModuleStatus]:
    """Return the DIMMs of a domain, which QEMU's balloon counts as the guest's memory."""
    return [one for one in shown.modules.values() if one.model == "dimm"]


def _balloon_words(spec: NumaVMSpec | None) -> str | None:
    balloon = spec.domain.memory.balloon if spec is not None else None
    if balloon is None:
        return None
    size = "all" if balloon.target is None else format_bytes(balloon.target)
    return f"{size}, figures every {balloon.stats_period_seconds or 0} s"


def asking(unplugging: Unplugging) -> Operation:
    """Return the record of what a guest is about to be asked for: cut off here, it is asked by the next agent."""
    return replace(unplug_operation(unplugging), step=f"Ask@{unplugging.generation}")


def unplug_operation(unplugging: Unplugging) -> Operation:
    """Return the record of what a guest was asked for."""
    refused = ",".join(sorted(unplugging.refused))
    step = f"Refused@{unplugging.generation}:{refused}" if refused else None
    return Operation(
        kind=UNPLUG,
        before=",".join(sorted(unplugging.names)),
        after=_NOTHING,
        step=step or f"Asked@{unplugging.generation}",
    )


def is_hot(operation: Operation | None) -> bool:
    """Tell whether something was being plugged in, set, or given back."""
    return operation is not None and operation.kind in (PLUG, BALLOON, UNPLUG)


def read_unplugging(operation: Operation | None) -> Unplugging | None:
    """Return what a guest was asked for; None: for nothing. A damaged record has the guest asked once more."""
    if operation is None or operation.kind != UNPLUG:
        return None
    word, _, rest = operation.step.partition("@")
    generation, _, refused = rest.partition(":")
    if word not in ("Asked", "Refused") or not generation.isdecimal():
        return Unplugging(generation=0)
    return Unplugging(int(generation), _names(operation.before), _names(refused))


def _names(text: str) -> frozenset[str]:
    return frozenset(name for name in text.split(",") if name)
