"""Warnings on what is allowed but has no effect: kubectl prints them, and nothing is refused."""

from __future__ import annotations

from typing import Final

from numavm_api.generate.policy import Action, Policy, Validation
from numavm_api.generate.rule import bytes_of
from numavm_api.generate.rules import huge_pages_in
from numavm_api.quantity import LINUX_BLOCK

_CPU: Final = "object.spec.domain.cpu"
_NUMA: Final = f"{_CPU}.numa"
_DEVICES: Final = "object.spec.domain.devices"
_NUMA_LINKS: Final = f"{_CPU}.?numa.?interconnects"
_MEMORY: Final = "object.spec.domain.memory"

_OLD_MEMORY: Final = "oldObject.spec.domain.memory"
_OLD_CELLS: Final = "oldObject.spec.domain.cpu.?numa.?cells.orValue([])"
_RAISED_IN_PART: Final = (
    "raised on a running VM by no multiple of 128Mi is vain in part: Linux takes memory on x86-64 into use in blocks of"
    " 128Mi; spec.domain.memory.hotplug.method VirtioMem gives the rest too"
)
_IN_CELLS: Final = f"(has({_NUMA}) && {_NUMA}.cells.size() > 0)"
_WAS_RUNNING: Final = (
    "(oldObject != null && oldObject.?status.?domain.?state.orValue('') in ['Running', 'Paused'])"
)
_GROWS_BY_DIMMS: Final = f"({_WAS_RUNNING} && has({_MEMORY}.maxGuest) && {_MEMORY}.?hotplug.?method.orValue('DIMM') == 'DIMM')"


def _in_part(new: str, old: str) -> str:
    """Return whether a running guest's memory is raised by a part of a block."""
    raised = f"{bytes_of(new)} - {bytes_of(old)}"
    return f"({raised} > 0 && ({raised}) % {LINUX_BLOCK} != 0)"


def _vain(condition: str, message: str) -> Validation:
    return Validation(f"!({condition})", f"'{message}'")


