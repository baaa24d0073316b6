"""What somebody changed past NumaVM on a running domain, host cells of its groups and its balloon: seen, and put back.

Threads are seen to by the keeper itself, with the pages. A group of a strictly bound domain may use the claim's host
cells and no others. A balloon that had come to its target and has another size now was set by somebody; one that has
not come there yet is the guest's affair, and so is one that deflates by itself when memory runs short.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from numavm_agent.ports import BalloonSeen, EventType
from numavm_agent.reconcile.balloon_report import target_of
from numavm_agent.reconcile.inventory import ManagedDomain
from numavm_agent.reconcile.jobs import JobOutcome, Moved, Settling
from numavm_agent.reconcile.memory import VmMemory
from numavm_agent.reconcile.tools import Tools
from numavm_agent.reconcile.workers import JobKind
from numavm_api.backing import Switch
from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.numavm import DriftPolicy, NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.quantity import Bytes, format_bytes

LOOK_SECONDS: Final = 15.0
"""Groups are read again after so long: that walks every thread of the domain."""
_HARD: Final = frozenset({BindingMode.STRICT, BindingMode.RESTRICTIVE})


def drifted_groups(placement: Placement, allowed: Mapping[str, CpuSet]) -> dict[str, CpuSet]:
    """Return group -> host cells it may use, of those that are not held to the claim's.

    Only a domain whose every guest cell is bound hard has groups that are held down.
    """
    if not {cell.mode for cell in placement.cells} <= _HARD:
        return {}
    return {
        group: cells for group, cells in allowed.items() if cells != placement.memory_host_cells
    }


def balloon_drifted(seen: BalloonSeen | None, spec: NumaVMSpec, reached: Bytes | None) -> bool:
    """Tell whether a balloon that had come to its target was set to another size.

    Args:
        seen: libvirt's word; None: it cannot say.
        spec: The spec that the domain has.
        reached: The target that the guest had come to; None: none in this run.
    """
    target, balloon = target_of(spec), spec.domain.memory.balloon
    if seen is None or target is None or balloon is None or reached != target:
        return False
    if any(device.virtio_mem is not None for device in spec.domain.devices.memory):
        return False  # libvirt counts what the guest has of it into the balloon's size
    deflates = balloon.autodeflate is Switch.ENABLED and seen.current > target
    return seen.current != target and not deflates


class DriftWatch:
    """Looks at domains that should stay as they are."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def look(
        self,
        domain: ManagedDomain,
        memory: VmMemory,
        settling: Settling,
        drift: DriftPolicy,
    ) -> None:
        """Have put back, or only tell of, what somebody changed; one thing at a time."""
        spec = domain.record.spec
        if spec is None or self._tools.workers.doing(domain.record.uid) is not None:
            return
        if not self._balloon(domain, spec, memory, drift):
            self._groups(domain, memory, settling, drift)

    def _balloon(
        self, domain: ManagedDomain, spec: NumaVMSpec, memory: VmMemory, drift: DriftPolicy
    ) -> bool:
        seen, target = domain.seen.balloon, target_of(spec)
        run, reached = memory.balloon_reached or (0, None)
        if run != domain.seen.run_id:
            reached = None
        if seen is None or target is None:
            return False
        if seen.current == target:
            memory.balloon_reached = (domain.seen.run_id, target)
            return False
        if not balloon_drifted(seen, spec, reached):
            return False
        # Once, until the guest is there again: it may be the guest that cannot.
        memory.balloon_reached = None
        sizes = f"{format_bytes(seen.current)} instead of {format_bytes(target)}"
        self._tell(domain, "Balloon", f"the size of the balloon: the guest has {sizes}", drift)
        if drift is DriftPolicy.REPORT:
            return False
        hypervisor, uid = self._tools.hypervisor, domain.record.uid

        def restore() -> JobOutcome:
            hypervisor.set_balloon(uid, target)
            return Moved(percent=0, settled=None, stuck=None)

        self._tools.workers.submit(uid, JobKind.CHANGE, restore)
        return True

    def _groups(
        self, domain: ManagedDomain, memory: VmMemory, settling: Settling, drift: DriftPolicy
    ) -> None:
        now = self._tools.clock.boottime()
        if domain.pid is None or now < memory.groups_at + LOOK_SECONDS:
            return
        memory.groups_at = now
        try:
            allowed = self._tools.rehome.memory.allowed_cells(domain.pid)
        except ProcessLookupError:
            return  # it has just ended: the next turn sees that
        drifted = drifted_groups(domain.record.placement, allowed)
        if not drifted:
            memory.groups_told = frozenset()
            return
        restores = drift is DriftPolicy.RESTORE
        if restores or memory.groups_told != frozenset(drifted):
            memory.groups_told = frozenset(drifted)
            where = ", ".join(sorted({str(cells) for cells in drifted.values()}))
            cells = domain.record.placement.memory_host_cells
            what = f"the host cells that its memory may be on: {where} instead of {cells}"
            self._tell(domain, "Binding", what, drift)
        if restores:
            rehome, groups = self._tools.rehome, tuple(drifted)
            self._tools.workers.submit(
                domain.record.uid, JobKind.SETTLE, lambda: rehome.restore(settling, groups)
            )

    def _tell(self, domain: ManagedDomain, kind: str, what: str, drift: DriftPolicy) -> None:
        record = domain.record
        about = (record.namespace, record.name, record.uid)
        warning = EventType.WARNING
        match drift:
            case DriftPolicy.RESTORE:
                note = f"Somebody changed {what}; it is restored"
                self._tools.tell(about, warning, f"{kind}Restored", "Restore", note)
            case DriftPolicy.REPORT:
                note = f"Somebody changed {what}; spec.driftPolicy is Report"
                self._tools.tell(about, warning, f"{kind}Drifted", "Report", note)
