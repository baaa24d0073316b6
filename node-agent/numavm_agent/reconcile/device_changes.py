"""Defaults of devices across fields, written out, so that one that is written out is no change. Pure."""

from __future__ import annotations

from typing import Any

from numavm_api.backing import Switch
from numavm_api.balloon import Balloon
from numavm_api.effective import EffectiveVM
from numavm_api.effective_modules import EffectiveModule
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import format_bytes


def device_memory(spec: NumaVMSpec, vm: EffectiveVM) -> dict[str, Any]:
    """Return what `spec.domain.memory` says of devices: the ceiling, slots, the balloon."""
    found: dict[str, Any] = {}
    if vm.max_memory is not None:
        found |= {"maxGuest": format_bytes(vm.max_memory), "slots": vm.slots}
    balloon = spec.domain.memory.balloon
    if balloon is not None:
        found["balloon"] = _balloon(balloon)
    return found


def with_device_defaults(domain: dict[str, Any], spec: NumaVMSpec, vm: EffectiveVM) -> None:
    """Write the defaults of modules, disks and I/O threads into `spec.domain` as JSON."""
    devices = domain["devices"]
    modules = {module.name: module for module in vm.modules}
    for entry in devices["memory"]:
        _fill_module(entry, modules[entry["name"]])
    for entry, disk in zip(devices["disks"], spec.domain.devices.disks, strict=True):
        if not disk.cdrom:
            entry["disk"] = {"bus": str(disk.bus)}
        if not disk.dedicated_io_thread:
            entry.pop("dedicatedIOThread", None)
    given = spec.domain.io_threads
    if given is not None:
        ids = set(given.ids)
        domain["ioThreads"] = {
            "placement": str(given.placement),
            "threads": [
                thread.model_dump(mode="json", by_alias=True, exclude_none=True)
                for thread in vm.io_threads.threads
                if thread.id in ids
            ],
        }


def _fill_module(entry: dict[str, Any], module: EffectiveModule) -> None:
    """The slots that NumaVM chose are left out: they say what the other modules are, not what this one is."""
    if "virtioMem" in entry and module.block is not None:
        entry["virtioMem"]["block"] = format_bytes(module.block)
    if not module.has_own_pages:
        entry.pop("hugepages", None)
    for kind in ("dimm", "nvdimm"):
        if entry.get(kind) == {}:
            entry[kind] = "{}"


def _balloon(balloon: Balloon) -> dict[str, Any]:
    document = balloon.model_dump(mode="json", by_alias=True, exclude_none=True)
    off = Switch.DISABLED
    return {
        **document,
        "autodeflate": balloon.autodeflate or off,
        "freePageReporting": balloon.free_page_reporting or off,
    }
