"""The condition `PoolsExclusive`: may the kubelet hand out what NumaVM may hand out? Pure.

Rules from outside: pods of the kubelet's static CPU manager get CPUs of their own out of all but
`reservedSystemCPUs`; all other pods float over what is left, `reservedSystemCPUs` included unless the policy option
`strict-cpu-reservation` is set (KEP-4540); without the static policy they float over every CPU. Huge pages cannot be
kept from the kubelet, so that they are left out here, and checked at each start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from numavm_agent.reconcile.conditions import Finding
from numavm_api.conditions import HostConditionType, Reason
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import HostCell, NumaHostSpec
from numavm_api.others import KubeletUse
from numavm_api.pools import OtherUsers, effective_pools
from numavm_api.quantity import BASE_PAGE, format_bytes

_KIND = HostConditionType.POOLS_EXCLUSIVE


def pools_exclusive(spec: NumaHostSpec, cells: Sequence[HostCell], others: OtherUsers) -> Finding:
    """Return the condition of a host with such pools, cells and kubelet."""
    if others.kubelet_error is not None:
        message = f"what pods hold is not known for certain: {others.kubelet_error}"
        return Finding(_KIND, "Unknown", Reason.KUBELET_UNAVAILABLE, message)
    if others.kubelet is None:
        return Finding(_KIND, "True", Reason.NO_KUBELET, "No kubelet runs here")
    # As if nobody held anything: a CPU that a pod holds already is no longer in the pools in force.
    named = effective_pools(spec, cells, others=OtherUsers(kubelet_runs=True))
    ours = named.dedicated | named.shared
    problems = [*_cpus(ours, others.kubelet), *_memory(cells, others.kubelet)]
    if problems:
        return Finding(_KIND, "False", Reason.OVERLAP, "; ".join(problems))
    return Finding(_KIND, "True", Reason.EXCLUSIVE, "The kubelet hands out other CPUs and memory")


def _cpus(ours: CpuSet, kubelet: KubeletUse) -> Iterator[str]:
    if not ours:
        return
    if not kubelet.allocatable_cpus and not kubelet.exclusive_cpus:
        yield (
            f"the kubelet's cpuManagerPolicy is none, so that pods run on every CPU, {ours} of NumaVM's pools "
            f"included: set cpuManagerPolicy: static with the option strict-cpu-reservation, and have "
            f"reservedSystemCPUs hold '{ours}'"
        )
        return
    both = ours & (kubelet.allocatable_cpus | kubelet.exclusive_cpus)
    if both:
        held = both & kubelet.exclusive_cpus
        now = f" (a pod holds {held} now)" if held else ""
        yield (
            f"the kubelet may give CPU {both} of NumaVM's pools to a pod{now}: have the kubelet's reservedSystemCPUs "
            f"hold '{ours}' too, with the option strict-cpu-reservation, or take CPU {both} out of "
            f"spec.dedicatedCpus and spec.sharedCpus"
        )


def _memory(cells: Sequence[HostCell], kubelet: KubeletUse) -> Iterator[str]:
    for block in kubelet.allocatable_memory:
        cell = next((one for one in cells if one.id == block.cell), None)
        if cell is None or block.page_size != BASE_PAGE:
            continue
        huge = sum(pool.total * pool.page_size for pool in cell.hugepages)
        excess = block.amount + cell.memory.allocatable - (cell.memory.total - huge)
        if excess > 0:
            yield (
                f"of host cell {cell.id} the kubelet may give {format_bytes(block.amount)} to pods and NumaVM "
                f"{format_bytes(cell.memory.allocatable)} to VMs, which is {format_bytes(excess)} more than there is: "
                f"raise the kubelet's reservedMemory of that cell, or spec.reservedMemory"
            )
