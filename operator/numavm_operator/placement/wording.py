"""What each cause is called, and what would help: the words of messages, events and `explain`."""

from __future__ import annotations

from numavm_api.quantity import BASE_PAGE, format_bytes
from numavm_operator.placement.outcome import Cause, Miss


def phrase(miss: Miss) -> str:
    """Return why a host does not fit, as what follows `host-a` in a sentence that begins with its name or a count."""
    if miss.cause in _PLAIN:
        return _PLAIN[miss.cause].format(detail=miss.detail)
    return _NUMBERED[miss.cause].format(
        wanted=_amount(miss, miss.wanted),
        available=_amount(miss, miss.available),
        page=_page(miss),
        where=_where(miss),
    )


def remedy(miss: Miss) -> str:
    """Return the edit that would help."""
    return _REMEDIES[miss.cause].format(
        detail=miss.detail,
        available=_amount(miss, miss.available),
        missing=_amount(miss, miss.missing),
        page=_page(miss),
        where=_cell(miss),
    )


def _amount(miss: Miss, number: int) -> str:
    if miss.cause in (Cause.MEMORY, Cause.QEMU_OVERHEAD):
        return format_bytes(max(number, 0) // BASE_PAGE * BASE_PAGE)
    if miss.cause is Cause.HUGE_PAGES and miss.page_size:
        return str(max(number, 0) // miss.page_size)
    return str(number)


def _page(miss: Miss) -> str:
    return format_bytes(miss.page_size or BASE_PAGE)


def _where(miss: Miss) -> str:
    """Name the place without naming the cell: hosts that fail alike share one phrase."""
    return "in its best cell" if miss.host_cell is not None else "in all"


def _cell(miss: Miss) -> str:
    return f" on host cell {miss.host_cell}" if miss.host_cell is not None else ""


_PLAIN = {
    Cause.TIED_ELSEWHERE: "not {detail}, where the VM's disk lies",
    Cause.FENCED: "fenced",
    Cause.UNSCHEDULABLE: "unschedulable",
    Cause.UNREACHABLE: "unreachable",
    Cause.NOT_READY: "not ready ({detail})",
    Cause.EXCLUDED: "refused it lately ({detail})",
    Cause.KEPT: "kept for {detail}",
    Cause.SPREAD: "with {detail}, which it is to be spread from",
    Cause.TAINT: "tainted {detail}",
    Cause.NODE_AFFINITY: "not suiting spec.affinity.nodeAffinity",
    Cause.DEVICES: "without a free device for {detail}",
    Cause.NODE_SELECTOR: "without label {detail}",
    Cause.NO_KVM: "without KVM",
    Cause.EMULATION_NOT_ALLOWED: "without emulation allowed",
    Cause.MACHINE_TYPE: "without machine type {detail}",
    Cause.NOT_PERMITTED: "not permitting {detail}",
    Cause.POWER_NOT_PERMITTED: "without permitted.{detail}",
    Cause.NETWORK_NOT_PERMITTED: "without permitted.{detail}",
    Cause.HOST_CELL_CLASS: "without {detail}",
    Cause.UNKNOWN_CELL: "without host cell {detail}",
}
_NUMBERED = {
    Cause.MAX_VCPUS: "limited to {available} vCPUs, {wanted} wanted",
    Cause.NO_SIBLINGS: "with {available} threads per core, {wanted} wanted as siblings",
    Cause.DEDICATED_CPUS: "with {available} free dedicated CPUs {where}, {wanted} wanted",
    Cause.SIBLING_THREADS: "with {available} free groups of sibling threads {where}, {wanted} wanted",
    Cause.WHOLE_CORES: "with {available} wholly free cores {where}, {wanted} wanted",
    Cause.SHARED_CPUS: "with room for {available} shared vCPUs {where}, {wanted} wanted",
    Cause.MEMORY: "with {available} free memory {where}, {wanted} wanted",
    Cause.HUGE_PAGES: "with {available} free pages of {page} {where}, {wanted} wanted",
    Cause.PINNED_CPUS: "with {available} of the {wanted} CPUs named by hand free",
    Cause.WHOLE_CACHES: "with {available} free CPUs in whole last-level caches {where}, {wanted} wanted",
    Cause.IO_THREADS: "with CPUs for {available} I/O threads, {wanted} wanted",
    Cause.HOST_CELLS: "with room for {available} of the {wanted} guest cells at once",
    Cause.QEMU_OVERHEAD: "with {available} for QEMU itself {where}, {wanted} wanted",
    Cause.EMULATOR_CPUS: "with no CPU left for emulator threads",
}
_REMEDIES = {
    Cause.TIED_ELSEWHERE: "the disk ties the VM to {detail}; move the image to move the VM",
    Cause.FENCED: "clear NumaHost spec.fenced when the host is back",
    Cause.UNSCHEDULABLE: "set NumaHost spec.unschedulable to false",
    Cause.UNREACHABLE: "start the agent there, or look at its Lease",
    Cause.NOT_READY: "see the NumaHost's conditions",
    Cause.EXCLUDED: "free what the agent found taken; it is tried again when the NumaHost changes",
    Cause.KEPT: "wait: it is kept no longer than the queue's time limit, or raise spec.priorityClassName",
    Cause.SPREAD: "add a host, stop {detail}, or change spec.placement.spread",
    Cause.TAINT: "add a toleration to spec.tolerations, or take the taint {detail} off the node",
    Cause.NODE_AFFINITY: "label the node so that a required term suits it, or change spec.affinity.nodeAffinity",
    Cause.DEVICES: "free one, set its numaAffinity to Preferred or None, or ask for another device",
    Cause.PINNED_CPUS: "free them, or name more CPUs in spec.domain.cpu.pinning",
    Cause.WHOLE_CACHES: "set spec.placement.lastLevelCache to Prefer, or free a whole cache{where}",
    Cause.IO_THREADS: "free {missing} CPUs beside the VM, or ask for fewer dedicated I/O threads",
    Cause.NODE_SELECTOR: "label the node {detail}, or drop it from spec.nodeSelector",
    Cause.NO_KVM: "enable virtualization there, or set spec.domain.type to TCG and allowEmulation on a host",
    Cause.EMULATION_NOT_ALLOWED: "set NumaHost spec.allowEmulation to true, or spec.domain.type to KVM",
    Cause.MACHINE_TYPE: "use a machine type that the host's QEMU has; {detail} is none",
    Cause.MAX_VCPUS: "ask for at most {available} vCPUs",
    Cause.NOT_PERMITTED: "add a directory above {detail} to NumaHost spec.permitted.directories",
    Cause.POWER_NOT_PERMITTED: "set NumaHost spec.permitted.{detail} to true, or do without it",
    Cause.NETWORK_NOT_PERMITTED: "add it to NumaHost spec.permitted ({detail}), or connect the VM elsewhere",
    Cause.HOST_CELL_CLASS: "drop hostCellClass, or add a host that has {detail} (NumaHost status.cells[].class)",
    Cause.UNKNOWN_CELL: "bind to host cells that exist; host cell {detail} does not",
    Cause.NO_SIBLINGS: "set spec.domain.cpu.threadPolicy to Prefer, or threads to at most {available}",
    Cause.DEDICATED_CPUS: "free {missing} CPUs{where}, ask for {available} per cell, or use more, smaller cells",
    Cause.SIBLING_THREADS: "free {missing} more groups of siblings{where}, or set threadPolicy to Prefer",
    Cause.WHOLE_CORES: "free {missing} whole cores{where}, or set threadPolicy to Prefer",
    Cause.SHARED_CPUS: "raise NumaHost spec.cpuAllocationPercent, or free room for {missing} vCPUs{where}",
    Cause.MEMORY: "free {missing}{where}, ask for {available} per cell, or use more, smaller cells",
    Cause.HUGE_PAGES: "add {missing} pages of {page}{where}, or ask for a page size that is there",
    Cause.HOST_CELLS: "set spec.placement.cellSharing to Allow, or use fewer, larger cells",
    Cause.QEMU_OVERHEAD: "leave {missing} more base pages free{where} (fewer huge pages, or a smaller VM)",
    Cause.EMULATOR_CPUS: "reserve a CPU of the cell (NumaHost spec.reservedCpus), or set isolateEmulatorThread",
}
