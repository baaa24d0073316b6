"""Whether a running VM is to hold another claim on its host, and how that stands. Pure.

Level-triggered: the claim says where guest cells are, the spec where they should be; nothing else is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from numavm_api.conditions import ConditionType, Reason
from numavm_api.cpuset import CpuSet
from numavm_api.effective import effective
from numavm_api.effective_modules import ModuleKind
from numavm_api.growth import as_it_runs
from numavm_api.movable import why_unmovable
from numavm_api.placement import Placement
from numavm_api.quantity import Bytes
from numavm_api.vm_status import DomainState
from numavm_operator.placement.moves import InUse, memory_moves, moved_cells
from numavm_operator.reconcile.ready import domain_of_claim
from numavm_operator.reconcile.verdict import Verdict
from numavm_operator.reconcile.world import Outcome, Reach, World

_AT_REST: Final = frozenset({ConditionType.HOT_VCPU_CHANGE, ConditionType.HOT_MEMORY_CHANGE})
_CLAIMED: Final = frozenset({ModuleKind.DIMM, ModuleKind.VIRTIO_MEM})
_MOVABLE_STATES = (DomainState.RUNNING, DomainState.PAUSED)


def wanted_moves(world: World) -> Mapping[int, CpuSet]:
    """Return guest cell -> host cells, of those that the spec wants elsewhere than the claim has them."""
    spec, placement = world.vm.accepted, world.vm.status.placement
    if spec is None or placement is None or not world.wanted.runs:
        return {}
    return moved_cells(placement, effective(spec), in_use(world))


def in_use(world: World) -> InUse | None:
    """Return what the running guest has; None: its agent has not seen the spec, or something is about to change."""
    status, generation = world.vm.status, world.vm.generation
    topology, memory, domain = status.current_cpu_topology, status.memory, status.domain
    if topology is None or memory is None or domain is None:
        return None
    rests = {
        one.type
        for one in status.conditions
        if one.status == "True" and one.observed_generation == generation
    }
    if not rests >= _AT_REST or domain.observed_generation != generation:
        return None
    beside: dict[int, Bytes] = {}
    for module in memory.devices:
        if module.cell is not None and module.model in _CLAIMED:
            amounts = (module.requested, module.current)
            known = [amount for amount in amounts if amount is not None]
            has = max(known, default=module.size)
            beside[module.cell] = Bytes(beside.get(module.cell, 0) + has)
    return InUse(topology.online_vcpus, beside)


def is_taken_back(world: World) -> bool:
    """Tell whether the spec wants the VM where it was before the change that is under way."""
    spec, placement = world.vm.accepted, world.vm.status.placement
    before = placement.earlier if placement is not None else None
    if spec is None or before is None or not wanted_moves(world):
        return False
    return not moved_cells(before, effective(spec))


def wants_amending(world: World) -> bool:
    """Tell whether a running VM, no change of which is under way, is to be moved on its host, and can be."""
    return bool(wanted_moves(world)) and is_movable(world) and why_fixed(world) is None


def is_movable(world: World) -> bool:
    """Tell whether a domain runs under the claim and its agent answers; else there is nothing to move now."""
    domain, host = domain_of_claim(world), world.host
    return (
        domain is not None
        and domain.state in _MOVABLE_STATES
        and host is not None
        and host.reach is Reach.REACHABLE
    )


def why_fixed(world: World) -> str | None:
    """Return why the running VM's memory cannot be moved where it is; None: it can, or only CPUs are to change."""
    placement = world.vm.status.placement
    if placement is None or not memory_moves(placement, wanted_moves(world)):
        return None
    if placement.devices:
        names = ", ".join(device.name for device in placement.devices)
        return f"host devices ({names}) are assigned to it, and may write to any of its pages"
    spec = world.vm.spec
    unmovable = why_unmovable(as_it_runs(spec, world.vm.status)) if spec is not None else None
    return unmovable or (world.host.why_fixed if world.host is not None else None)


def capacity_reserved(world: World) -> Verdict:
    """Say whether the claim holds what a change of the running VM needs, and if not, why."""
    placement = world.vm.status.placement
    if placement is None:
        return Verdict("Unknown", Reason.NOT_PLACED, "No host holds the VM.")
    if placement.previous is not None:
        text = f"Guest cells move from {placement.previous.summary} to {placement.summary}; both are held."
        return Verdict("True", Reason.CHANGING, text)
    moves = wanted_moves(world)
    if not moves or not is_movable(world):
        return Verdict("True", Reason.RESERVED, "The claim holds all that the running VM needs.")
    wish = _wish(placement, moves)
    fixed = why_fixed(world)
    if fixed is not None:
        text = f"{wish}, but the running VM cannot be moved: {fixed}. A restart applies it."
        return Verdict("False", Reason.NOT_MOVABLE, text)
    if world.waiting is None:
        return Verdict("Unknown", Reason.WAITING_FOR_OPERATOR, f"{wish}.")
    over = world.waiting.outcome is Outcome.QUOTA_EXCEEDED
    reason = Reason.QUOTA_EXCEEDED if over else Reason.NO_ROOM
    return Verdict("False", reason, f"{wish}. {world.waiting.message}")


def _wish(placement: Placement, moves: Mapping[int, CpuSet]) -> str:
    placed = {cell.id: cell.host_cells for cell in placement.cells}
    wishes = (
        f"guest cell {cell} on {cells}, not {placed[cell]}"
        if cells != placed[cell]
        else f"other CPUs for guest cell {cell} on host cells {cells}"
        for cell, cells in moves.items()
    )
    return f"The spec wants {', '.join(wishes)}"
