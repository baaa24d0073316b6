"""Why a host does not fit a VM that asks for CPUs or devices by name, or for I/O threads: the nearest miss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from numavm_api.host_devices import NumaAffinity
from numavm_operator.placement.bits import members
from numavm_operator.placement.devices import answers, assign_devices, near
from numavm_operator.placement.outcome import Cause, Miss
from numavm_operator.placement.problem import Problem
from numavm_operator.placement.shape import CpuRule, DeviceNeed


def named_miss(problem: Problem) -> Miss | None:
    """Return what is missing of that which the VM asks for by name; None: it is there, seen by itself."""
    return next(iter((*_devices(problem), *_pins(problem))), None)


def io_miss(problem: Problem) -> Miss | None:
    """Return the miss of I/O threads, for a VM whose guest cells would all fit."""
    wanted = problem.shape.io_threads
    if not wanted or not problem.open_cells:
        return None
    most = 0
    for guest in problem.open_cells:
        for cell in range(len(problem.cells)):
            with problem.loads.carrying([(cell, problem.shape.cells[guest])]):
                most = max(most, problem.loads.spare(cell))
    return Miss(Cause.IO_THREADS, wanted, most) if most < wanted else None


def together_by_name(problem: Problem) -> Miss | None:
    """Return the miss of what is asked for by name and is there, only not where the guest cells can be."""
    if problem.shape.devices:
        return Miss(Cause.DEVICES, 1, 0, detail="each guest cell near its host cell")
    return Miss(Cause.PINNED_CPUS, 1, 0) if problem.shape.by_hand else None


def _devices(problem: Problem) -> Iterator[Miss]:
    host, free, needs = problem.host, problem.state.devices, problem.shape.devices
    everywhere = tuple(range(len(problem.cells)))
    anywhere = [replace(need, affinity=NumaAffinity.NONE) for need in needs]
    cells = [everywhere] * len(problem.shape.cells)
    for count in range(1, len(needs) + 1):
        if assign_devices(host, free, anywhere[:count], cells) is None:
            yield Miss(Cause.DEVICES, count, count - 1, detail=_kind_of(needs[count - 1]))
            return
    for need in needs:
        fitting = [device for device in free if answers(device, need)]
        if not any(near(host, device, need, everywhere) for device in fitting):
            detail = f"{_kind_of(need)} with numaAffinity {need.affinity}"
            yield Miss(Cause.DEVICES, 1, 0, detail=detail)


def _kind_of(need: DeviceNeed) -> str:
    if need.addresses:
        return " or ".join(sorted(need.addresses))
    return ":".join(need.selector or ("any", "kind"))


def _pins(problem: Problem) -> Iterator[Miss]:
    shape, free = problem.shape, 0
    if shape.rule is CpuRule.FLOAT:
        return
    for cell in problem.host.cells:
        free |= cell.dedicated & ~problem.state.held_cpus
    pins = [pin for need in shape.cells for pin in need.pins if pin is not None]
    if shape.emulators and shape.emulator_pins is not None:
        pins.append(shape.emulator_pins)
    named = 0
    for pin in pins:
        named |= pin
    there = len(members(named & free))
    lacking = [pin for pin in pins if not pin & free]
    if lacking or there < len(pins):
        yield Miss(Cause.PINNED_CPUS, len(pins), min(there, len(pins) - len(lacking)))
