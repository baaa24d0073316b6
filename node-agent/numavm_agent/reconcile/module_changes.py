"""Memory modules of a running guest: which changes are live, and what is next for each. Pure.

Two tables. One over two specs, field by field of an entry: what can come, go or be resized while the guest runs. One
over the entry as it is wanted and the module as libvirt shows it: what to do next. A guest may refuse to give a DIMM
back, or take its time: it is asked once, and once more only for another generation of the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from numavm_api.effective import effective
from numavm_api.effective_modules import EffectiveModule, ModuleKind, kind_of
from numavm_api.growth import same_room
from numavm_api.modules import MemoryDevice
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.resolved import resolved
from numavm_api.vm_status import ModuleStatus


class ModuleStep(StrEnum):
    """What is next for a module."""

    NOTHING = "Nothing"
    PLUG = "Plug"
    RESIZE = "Resize"
    """virtio-mem: the guest is told to have another amount."""
    UNPLUG = "Unplug"
    """The guest is asked to give it back."""
    AWAIT = "Await"
    """It was asked, and has not answered, or said no."""


@dataclass(frozen=True, slots=True)
class ModuleChanges:
    """What of `devices.memory` changes while the guest runs, by name."""

    added: tuple[MemoryDevice, ...] = ()
    resized: tuple[MemoryDevice, ...] = ()
    """virtio-mem, with what is requested now."""
    removed: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Every module that changes."""
        return frozenset({one.name for one in (*self.added, *self.resized)} | {*self.removed})


def module_changes(running: NumaVMSpec, wanted: NumaVMSpec) -> ModuleChanges:
    """Return the changes of modules that need no restart.

    A DIMM or virtio-mem comes where the guest has room for it, a DIMM goes, and of virtio-mem `requested` changes.
    QEMU takes no virtio-mem out of a running guest (7.2: "virtio based memory devices cannot be unplugged").
    """
    now, then = effective(running), effective(wanted)
    has = {device.name: device for device in running.domain.devices.memory}
    wishes = {device.name: device for device in wanted.domain.devices.memory}
    has_room = same_room(now, then)
    plugged_live = (ModuleKind.DIMM, ModuleKind.VIRTIO_MEM)
    # What is claimed by itself is not amended yet: such a module comes, goes and is resized by a restart.
    apart = {module.name for vm in (now, then) for module in vm.modules_apart}
    return ModuleChanges(
        added=tuple(
            wish
            for name, wish in sorted(wishes.items())
            if has_room and name not in has and kind_of(wish) in plugged_live and name not in apart
        ),
        resized=tuple(
            wish
            for name, wish in sorted(wishes.items())
            if name in has and wish != has[name] and _only_resized(has[name], wish)
            if name not in apart
        ),
        removed=tuple(
            name
            for name, device in sorted(has.items())
            if name not in wishes and kind_of(device) is ModuleKind.DIMM and name not in apart
        ),
    )


def _only_resized(was: MemoryDevice, wish: MemoryDevice) -> bool:
    if was.virtio_mem is None or wish.virtio_mem is None:
        return False
    virtio = was.virtio_mem.model_copy(update={"requested": wish.virtio_mem.requested})
    return wish == was.model_copy(update={"virtio_mem": virtio})


def with_modules(running: NumaVMSpec, devices: list[MemoryDevice]) -> NumaVMSpec:
    """Return the spec with other modules."""
    memory = running.domain.devices.model_copy(update={"memory": devices})
    domain = running.domain.model_copy(update={"devices": memory})
    return running.model_copy(update={"domain": domain})


def modules_as_wanted(
    running: NumaVMSpec, wanted: NumaVMSpec, placement: Placement, *, removes: bool
) -> list[MemoryDevice]:
    """Return the running guest's modules with what changes live: what needs room only where the claim has all of it.

    Args:
        running: The spec that the domain has.
        wanted: The spec as it is to be.
        placement: The claim.
        removes: Whether the guest is to give any back now.
    """
    changes = module_changes(running, wanted)
    if not removes:
        changes = replace(changes, removed=())
    whole = _changed(running, changes)
    held = {cell.id: cell.plugged or 0 for cell in placement.cells}
    after = resolved(effective(with_modules(running, whole)), placement)
    if all(cell.plugged <= held.get(cell.id, 0) for cell in after.cells):
        return whole
    requested = {device.name: device for device in running.domain.devices.memory}
    shrunk = tuple(one for one in changes.resized if _shrinks(requested[one.name], one))
    return _changed(running, ModuleChanges(resized=shrunk, removed=changes.removed))


def _changed(running: NumaVMSpec, changes: ModuleChanges) -> list[MemoryDevice]:
    resized = {device.name: device for device in changes.resized}
    kept = [
        resized.get(device.name, device)
        for device in running.domain.devices.memory
        if device.name not in changes.removed
    ]
    return [*kept, *changes.added]


def _shrinks(was: MemoryDevice, wish: MemoryDevice) -> bool:
    return (
        was.virtio_mem is not None
        and wish.virtio_mem is not None
        and wish.virtio_mem.requested < was.virtio_mem.requested
    )


class Asked(StrEnum):
    """Whether the guest was asked to give a module back, for the spec as it is now."""

    NO = "No"
    YES = "Yes"


def next_module_step(
    wanted: EffectiveModule | None, there: ModuleStatus | None, asked: Asked
) -> ModuleStep:
    """Return what is next for a module.

    Args:
        wanted: As it is to be; None: it is to go.
        there: As libvirt shows it; None: the guest does not have it.
        asked: Whether the guest was asked to give it back.
    """
    if wanted is None:
        if there is None:
            return ModuleStep.NOTHING
        match asked:
            case Asked.NO:
                return ModuleStep.UNPLUG
            case Asked.YES:
                return ModuleStep.AWAIT
            case _:
                assert_never(asked)
    if there is None:
        return ModuleStep.PLUG
    return ModuleStep.NOTHING if wanted.requested == there.requested else ModuleStep.RESIZE


def left_behind(
    before: NumaVMSpec, aim: NumaVMSpec, there: Mapping[str, ModuleStatus]
) -> NumaVMSpec:
    """Return `aim` with the modules that the guest still has, though it is to give them back."""
    wanted = {device.name for device in aim.domain.devices.memory}
    kept = [
        device
        for device in before.domain.devices.memory
        if device.name in there and device.name not in wanted
    ]
    return with_modules(aim, [*aim.domain.devices.memory, *kept]) if kept else aim
