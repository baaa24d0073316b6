"""Configurators of devices: controllers, disks, interfaces, the serial console.

Devices stand in an order of their own, not in the spec's, so that re-ordering a manifest changes
nothing in the guest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final

from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.model import CannotRender
from numavm_agent.domain.names import disk_target, mac_address
from numavm_agent.domain.xml import Element, element
from numavm_api.devices import Disk, DiskBus, HostDisk, Interface, UserNetwork
from numavm_api.numavm import NumaVMSpec

SPARE_ROOT_PORTS: Final = 4
"""PCI Express plugs into free root ports only: some are kept for what may come later."""

_TARGET_PREFIXES: Final = {DiskBus.VIRTIO: "vd", DiskBus.SATA: "sd", DiskBus.SCSI: "sd"}


def devices(given: RenderInput) -> Iterator[Element]:
    """All devices, each kind by a configurator of its own."""
    yield element("devices", *chain.from_iterable(each(given) for each in _CONFIGURATORS))


def emulator(given: RenderInput) -> Iterator[Element]:
    """QEMU's path, where the host names one."""
    if given.host.emulator is not None:
        yield element("emulator", given.host.emulator)


def controllers(given: RenderInput) -> Iterator[Element]:
    """No USB; virtio-scsi where a disk needs it; a root port per PCI device and some to spare."""
    yield element("controller", type_="usb", model="none")
    if _has_scsi(given.spec):
        yield element("controller", type_="scsi", index=0, model="virtio-scsi")
    if given.is_q35:
        yield element("controller", type_="pci", index=0, model="pcie-root")
        for index in range(1, _pci_devices(given.spec) + SPARE_ROOT_PORTS + 1):
            yield element("controller", type_="pci", index=index, model="pcie-root-port")


def disks(given: RenderInput) -> Iterator[Element]:
    """Raw files of the host, those with a boot order first, then by name."""
    counts: dict[str, int] = {}
    for disk in _in_boot_order(given.spec.domain.devices.disks):
        prefix = _TARGET_PREFIXES[disk.disk.bus]
        index = counts.get(prefix, 0)
        counts[prefix] = index + 1
        yield element(
            "disk",
            element("driver", name="qemu", type_="raw"),
            element("source", file=_volume(given.spec, disk).path),
            element("target", dev=disk_target(prefix, index), bus=disk.disk.bus.value),
            element("boot", order=disk.boot_order) if disk.boot_order else None,
            element("alias", name=f"ua-disk-{disk.name}"),
            type_="file",
            device="disk",
        )


def interfaces(given: RenderInput) -> Iterator[Element]:
    """Network cards by name, each on the network of its name."""
    for card in sorted(given.spec.domain.devices.interfaces, key=lambda card: card.name):
        _network(given.spec, card)  # user-mode is the only way to connect
        yield element(
            "interface",
            element("mac", address=card.mac_address or mac_address(given.vm.uid, card.name)),
            element("model", type_=card.model.value),
            element("alias", name=f"ua-net-{card.name}"),
            type_="user",
        )


def serial_console(given: RenderInput) -> Iterator[Element]:
    """One serial port, both a console (`virsh console`) and logged by virtlogd, which rotates."""
    yield element(
        "serial",
        element("log", file=given.serial_log, append="on"),
        element("target", element("model", name="isa-serial"), type_="isa-serial", port=0),
        type_="pty",
    )
    yield element("console", element("target", type_="serial", port=0), type_="pty")


def balloon(_: RenderInput) -> Iterator[Element]:
    """None: libvirt would add one by itself."""
    yield element("memballoon", model="none")


def panic_notifier(_: RenderInput) -> Iterator[Element]:
    """A guest kernel that panics says so, which ends the domain as crashed."""
    yield element("panic", model="isa")


def iommu(given: RenderInput) -> Iterator[Element]:
    """Interrupt remapping in extended mode, where vCPUs are too many to be named without."""
    if given.needs_iommu:
        yield element("iommu", element("driver", intremap="on", eim="on"), model="intel")


_CONFIGURATORS: Final[Sequence[Callable[[RenderInput], Iterator[Element]]]] = (
    emulator,
    controllers,
    disks,
    interfaces,
    serial_console,
    balloon,
    panic_notifier,
    iommu,
)


def _in_boot_order(given: Sequence[Disk]) -> list[Disk]:
    return sorted(given, key=lambda disk: (disk.boot_order or sys.maxsize, disk.name))


def _has_scsi(spec: NumaVMSpec) -> bool:
    return any(disk.disk.bus is DiskBus.SCSI for disk in spec.domain.devices.disks)


def _pci_devices(spec: NumaVMSpec) -> int:
    virtio = sum(disk.disk.bus is DiskBus.VIRTIO for disk in spec.domain.devices.disks)
    return virtio + len(spec.domain.devices.interfaces) + _has_scsi(spec)


def _volume(spec: NumaVMSpec, disk: Disk) -> HostDisk:
    for volume in spec.volumes:
        if volume.name == disk.name:
            return volume.host_disk
    raise CannotRender(f"spec.domain.devices.disks: no entry of spec.volumes is named {disk.name}")


def _network(spec: NumaVMSpec, card: Interface) -> UserNetwork:
    for network in spec.networks:
        if network.name == card.name:
            return network.user
    raise CannotRender(
        f"spec.domain.devices.interfaces: no entry of spec.networks is named {card.name}"
    )
