"""`spec.domain.devices.hostDevices`: PCI devices of the host that the guest gets for itself."""

from __future__ import annotations

from enum import StrEnum

from numavm_api.base import SpecModel
from numavm_api.cpu import CellId
from numavm_api.shapes import Name, PciAddress, PciId


class NumaAffinity(StrEnum):
    """How near a host device has to be to the guest cell it belongs to."""

    REQUIRED = "Required"
    PREFERRED = "Preferred"
    SAME_SOCKET = "SameSocket"
    NONE = "None"


class PciSelector(SpecModel):
    """Any device of these ids that the host permits."""

    vendor: PciId
    """Vendor id, hexadecimal: `8086`."""
    device: PciId
    """Device id, hexadecimal: `10d3`."""


class HostDeviceSource(SpecModel):
    """Which device of the host: one of address and selector."""

    address: PciAddress | None = None
    """Its PCI address on the host, `0000:65:00.0`."""
    selector: PciSelector | None = None
    """Any of a kind."""


class HostDevice(SpecModel):
    """A PCI device of the host, handed to the guest by VFIO. It must be permitted by the NumaHost."""

    name: Name
    """Its name."""
    source: HostDeviceSource
    """Which device."""
    cell: CellId | None = None
    """The guest cell behind whose expander bus the guest sees it. Left out: the guest cell that is placed on the device's host cell, if any."""
    numa_affinity: NumaAffinity = NumaAffinity.REQUIRED
    """Required: on a host cell of its guest cell (left out: of any guest cell). Preferred: there if possible. SameSocket: on their socket. None: anywhere."""
