"""A digest of what a placement was decided for.

Where a VM's digest is still the one its claim was made for, it may start again under that claim; else it is placed anew.
Built from the effective spec, so that writing a default out changes nothing. Host cells that the user names are not part of
it: a claim says itself where it is, and a running VM follows a changed binding without a restart.
"""

from __future__ import annotations

import hashlib
import json

from numavm_api.effective import EffectiveCell, EffectiveHostDevice, EffectiveVM, effective
from numavm_api.numavm import LastLevelCache, NumaVMSpec
from numavm_api.powers import powers_asked
from numavm_api.quantity import format_bytes
from numavm_api.rules_devices import host_paths


def request_hash(spec: NumaVMSpec) -> str:
    """Return the digest, 32 hexadecimal digits, of what the choice of host, host cells and CPUs depends on."""
    vm = effective(spec)
    request = {
        "nodeSelector": dict(spec.node_selector),
        "type": spec.domain.type,
        "machine": spec.domain.machine.type,
        "paths": sorted(path for _, path in host_paths(spec)),
        "devices": len(spec.domain.devices.disks) + len(spec.domain.devices.interfaces),
        "threads": vm.threads_per_core,
        "dedicated": vm.dedicated,
        "threadPolicy": vm.thread_policy if vm.dedicated else None,
        "isolateEmulatorThread": vm.isolate_emulator_thread,
        "cellSharing": vm.cell_sharing,
        "cellsDeclared": vm.cells_declared,
        "cells": [_cell(cell) for cell in vm.cells],
    } | _wishes(spec, vm)
    text = json.dumps(request, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _wishes(spec: NumaVMSpec, vm: EffectiveVM) -> dict[str, object]:
    """Return what else the placement looks at; what is not asked for has no part in the digest of older versions."""
    nodes = spec.affinity.node_affinity
    wishes = {
        "affinity": nodes.model_dump(mode="json", exclude_defaults=True) if nodes else {},
        "tolerations": sorted(
            [one.key or "", one.operator, one.value or "", one.effect or ""]
            for one in spec.tolerations
        ),
        "vcpuCandidates": {str(vcpu): str(cpus) for vcpu, cpus in vm.vcpu_candidates.items()},
        "emulatorCandidates": str(vm.emulator_candidates or ""),
        "dedicatedIoThreads": vm.dedicated_io_threads,
        "ioThreadCandidates": _io_thread_candidates(vm),
        "hostDevices": [_device(device) for device in vm.host_devices],
        "derivedCells": [vm.derived_cells.count] if vm.derived_cells else [],
        "reserveMaximum": vm.reserve_maximum,
        "maxMemory": vm.max_memory if vm.reserve_maximum else None,
        "onlineVcpus": str(vm.online_vcpus or "") if not vm.reserve_maximum else "",
        "powers": sorted(str(power) for power in powers_asked(spec)),
        "modules": [
            [one.name, one.cell, str(one.host_cells or ""), int(one.page_size), int(one.claimed)]
            for one in vm.modules_apart
        ],
        "spread": sorted(
            [one.over, sorted(one.label_selector.match_labels.items())]
            for one in spec.placement.spread
        ),
        "lastLevelCache": "Whole" if vm.last_level_cache is LastLevelCache.WHOLE else "",
    }
    return {name: wish for name, wish in wishes.items() if wish}


def _io_thread_candidates(vm: EffectiveVM) -> dict[str, str]:
    """Return the candidates of I/O threads that hold a CPU; where others float, the placement does not look."""
    if not vm.dedicated_io_threads:
        return {}
    return {str(number): str(cpus) for number, cpus in vm.io_thread_candidates.items()}


def _device(device: EffectiveHostDevice) -> list[object]:
    near = [device.cell, device.affinity]
    return [device.name, sorted(device.addresses), device.selector, *near]


def _cell(cell: EffectiveCell) -> dict[str, object]:
    wishes = {
        "fallback": [format_bytes(size) for size in cell.fallback_page_sizes],
        "plugged": int(cell.plugged),
        "class": cell.cell_class,
    }
    return {name: wish for name, wish in wishes.items() if wish} | {
        "id": cell.id,
        "vcpus": str(cell.vcpus),
        "memory": format_bytes(cell.memory),
        "pageSize": format_bytes(cell.page_size),
        "mode": cell.mode,
    }
