"""A digest of what a placement was decided for.

Where a VM's digest is still the one its claim was made for, it may start again under that claim; else it is placed anew.
Built from the effective spec, so that writing a default out changes nothing. Host cells that the user names are not part of
it: a claim says itself where it is, and a running VM follows a changed binding without a restart.
"""

from __future__ import annotations

import hashlib
import json

from numavm_api.effective import EffectiveCell, effective
from numavm_api.numavm import NumaVMSpec
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
    }
    text = json.dumps(request, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _cell(cell: EffectiveCell) -> dict[str, object]:
    return {
        "id": cell.id,
        "vcpus": str(cell.vcpus),
        "memory": format_bytes(cell.memory),
        "pageSize": format_bytes(cell.page_size),
        "mode": cell.mode,
    }
