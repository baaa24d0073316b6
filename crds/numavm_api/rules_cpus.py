"""Rules on vCPUs: how many, how many at boot, what they look like, and which host CPUs they may have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_api.backing import Switch
from numavm_api.cpu import MAX_VCPUS, CacheMode, Cpu, ThreadPolicy
from numavm_api.cpuset import CpuSet
from numavm_api.effective import effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.rules_cells import CPU, Rule
from numavm_api.violation import Violation

PINNING: Final = f"{CPU}.pinning"
MAX_PC_VCPUS: Final = 255
"""QEMU's pc_i440fx machines have no interrupt remapping and end at 255 vCPUs (hw/i386/pc_piix.c)."""
HOST_PASSTHROUGH: Final = "host-passthrough"
EMULATED_LEVEL: Final = 3
"""The only level that libvirt takes for mode emulate; for the others it takes none (qemuValidateDomainDefCpu, measured)."""


def cpu_rules() -> tuple[Rule, ...]:
    """Return the rules on CPUs."""
    return (
        _vcpus_within_limits,
        _ceiling_not_below,
        _boot_vcpus_one_way,
        _boot_vcpus_exist,
        _policies_need_dedicated_cpus,
        _cache_as_libvirt_has_it,
        _features_once,
        _realtime_can_hold,
        _pins_of_vcpus_that_exist,
        _pins_of_io_threads_that_exist,
    )


def _vcpus_within_limits(spec: NumaVMSpec) -> Iterator[Violation]:
    cpu = spec.domain.cpu
    product = f"{cpu.all_sockets}*{cpu.dies}*{cpu.cores}*{cpu.threads} = {cpu.max_vcpus}"
    field = f"{CPU}.{'maxSockets' if cpu.max_sockets else 'sockets'}*dies*cores*threads"
    if cpu.max_vcpus > MAX_VCPUS:
        yield Violation(
            field, product, f"a VM has at most {MAX_VCPUS} vCPUs", "lower one of the four"
        )
    machine = spec.domain.machine.type
    if not machine.startswith(("q35", "pc-q35")) and cpu.max_vcpus > MAX_PC_VCPUS:
        yield Violation(
            field,
            product,
            f"machine {machine} has at most {MAX_PC_VCPUS} vCPUs",
            "use spec.domain.machine.type q35 or fewer vCPUs",
        )


def _ceiling_not_below(spec: NumaVMSpec) -> Iterator[Violation]:
    cpu = spec.domain.cpu
    if cpu.max_sockets is not None and cpu.max_sockets < cpu.sockets:
        yield Violation(
            f"{CPU}.maxSockets",
            str(cpu.max_sockets),
            f"{CPU}.sockets is {cpu.sockets}, and no more than maxSockets can be on",
            "raise maxSockets, or lower sockets",
        )


def _boot_vcpus_one_way(spec: NumaVMSpec) -> Iterator[Violation]:
    cpu = spec.domain.cpu
    if cpu.vcpus is not None and cpu.online_vcpus is not None:
        yield Violation(
            f"{CPU}.vcpus",
            str(cpu.vcpus),
            f"{CPU}.onlineVcpus '{cpu.online_vcpus}' says which vCPUs are on already",
            "leave one of the two out",
        )
    finer = "vcpus" if cpu.vcpus is not None else "onlineVcpus"
    if cpu.all_sockets > cpu.sockets and (cpu.vcpus is not None or cpu.online_vcpus is not None):
        yield Violation(
            f"{CPU}.maxSockets",
            str(cpu.max_sockets),
            f"{CPU}.{finer} says which vCPUs are on, and counts among all that sockets has",
            f"set {CPU}.sockets to {cpu.all_sockets} and leave maxSockets out, or leave {finer} out",
        )


def _boot_vcpus_exist(spec: NumaVMSpec) -> Iterator[Violation]:
    cpu = spec.domain.cpu
    if cpu.vcpus is not None and cpu.vcpus > cpu.max_vcpus:
        yield Violation(
            f"{CPU}.vcpus",
            str(cpu.vcpus),
            f"sockets*dies*cores*threads gives {cpu.max_vcpus} vCPUs",
            f"lower it, or raise {CPU}.sockets",
        )
    online = cpu.online_vcpus
    if online is None:
        return
    yield from _past_the_maximum(f"{CPU}.onlineVcpus", online, cpu)
    if 0 not in online:
        yield Violation(
            f"{CPU}.onlineVcpus", f"'{online}'", "vCPU 0 boots the guest", f"write '0,{online}'"
        )


