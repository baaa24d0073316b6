"""Whether the host devices of a claim may be given to its VM here, now. Pure.

The scheduler's word is not enough: a device may have been unplugged, forbidden, or taken by a domain of somebody else.
A whole IOMMU group goes to one process (VFIO), so that a neighbour in it counts as the device itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from numavm_api.conditions import ClaimRefusalReason as Why
from numavm_api.effective import EffectiveHostDevice
from numavm_api.effective_modules import EffectiveModule, ModuleKind
from numavm_api.numahost import HeldClaim, PciDevice, Permitted
from numavm_api.placement import PlacedDevice, Placement

PMEM_SINCE: Final = (9, 1)
"""The first libvirt that is not known to fail; nobody has measured it."""

Refusals = Iterator[tuple[Why, str]]


@dataclass(frozen=True, slots=True)
class DevicesHere:
    """The devices of this host, and who has them."""

    devices: Sequence[PciDevice]
    """As the kernel shows them."""
    permitted: Permitted
    """The administrator's word."""
    held: Sequence[HeldClaim]
    """Every admitted claim but the one to be judged."""
    foreign: frozenset[str]
    """Addresses of devices that domains of others hold."""


def device_refusals(
    placement: Placement, wanted: Sequence[EffectiveHostDevice], here: DevicesHere
) -> Refusals:
    """Yield why a device of the claim cannot be given to the VM."""
    there = {device.address: device for device in here.devices}
    asked = {device.name: device for device in wanted}
    for claimed in placement.devices:
        found = there.get(claimed.address)
        where = f"placement.devices[{claimed.name}].address is {claimed.address}"
        if found is None:
            yield Why.DEVICE_MISSING, f"{where}, but this host has no such PCI device"
        else:
            yield from _not_as_said(where, claimed, found, asked.get(claimed.name))
            yield from _not_permitted(where, found, here.permitted)
            yield from _taken(where, found, here)


def too_old_for(modules: Sequence[EffectiveModule], libvirt_version: str) -> Refusals:
    """Yield why this host's libvirt cannot start a VM with these memory modules.

    Measured: libvirt 9.0.0 refuses every start with virtio-pmem under QEMU 7.2, "virtio-pmem memory device info is not
    handled yet" (qemuMonitorJSONGetMemoryDeviceInfo); its parser and command line have it.
    """
    for module in modules:
        if module.kind is ModuleKind.VIRTIO_PMEM and _version(libvirt_version) < PMEM_SINCE:
            where = f"spec.domain.devices.memory[{module.name}] is virtioPmem"
            limit = f"libvirt here is {libvirt_version}, which cannot start it"
            remedy = "use nvdimm, or a host with a newer libvirt"
            yield Why.UNSUPPORTED, f"{where}, but {limit}: {remedy}"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def is_asked_for(device: PciDevice, wanted: EffectiveHostDevice) -> bool:
    """Tell whether a device of the host is one that the spec asks for."""
    if wanted.addresses:
        return device.address in wanted.addresses
    return wanted.selector == (device.vendor, device.device)


def _not_as_said(
    where: str, claimed: PlacedDevice, found: PciDevice, wanted: EffectiveHostDevice | None
) -> Refusals:
    if wanted is None or not is_asked_for(found, wanted):
        source = f"the source that spec.domain.devices.hostDevices[{claimed.name}] names"
        yield (
            Why.SPEC_CHANGED,
            f"{where}, a {found.vendor}:{found.device}, but that is not {source}",
        )
    if claimed.host_cell != found.cell:
        yield (
            Why.UNKNOWN_CELL,
            f"{where} on host cell {claimed.host_cell}, but the kernel says {found.cell}",
        )


def _not_permitted(where: str, found: PciDevice, permitted: Permitted) -> Refusals:
    kind = f"{found.vendor}:{found.device}"
    if not permitted.permits_device(
        address=found.address, vendor=found.vendor, device=found.device
    ):
        names = f"names neither that address nor {kind}: add one of them"
        yield (
            Why.NOT_PERMITTED,
            f"{where}, but the NumaHost's spec.permitted.pciDevices {names}",
        )
    if found.iommu_group is None:
        need = "VFIO needs an IOMMU, on in the firmware and for the kernel (intel_iommu=on)"
        yield Why.UNSUPPORTED, f"{where}, but it is in no IOMMU group: {need}"


def _taken(where: str, found: PciDevice, here: DevicesHere) -> Refusals:
    group = {
        one.address
        for one in here.devices
        if one.iommu_group is not None and one.iommu_group == found.iommu_group
    } | {found.address}
    for claim in here.held:
        taken = sorted(group & {one.address for one in claim.placement.devices})
        if taken:
            holder = f"{claim.namespace}/{claim.name} (claim {claim.placement.id})"
            yield Why.DEVICE_TAKEN, f"{where}, but {', '.join(taken)} is held by {holder}"
    taken = sorted(group & here.foreign)
    if taken:
        yield (
            Why.DEVICE_TAKEN,
            f"{where}, but {', '.join(taken)} is held by a domain that NumaVM did not start",
        )
