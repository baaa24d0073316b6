"""A digest of what a placement was decided for.

Where a VM's digest is still the one its claim was made for, it may start again under that claim; else it is placed anew.
Built from the effective spec, so that writing a default out changes nothing.
"""

from __future__ import annotations

import hashlib
import json

from numavm_api.effective import EffectiveCell, EffectiveVM, effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import format_bytes
from numavm_api.rules_devices import host_paths


def request_hash(spec: NumaVMSpec) -> str:
    """Return the digest, 32 hexadecimal digits, of all that the choice of host, host cells and CPUs depends on."""
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
        **_where_asked(vm),
    }
    text = json.dumps(request, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _where_asked(vm: EffectiveVM) -> dict[str, object]:
    """Return the parts that stand in a digest only where the spec asks for them: a digest of before they existed still holds."""
    parts: dict[str, object] = {
        "onlineVcpus": None if vm.online_vcpus is None else str(vm.online_vcpus),
        "vcpuCandidates": {str(vcpu): str(cpus) for vcpu, cpus in vm.vcpu_candidates.items()},
        "emulatorCandidates": str(vm.emulator_candidates or ""),
        "derivedCells": vm.derived_cells and {"count": vm.derived_cells.count},
        "dedicatedIoThreads": vm.dedicated_io_threads,
        "hostDevices": [
            [device.name, sorted(device.addresses), device.selector, device.cell, device.affinity]
            for device in vm.host_devices
        ],
    }
    return {name: part for name, part in parts.items() if part}


def _cell(cell: EffectiveCell) -> dict[str, object]:
    fallback = [format_bytes(size) for size in cell.fallback_page_sizes]
    return {
        **({"fallback": fallback} if fallback else {}),
        **({"plugged": format_bytes(cell.plugged)} if cell.plugged else {}),
        "id": cell.id,
        "vcpus": str(cell.vcpus),
        "memory": format_bytes(cell.memory),
        "pageSize": format_bytes(cell.page_size),
        "mode": cell.mode,
        "hostCells": None if cell.host_cells is None else str(cell.host_cells),
    }
