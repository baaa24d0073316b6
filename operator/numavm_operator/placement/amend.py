"""An amended claim: a running VM's, with some guest cells on other host cells. Pure.

Only what moves is decided anew: cells that stay keep their CPUs, and so do emulator and overhead where their host cell
stays the VM's. The VM's own former CPUs and memory count as free to it, since one domain holds both claims while it
moves: so two cells can change places on a full host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from numavm_api.cpuset import CpuSet
from numavm_api.derived import as_it_is_split
from numavm_api.effective import EffectiveCell, EffectiveVM
from numavm_api.placement import CpuPlacement, PlacedCell, Placement
from numavm_api.quantity import NO_BYTES, Bytes
from numavm_operator.placement.bits import cpus_of, mask_of
from numavm_operator.placement.build import placement_of
from numavm_operator.placement.fit import OutOfSteps, fit, why_not
from numavm_operator.placement.fleet import Fleet
from numavm_operator.placement.moves import (
    InUse,
    added_vcpus,
    is_pinned_elsewhere,
    wished_beside,
)
from numavm_operator.placement.outcome import CauseCount, Miss, Placed, Refusal, Undecided
from numavm_operator.placement.policy import Policy
from numavm_operator.placement.problem import Fit
from numavm_operator.placement.request import Request, request_for
from numavm_operator.placement.state import HostState

_SUMMARY_LENGTH = 256


def turned_back(claim: Placement, *, placement_id: str, epoch: int) -> Placement | None:
    """Return the claim that was before `claim`, with that one beside it; None: there was none."""
    before = claim.earlier
    if before is None:
        return None
    update = {"id": placement_id, "epoch": max(epoch, claim.epoch)}
    return before.model_copy(update=update).replacing(claim.alone)


def amend(
    request: Request,
    fleet: Fleet,
    node_name: str,
    claim: Placement,
    moves: Mapping[int, CpuSet],
    policy: Policy,
    in_use: InUse | None = None,
) -> Placed | Refusal | Undecided:
    """Return the claim of a running VM after `moves`, with `claim` beside it, or why there is no room.

    Args:
        request: The VM as its spec is now: uid, thread policy, and what the new claim is called.
        fleet: The hosts, with the VM's own claim.
        node_name: Where it runs.
        claim: What it holds.
        moves: Guest cell -> host cells; what the cells need is what the claim says, not the spec.
        policy: The engine's.
        in_use: What the guest has, where what it no longer has is to be let go.
    """
    state = fleet.states.get(node_name)
    if state is None:
        return Undecided(1, (node_name,), ())
    staying = _staying(state, claim, moves)
    beside = state.with_claims(request.uid, (staying,) if staying else ())
    part = _part(
        request, claim, moves, emulator_moves=not _emulator_stays(claim, moves), in_use=in_use
    )
    verdict = fit(beside, part.wanted, policy)
    match verdict:
        case Fit():
            found = placement_of(beside, part, verdict)
            merged = _merged(claim, found, request, _kept_cpus(state, claim, moves))
            if not _emulator_stays(claim, moves):
                update = {
                    "emulator_cpus": found.emulator_cpus,
                    "overhead_cell": found.overhead_cell,
                }
                merged = merged.model_copy(update=update)
            return Placed(node_name, merged.replacing(claim.alone), spans_cells=False, distance=0)
        case OutOfSteps():
            return Undecided(1, (node_name,), ())
        case _:
            miss = verdict if isinstance(verdict, Miss) else why_not(beside, part.wanted)
            return Refusal(1, (CauseCount(miss.cause, 1, node_name, miss),))


def _emulator_stays(claim: Placement, moves: Mapping[int, CpuSet]) -> bool:
    """Tell whether QEMU's own memory and its emulator can stay where they are booked."""
    cells = CpuSet.union_of(moves.get(cell.id, cell.host_cells) for cell in claim.cells)
    return claim.overhead_cell in cells


def _staying(state: HostState, claim: Placement, moves: Mapping[int, CpuSet]) -> Placement | None:
    """Return what of a claim stays as it is; None: nothing."""
    cells = [cell for cell in claim.cells if cell.id not in moves]
    emulator_stays = _emulator_stays(claim, moves)
    if not cells and not emulator_stays and not claim.modules:
        return None
    return claim.alone.model_copy(
        update={
            "cells": cells,
            "dedicated_cpus": _kept_cpus(state, claim, moves),
            "emulator_cpus": claim.emulator_cpus if emulator_stays else CpuSet(),
            "overhead": claim.overhead if emulator_stays else Bytes(0),
        }
    )


def _kept_cpus(state: HostState, claim: Placement, moves: Mapping[int, CpuSet]) -> CpuSet:
    """Return the pCPUs that a claim keeps: all but the cores of what moves."""
    leaving = _cores_of(state, [cell for cell in claim.cells if cell.id in moves])
    kept = claim.dedicated_cpus - leaving - claim.emulator_cpus
    emulator = claim.emulator_cpus if _emulator_stays(claim, moves) else CpuSet()
    emulator = emulator | CpuSet.union_of(claim.io_thread_cpus)
    staying = CpuSet.union_of(
        pcpus for cell in claim.cells if cell.id not in moves for pcpus in cell.pcpus
    )
    return kept | emulator | staying


