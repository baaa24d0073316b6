"""Images that the lab's virtual machines boot, and what the witness guest says once it runs."""

from numavm_lab.guest.report import (
    GuestCpu,
    GuestDisk,
    GuestNic,
    GuestNode,
    GuestPciDevice,
    Pause,
    Report,
    Writer,
    parse_pauses,
    parse_reports,
    parse_writers,
)
from numavm_lab.guest.witness import witness_images

__all__ = [
    "GuestCpu",
    "GuestDisk",
    "GuestNic",
    "GuestNode",
    "GuestPciDevice",
    "Pause",
    "Report",
    "Writer",
    "parse_pauses",
    "parse_reports",
    "parse_writers",
    "witness_images",
]
