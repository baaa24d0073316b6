"""What a spec says of CPUs and cells, with defaults: host CPUs chosen by hand, realtime, distances. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from numavm_api.cpu import LOCAL_DISTANCE, REMOTE_DISTANCE, Cpu, GuestCell
from numavm_api.cpuset import CpuSet


@dataclass(frozen=True, slots=True)
class EffectiveRealtime:
    """vCPU threads under SCHED_FIFO."""

    vcpus: CpuSet
    priority: int


def effective_distances(cells: Sequence[GuestCell]) -> Mapping[tuple[int, int], int] | None:
    """Return the whole matrix: a direction that nobody named is that of the way back, and 20 where neither is named."""
    named = {(cell.id, one.cell): one.value for cell in cells for one in cell.distances}
    if not named:
        return None
    return {
        (cell.id, other.id): named.get((cell.id, other.id))
        or named.get((other.id, cell.id))
        or (LOCAL_DISTANCE if cell.id == other.id else REMOTE_DISTANCE)
        for cell in cells
        for other in cells
    }


def vcpu_candidates(cpu: Cpu) -> dict[int, CpuSet]:
    """Return the host CPUs that the user chose; a vCPU's own go before those of all (the article's rule)."""
    pinning = cpu.pinning
    if pinning is None:
        return {}
    of_all = dict.fromkeys(range(cpu.max_vcpus), pinning.cpuset) if pinning.cpuset else {}
    return {**of_all, **{pin.vcpu: pin.cpuset for pin in pinning.vcpus}}


def io_thread_candidates(cpu: Cpu) -> dict[int, CpuSet]:
    """Return the host CPUs that the user chose for I/O threads, by their ids."""
    return {pin.id: pin.cpuset for pin in cpu.pinning.io_threads} if cpu.pinning else {}


def effective_realtime(cpu: Cpu) -> EffectiveRealtime | None:
    """Return which vCPUs run under SCHED_FIFO: all, where no mask is given."""
    if cpu.realtime is None:
        return None
    every = CpuSet(frozenset(range(cpu.max_vcpus)))
    return EffectiveRealtime(vcpus=cpu.realtime.mask or every, priority=cpu.realtime.priority)
