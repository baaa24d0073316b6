"""`spec.domain.devices`, `spec.networks` and `spec.volumes`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from numavm_api.base import SpecModel, list_map
from numavm_api.cpu import CellId
from numavm_api.host_devices import HostDevice
from numavm_api.modules import MAX_MODULES, MemoryDevice
from numavm_api.pci import MAX_EXPANDERS, PciExpander
from numavm_api.shapes import BridgeName, HostPath, MacAddress, Name, NetworkName, PciAddress

MAX_HOST_DEVICES: Final = 32

__all__ = ["HostPath", "MacAddress", "Name"]


class DiskBus(StrEnum):
    """libvirt's disk buses."""

    VIRTIO = "virtio"
    SATA = "sata"
    SCSI = "scsi"


class InterfaceModel(StrEnum):
    """libvirt's interface models."""

    VIRTIO = "virtio"
    E1000E = "e1000e"


class DiskCache(StrEnum):
    """libvirt's cache modes."""

    NONE = "none"
    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"
    DIRECTSYNC = "directsync"
    UNSAFE = "unsafe"


class DiskIo(StrEnum):
    """libvirt's ways of doing I/O."""

    THREADS = "threads"
    NATIVE = "native"
    IO_URING = "io_uring"


class DiskTarget(SpecModel):
    """How the guest sees the disk."""

    bus: DiskBus = DiskBus.VIRTIO
    """virtio, sata or scsi."""


class CdromBus(StrEnum):
    """Buses that have CD-ROM drives."""

    SATA = "sata"
    SCSI = "scsi"


class CdromTarget(SpecModel):
    """A CD-ROM drive, with its volume as the medium; read-only."""

    bus: CdromBus = CdromBus.SATA
    """sata or scsi."""


class Disk(SpecModel):
    """A disk of the guest; the volume of the same name is behind it."""

    name: Name
    """Name of an entry of `spec.volumes`."""
    disk: DiskTarget | None = None
    """A disk. One of disk and cdrom; neither: a virtio disk."""
    cdrom: CdromTarget | None = None
    """A CD-ROM drive."""
    boot_order: Annotated[int, Field(ge=1, le=64)] | None = None
    """1 boots first; each number once."""
    cache: DiskCache | None = None
    """How the host caches it: none, writeback, writethrough, directsync, unsafe. Left out: QEMU's default, writeback."""
    io: DiskIo | None = None
    """threads, native or io_uring; native needs cache none or directsync. Left out: QEMU's default."""
    dedicated_io_thread: bool | None = Field(default=None, alias="dedicatedIOThread")
    """True: an I/O thread that serves no other disk. Needs bus virtio."""
    cell: CellId | None = None
    """Guest cell behind whose expander bus it sits. Bus virtio only."""
    pci_address: PciAddress | None = None
    """Its address in the guest, `0000:01:06.0`. Bus virtio only."""

    @property
    def bus(self) -> DiskBus:
        """The bus, with its default."""
        if self.cdrom is not None:
            return DiskBus(self.cdrom.bus.value)
        return self.disk.bus if self.disk else DiskBus.VIRTIO


class Interface(SpecModel):
    """A network card of the guest; the network of the same name is behind it."""

    name: Name
    """Name of an entry of `spec.networks`."""
    model: InterfaceModel = InterfaceModel.VIRTIO
    """The card's model."""
    mac_address: MacAddress | None = None
    """Unicast MAC address; left out: one derived from the VM's uid, the same at every start."""
    cell: CellId | None = None
    """Guest cell behind whose expander bus it sits."""
    pci_address: PciAddress | None = None
    """Its address in the guest, `0000:01:06.0`."""


class Devices(SpecModel):
    """The guest's devices."""

    disks: list[Disk] = Field(default=[], max_length=32, json_schema_extra=list_map("name"))
    """Disks, at most 32."""
    interfaces: list[Interface] = Field(
        default=[], max_length=16, json_schema_extra=list_map("name")
    )
    """Network cards, at most 16."""
    memory: list[MemoryDevice] = Field(
        default=[], max_length=MAX_MODULES, json_schema_extra=list_map("name")
    )
    """Memory modules beside the boot memory, at most 64. They need `memory.maxGuest`."""
    host_devices: list[HostDevice] = Field(
        default=[], max_length=MAX_HOST_DEVICES, json_schema_extra=list_map("name")
    )
    """PCI devices of the host, at most 32."""
    pci_expanders: list[PciExpander] = Field(
        default=[], max_length=MAX_EXPANDERS, json_schema_extra=list_map("name")
    )
    """PCI root buses of guest cells, at most 16. Others are made where a device's `cell` needs one."""


class UserNetwork(SpecModel):
    """QEMU's user-mode network: the guest reaches out, nothing reaches in."""


class BridgeNetwork(SpecModel):
    """A Linux bridge of the host: the guest is on the bridge's link like any other machine."""

    name: BridgeName
    """The bridge, as `ip link` names it. The NumaHost must permit it (`permitted.bridges`)."""


class LibvirtNetwork(SpecModel):
    """A virtual network that the host's libvirt has active, such as one that translates addresses."""

    name: NetworkName
    """The network, as `virsh net-list` names it. The NumaHost must permit it (`permitted.networks`)."""


class Network(SpecModel):
    """What an interface is connected to: one of user, bridge and network."""

    name: Name
    """The name interfaces refer to."""
    user: UserNetwork | None = None
    """User-mode network."""
    bridge: BridgeNetwork | None = None
    """A bridge of the host."""
    network: LibvirtNetwork | None = None
    """A network of the host's libvirt."""


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
