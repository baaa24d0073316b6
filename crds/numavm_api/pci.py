"""`spec.domain.devices.pciExpanders`: PCI root buses of the guest that belong to a guest cell."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from numavm_api.base import SpecModel
from numavm_api.cpu import MAX_CELLS, CellId
from numavm_api.shapes import Name, PciAddress

MAX_BUS: Final = 255
MAX_EXPANDERS: Final = MAX_CELLS


class PciExpander(SpecModel):
    """A PCI root bus of its own that belongs to a guest cell: pci-expander-bus on machine pc, pcie-expander-bus on q35."""

    name: Name
    """Its name; on machine pc the expanders are buses 1, 2, ... in the order of their names."""
    cell: CellId
    """The guest cell whose numa_node its devices have."""
    bus_nr: Annotated[int, Field(ge=2, lt=MAX_BUS)] | None = None
    """Number of the bus in the guest. Left out: the highest that is free and leaves room for the buses behind it."""
    pci_address: PciAddress | None = None
    """Its own address on the root bus, `0000:00:06.0`."""