VAIN_WISHES: Final = Policy(
    name="numavm-vain-wishes",
    description="Warns of fields that have no effect as the spec stands.",
    resources=["numavms"],
    action=Action.WARN,
    conditions={"spec-changes": "oldObject == null || object.spec != oldObject.spec"},
    validations=[
        _vain(
            f"{_CPU}.threads > 1 && !{_CPU}.dedicatedCpuPlacement",
            "spec.domain.cpu.threads above 1 is vain: without dedicatedCpuPlacement the threads of a guest core float over threads of any core",
        ),
        _vain(
            f"{_CPU}.threads == 1 && {_CPU}.threadPolicy == 'Require'",
            "spec.domain.cpu.threadPolicy Require is vain: with threads 1 a guest core has no siblings to keep together",
        ),
        _vain(
            f"object.spec.placement.cellSharing == 'Allow' && (!has({_NUMA}) || {_NUMA}.cells.size() == 1)",
            "spec.placement.cellSharing Allow is vain: the VM has one guest cell",
        ),
        _vain(
            f"has({_NUMA}) && {_NUMA}.cells.size() > 0 && has({_NUMA}.hostBinding) && has({_NUMA}.hostBinding.mode)"
            f" && {_NUMA}.cells.all(c, has(c.hostBinding) && has(c.hostBinding.mode))",
            "spec.domain.cpu.numa.hostBinding.mode is vain: every cell has its own",
        ),
        _vain(
            f"has({_NUMA}) && {_NUMA}.cells.size() > 0 && has({_MEMORY}.hugepages) && {_NUMA}.cells.all(c, has(c.hugepages))",
            "spec.domain.memory.hugepages is vain: every cell has its own",
        ),
        _vain(
            "has(object.spec.domain.firmware.kernelBoot) && object.spec.domain.devices.disks.exists(d, has(d.bootOrder))",
            "spec.domain.devices.disks[*].bootOrder is vain: the VM boots spec.domain.firmware.kernelBoot.kernel",
        ),
        _vain(
            f"!has({_CPU}.maxSockets) && !has({_CPU}.vcpus) && !has({_CPU}.onlineVcpus)",
            "spec.domain.cpu.maxSockets is left out: the VM has no room for vCPUs beyond sockets, raising sockets later needs a restart",
        ),
        _vain(
            f"{_MEMORY}.backing.samePageMerging == 'Enabled' && {huge_pages_in('object.spec.domain')}",
            "spec.domain.memory.backing.samePageMerging Enabled is vain for cells in huge pages: the kernel merges base pages only",
        ),
        _vain(
            f"has({_MEMORY}.backing.allocationThreads) && {_MEMORY}.backing.allocation == 'OnDemand'",
            "spec.domain.memory.backing.allocationThreads is vain: with allocation OnDemand nothing is allocated at start",
        ),
        _vain(
            f"has({_CPU}.realtime) && has({_CPU}.tuning) && has({_CPU}.tuning.quotaMicroseconds)",
            "spec.domain.cpu.tuning.quotaMicroseconds is vain for realtime vCPUs: the quota is of the fair scheduler, not of SCHED_FIFO",
        ),
        _vain(
            f"has({_CPU}.tuning) && has({_CPU}.tuning.periodMicroseconds) && !has({_CPU}.tuning.quotaMicroseconds)",
            "spec.domain.cpu.tuning.periodMicroseconds is vain: without quotaMicroseconds nothing is limited",
        ),
        *(
            _vain(
                f"{_NUMA_LINKS}.?{figures}.orValue([]).exists(a, a.type == 'Access')"
                f" && {_NUMA_LINKS}.?{figures}.orValue([]).exists(a, a.type != 'Access')",
                f"spec.domain.cpu.numa.interconnects.{figures} of type Access are vain beside Read and Write: Linux takes an"
                " empty entry of the tables for reads and writes for no figure",
            )
            for figures in ("latencies", "bandwidths")
        ),
        _vain(
            f"has({_NUMA}) && {_NUMA}.distances == 'FromHost' && {_NUMA}.cells.size() == 1",
            "spec.domain.cpu.numa.distances FromHost is vain: the VM has one guest cell",
        ),
        _vain(
            f"has({_MEMORY}.balloon) && {_DEVICES}.hostDevices.size() > 0",
            "spec.domain.memory.balloon is vain: a host device pins all memory of the guest, and QEMU then gives nothing back",
        ),
        _vain(
            f"has({_MEMORY}.balloon) && has({_MEMORY}.balloon.cell)",
            "spec.domain.memory.balloon.cell says what the guest sees, not where memory is taken from: use virtioMem or a dimm to"
            " grow or shrink one cell",
        ),
        _vain(
            f"{_DEVICES}.memory.exists(m, has(m.dimm) && {bytes_of('m.size')} % {LINUX_BLOCK} != 0)",
            "spec.domain.devices.memory[*].size of a dimm that is no multiple of 128Mi is vain in part: Linux takes memory on x86-64 into"
            " use in blocks of 128Mi",
        ),
        _vain(
            f"{_GROWS_BY_DIMMS} && {_IN_CELLS} && {_NUMA}.cells.exists(c, {_OLD_CELLS}.exists(o, o.id == c.id"
            f" && {_in_part('c.memory', 'o.memory')}))",
            f"spec.domain.cpu.numa.cells[*].memory {_RAISED_IN_PART}",
        ),
        _vain(
            f"{_GROWS_BY_DIMMS} && !{_IN_CELLS} && has({_MEMORY}.guest) && has({_OLD_MEMORY}.guest)"
            f" && {_in_part(f'{_MEMORY}.guest', f'{_OLD_MEMORY}.guest')}",
            f"spec.domain.memory.guest {_RAISED_IN_PART}",
        ),
    ],
)
