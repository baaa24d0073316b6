"""`spec.domain.memory.balloon`: the one device by which the host asks memory back from the guest.

A balloon takes pages from whatever guest cell its interrupt is served in, wherever the device sits (measured with libvirt
9.0 and QEMU 7.2): a chosen cell is grown and shrunk by a DIMM or virtio-mem. It frees no claim.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from numavm_api.backing import Switch
from numavm_api.base import SpecModel
from numavm_api.cpu import CellId
from numavm_api.quantity import Quantity
from numavm_api.shapes import PciAddress


class BalloonModel(StrEnum):
    """libvirt's balloon models."""

    VIRTIO = "virtio"


class Balloon(SpecModel):
    """The guest's balloon. Left out: it has none."""

    model: BalloonModel = BalloonModel.VIRTIO
    """virtio."""
    target: Quantity | None = None
    """Memory that the guest has once its driver runs, boot memory and DIMMs together at most. Left out: all of it."""
    stats_period_seconds: Annotated[int, Field(ge=1, le=3600)] | None = None
    """How often the guest is asked for its figures. Left out: never, and status has none."""
    autodeflate: Switch | None = None
    """Enabled: a guest that runs out of memory takes some back by itself. Default: Disabled."""
    free_page_reporting: Switch | None = None
    """Enabled: the guest tells the host of pages it does not use, and the host takes them back. Default: Disabled."""
    cell: CellId | None = None
    """Guest cell on whose expander bus it sits: the guest then sees its numa_node, and that is all. Machine `pc` only: behind a q35 expander its interrupts never arrive."""
    pci_address: PciAddress | None = None
    """Its address in the guest, `0000:01:06.0`."""