def _policies_need_dedicated_cpus(spec: NumaVMSpec) -> Iterator[Violation]:
    cpu = spec.domain.cpu
    if cpu.dedicated_cpu_placement:
        return
    if cpu.thread_policy is not ThreadPolicy.PREFER:
        yield Violation(
            f"{CPU}.threadPolicy",
            cpu.thread_policy,
            "vCPUs without dedicated CPUs float over threads of any core",
            f"set {CPU}.dedicatedCpuPlacement to true or leave threadPolicy out",
        )
    if cpu.isolate_emulator_thread:
        yield Violation(
            f"{CPU}.isolateEmulatorThread",
            "true",
            "only a VM with dedicated CPUs can hold a pCPU for its emulator",
            f"set {CPU}.dedicatedCpuPlacement to true or leave isolateEmulatorThread out",
        )
    if cpu.realtime is not None:
        yield Violation(
            f"{CPU}.realtime.priority",
            str(cpu.realtime.priority),
            "a SCHED_FIFO thread would starve all that share its CPU",
            f"set {CPU}.dedicatedCpuPlacement to true or leave realtime out",
        )


def _cache_as_libvirt_has_it(spec: NumaVMSpec) -> Iterator[Violation]:
    cache = spec.domain.cpu.cache
    if cache is None:
        return
    wanted = EMULATED_LEVEL if cache.mode is CacheMode.EMULATE else None
    if cache.level != wanted:
        yield Violation(
            f"{CPU}.cache.level",
            str(cache.level or "nothing"),
            f"with mode {cache.mode} libvirt takes {wanted or 'no level'}",
            f"set level to {wanted}" if wanted else "leave level out",
        )
    if cache.mode is CacheMode.PASSTHROUGH and spec.domain.cpu.model != HOST_PASSTHROUGH:
        yield Violation(
            f"{CPU}.cache.mode",
            cache.mode,
            f"{CPU}.model is {spec.domain.cpu.model}, and only {HOST_PASSTHROUGH} has the host's caches",
            f"set {CPU}.model to {HOST_PASSTHROUGH}, or mode to emulate with level 3",
        )


def _features_once(spec: NumaVMSpec) -> Iterator[Violation]:
    names = [feature.name for feature in spec.domain.cpu.features]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Violation(
                f"{CPU}.features[{index}].name",
                f"'{name}'",
                "an earlier entry has a policy for it",
                "keep one of the two",
            )


def _realtime_can_hold(spec: NumaVMSpec) -> Iterator[Violation]:
    cpu = spec.domain.cpu
    if cpu.realtime is None:
        return
    if cpu.realtime.mask is not None:
        yield from _past_the_maximum(f"{CPU}.realtime.mask", cpu.realtime.mask, cpu)
    if spec.domain.memory.backing.same_page_merging is Switch.ENABLED:
        yield Violation(
            "spec.domain.memory.backing.samePageMerging",
            Switch.ENABLED,
            f"with {CPU}.realtime no write may wait for a merged page to be split",
            "leave samePageMerging out, or realtime",
        )


def _pins_of_vcpus_that_exist(spec: NumaVMSpec) -> Iterator[Violation]:
    """Libvirt drops a pin past the maximum without a word (measured)."""
    cpu = spec.domain.cpu
    seen: set[int] = set()
    for index, pin in enumerate(cpu.pinning.vcpus if cpu.pinning else ()):
        field = f"{PINNING}.vcpus[{index}].vcpu"
        yield from _past_the_maximum(field, CpuSet.of(pin.vcpu), cpu)
        if pin.vcpu in seen:
            yield Violation(field, str(pin.vcpu), "an earlier entry pins it", "keep one of the two")
        seen.add(pin.vcpu)


def _pins_of_io_threads_that_exist(spec: NumaVMSpec) -> Iterator[Violation]:
    """Libvirt refuses the pin of an I/O thread that the domain does not have."""
    threads = effective(spec).io_threads
    pinning = spec.domain.cpu.pinning
    for index, pin in enumerate(pinning.io_threads if pinning else ()):
        field = f"{PINNING}.ioThreads[{index}].id"
        if pin.id not in threads.ids:
            ids = ", ".join(map(str, threads.ids)) or "none"
            limit = f"the VM has the I/O threads {ids}"
            remedy = "pin one of them, or add it to spec.domain.ioThreads"
            yield Violation(field, str(pin.id), limit, remedy)


def _past_the_maximum(field: str, vcpus: CpuSet, cpu: Cpu) -> Iterator[Violation]:
    past = vcpus - CpuSet(frozenset(range(cpu.max_vcpus)))
    if past:
        yield Violation(
            field,
            f"'{vcpus}'",
            f"vCPU {past} does not exist: the VM has vCPUs 0 to {cpu.max_vcpus - 1}",
            "name only these, or raise the number of vCPUs",
        )
