"""Host devices: which are free, and which of them a VM on given host cells gets.

A device is claimed by one VM, and its whole IOMMU group with it, since VFIO gives a group to one process only. How
near it has to be is the user's `numaAffinity`; a device of which the firmware names no cell (-1) is near nothing.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from numavm_api.host_devices import NumaAffinity
from numavm_api.numahost import NumaHostStatus
from numavm_operator.placement.flow import match_all
from numavm_operator.placement.shape import DeviceNeed

if TYPE_CHECKING:
    from numavm_operator.placement.host import Host

NO_CELL: Final = -1


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A PCI device of the host."""

    address: str
    host_cell: int
    """Id of its host cell, or `NO_CELL`."""
    selector: tuple[str, str]
    """Vendor and product."""
    group: int | None
    """IOMMU group."""
    permitted: bool = True
    """Whether the administrator lets VMs have it."""


def devices_of(status: NumaHostStatus) -> tuple[HostDevice, ...]:
    """Return the devices that the host's report names, and whether its administrator permits them."""
    permits = status.permitted.permits_device
    devices = [
        HostDevice(
            one.address,
            one.cell,
            (one.vendor, one.device),
            one.iommu_group,
            permits(address=one.address, vendor=one.vendor, device=one.device),
        )
        for one in status.pci_devices
    ]
    return tuple(sorted(devices, key=lambda device: device.address))


def free_devices(devices: Sequence[HostDevice], held: Container[str]) -> tuple[HostDevice, ...]:
    """Return the permitted devices no part of whose IOMMU group is held."""
    groups = {one.group for one in devices if one.address in held and one.group is not None}
    return tuple(
        one
        for one in devices
        if one.permitted and one.address not in held and one.group not in groups
    )


def answers(device: HostDevice, need: DeviceNeed) -> bool:
    """Tell whether this is a device of the kind asked for."""
    if need.addresses:
        return device.address in need.addresses
    return need.selector is None or device.selector == need.selector


def near(host: Host, device: HostDevice, need: DeviceNeed, cells: Sequence[int]) -> bool:
    """Tell whether a device is near enough to one of some host cells, given by index."""
    if need.affinity is NumaAffinity.NONE:
        return True
    its_cell = host.index_of(device.host_cell)
    if its_cell is None:
        return False
    if need.affinity is NumaAffinity.SAME_SOCKET:
        sockets = host.cells[its_cell].sockets
        return its_cell in cells or any(sockets & host.cells[cell].sockets for cell in cells)
    return its_cell in cells


def assign_devices(
    host: Host,
    free: Sequence[HostDevice],
    needs: Sequence[DeviceNeed],
    host_cells: Sequence[Sequence[int]],
) -> tuple[HostDevice, ...] | None:
    """Return a free device for each need, all different, or None: there are none.

    Args:
        host: Where.
        free: Its free devices.
        needs: What is asked for.
        host_cells: Per guest cell the indices of its host cells.
    """
    everywhere = sorted({cell for cells in host_cells for cell in cells})
    options = []
    for need in needs:
        cells = everywhere if need.guest_cell is None else host_cells[need.guest_cell]
        fitting = [
            at
            for at, device in enumerate(free)
            if answers(device, need) and near(host, device, need, cells)
        ]
        options.append(
            sorted(fitting, key=lambda at: host.index_of(free[at].host_cell) not in cells)
        )
    chosen = match_all(options)
    return None if chosen is None else tuple(free[at] for at in chosen)
