"""`spec.domain.devices`, `spec.networks` and `spec.volumes`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from numavm_api.base import SpecModel, list_map

NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
HOST_PATH_PATTERN: Final = r"^/[A-Za-z0-9._@:+,=-]+(/[A-Za-z0-9._@:+,=-]+)*$"
"""Absolute, without white space, quotes, control characters or a trailing slash; `..` is refused by a CEL rule and again by the agent."""

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
HostPath = Annotated[str, Field(pattern=HOST_PATH_PATTERN, max_length=512)]
MacAddress = Annotated[
    str, Field(pattern=r"^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$", max_length=17)
]


class DiskBus(StrEnum):
    """libvirt's disk buses."""

    VIRTIO = "virtio"
    SATA = "sata"
    SCSI = "scsi"


class InterfaceModel(StrEnum):
    """libvirt's interface models."""

    VIRTIO = "virtio"
    E1000E = "e1000e"


class DiskTarget(SpecModel):
    """How the guest sees the disk."""

    bus: DiskBus = DiskBus.VIRTIO
    """virtio, sata or scsi."""


class Disk(SpecModel):
    """A disk of the guest; the volume of the same name is behind it."""

    name: Name
    """Name of an entry of `spec.volumes`."""
    disk: DiskTarget = DiskTarget()
    """The disk's bus."""
    boot_order: Annotated[int, Field(ge=1, le=64)] | None = None
    """1 boots first; each number once."""


class Interface(SpecModel):
    """A network card of the guest; the network of the same name is behind it."""

    name: Name
    """Name of an entry of `spec.networks`."""
    model: InterfaceModel = InterfaceModel.VIRTIO
    """The card's model."""
    mac_address: MacAddress | None = None
    """Unicast MAC address; left out: one derived from the VM's uid, the same at every start."""


class Devices(SpecModel):
    """The guest's devices."""

    disks: list[Disk] = Field(default=[], max_length=32, json_schema_extra=list_map("name"))
    """Disks, at most 32."""
    interfaces: list[Interface] = Field(
        default=[], max_length=16, json_schema_extra=list_map("name")
    )
    """Network cards, at most 16."""


class UserNetwork(SpecModel):
    """QEMU's user-mode network: the guest reaches out, nothing reaches in."""


class Network(SpecModel):
    """What an interface is connected to."""

    name: Name
    """The name interfaces refer to."""
    user: UserNetwork
    """User-mode network."""


class HostDisk(SpecModel):
    """A raw disk image on the host. It ties the VM to its host after the first start."""

    path: HostPath
    """Path of the image, below a directory that the NumaHost permits."""


class Volume(SpecModel):
    """What a disk is stored on."""

    name: Name
    """The name disks refer to."""
    host_disk: HostDisk
    """A disk image on the host."""