def _cores_of(state: HostState, cells: list[PlacedCell]) -> CpuSet:
    """Return the pCPUs of some guest cells, with the siblings that were left empty beside them."""
    pcpus = mask_of(CpuSet.union_of(cpus for cell in cells for cpus in cell.pcpus))
    cores = [core.threads for cell in state.host.cells for core in cell.cores]
    return cpus_of(pcpus | sum(threads for threads in set(cores) if threads & pcpus))


def _part(
    request: Request,
    claim: Placement,
    moves: Mapping[int, CpuSet],
    *,
    emulator_moves: bool,
    in_use: InUse | None,
) -> Request:
    """Return the request for the cells that move, and for the emulator if it does."""
    vm = as_it_is_split(request.vm, claim) or request.vm
    lets_go = None if vm.reserve_maximum else in_use
    placed = {cell.id: cell for cell in claim.cells}
    wished = {
        cell.id: wished_beside(placed[cell.id], cell, vm) for cell in vm.cells if cell.id in placed
    }
    classes = {cell.id: cell.cell_class for cell in vm.cells}
    cells = tuple(
        EffectiveCell(
            id=cell.id,
            vcpus=cell.vcpus,
            memory=cell.memory,
            page_size=cell.page_size,
            mode=cell.mode,
            host_cells=moves[cell.id],
            cell_class=classes.get(cell.id),
            plugged=_plugged(cell, wished.get(cell.id, NO_BYTES), moves[cell.id], lets_go),
        )
        for cell in claim.cells
        if cell.id in moves
    )
    dedicated = claim.cpu_placement is CpuPlacement.DEDICATED
    moving = replace(
        vm,
        cells=cells,
        cells_declared=True,
        dedicated=dedicated,
        isolate_emulator_thread=dedicated and emulator_moves and bool(claim.emulator_cpus),
        online_vcpus=CpuSet.union_of(
            _kept_vcpus(cell, vm, lets_go) | added_vcpus(claim, cell, vm)
            for cell in claim.cells
            if cell.id in moves
        ),
        vcpu_candidates={**vm.vcpu_candidates, **_kept_pins(request, claim, moves)},
        host_devices=(),
        modules=(),
        emulator_candidates=vm.emulator_candidates if emulator_moves else None,
        dedicated_io_threads=0,
        derived_cells=None,
        reserve_maximum=False,
    )
    part = request_for(
        moving,
        uid=request.uid,
        namespace=request.namespace,
        name=request.name,
        placement_id=request.placement_id,
        epoch=request.epoch,
        request_hash=claim.request_hash,
    )
    overhead = claim.overhead if emulator_moves else Bytes(0)
    way = part.wanted.ways[0]
    way = way._replace(shape=replace(way.shape, overhead=overhead))
    return part._replace(wanted=part.wanted._replace(ways=(way,)))


def _kept_pins(
    request: Request, claim: Placement, moves: Mapping[int, CpuSet]
) -> dict[int, CpuSet]:
    """Return the pCPUs that vCPUs keep in cells that only get more of them."""
    return {
        vcpu: pcpus
        for cell in claim.cells
        if moves.get(cell.id) == cell.host_cells and not is_pinned_elsewhere(cell, request.vm)
        for vcpu, pcpus in zip(cell.vcpus, cell.pcpus, strict=False)
        if pcpus
    }


def _kept_vcpus(cell: PlacedCell, vm: EffectiveVM, in_use: InUse | None) -> CpuSet:
    """Return the vCPUs for which a running cell keeps its room."""
    return cell.room if in_use is None else cell.room & (vm.boot_vcpus | in_use.vcpus)


def _plugged(cell: PlacedCell, wished: Bytes, host_cells: CpuSet, in_use: InUse | None) -> Bytes:
    """Return the modules that a cell holds room for: one thing after the other, none come where it moves."""
    has = cell.plugged or NO_BYTES
    if in_use is not None and host_cells == cell.host_cells:
        has = min(has, in_use.beside.get(cell.id, NO_BYTES))
    return Bytes(max(has, wished)) if host_cells == cell.host_cells else has


def _merged(claim: Placement, found: Placement, request: Request, kept: CpuSet) -> Placement:
    """Return the claim with the cells that were found in the place of their former selves."""
    moved = {cell.id: cell for cell in found.cells}
    cells = [moved.get(cell.id, cell) for cell in claim.cells]
    return claim.alone.model_copy(
        update={
            "id": request.placement_id,
            "epoch": request.epoch,
            "summary": ",".join(f"{cell.id}->{cell.host_cells}" for cell in cells)[
                :_SUMMARY_LENGTH
            ],
            "cells": cells,
            "dedicated_cpus": found.dedicated_cpus | kept,
        }
    )
