"""Configurators of disks and of the I/O threads that serve them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.model import CannotRender
from numavm_agent.domain.names import disk_target
from numavm_agent.domain.pci import address_of
from numavm_agent.domain.xml import Element, element
from numavm_api.devices import Disk, DiskBus, HostDisk
from numavm_api.effective_iothreads import in_boot_order
from numavm_api.numavm import NumaVMSpec
from numavm_api.pci_plan import disk_key

_TARGET_PREFIXES: Final = {DiskBus.VIRTIO: "vd", DiskBus.SATA: "sd", DiskBus.SCSI: "sd"}


def io_threads(given: RenderInput) -> Iterator[Element]:
    """How many, and each by its id with its pool."""
    threads = given.effective.io_threads.threads
    if not threads:
        return
    yield element("iothreads", str(len(threads)))
    yield element(
        "iothreadids",
        *(
            element(
                "iothread",
                id_=thread.id,
                thread_pool_min=thread.pool_min,
                thread_pool_max=thread.pool_max,
            )
            for thread in threads
        ),
    )


def disks(given: RenderInput) -> Iterator[Element]:
    """Raw files of the host, those with a boot order first, then by name."""
    counts: dict[str, int] = {}
    for disk in in_boot_order(given.spec.domain.devices.disks):
        prefix = _TARGET_PREFIXES[disk.bus]
        index = counts.get(prefix, 0)
        counts[prefix] = index + 1
        yield element(
            "disk",
            _driver(given, disk),
            element("source", file=_volume(given.spec, disk).path),
            element("target", dev=disk_target(prefix, index), bus=disk.bus.value),
            element("readonly") if disk.cdrom else None,
            element("boot", order=disk.boot_order) if disk.boot_order else None,
            element("alias", name=f"ua-disk-{disk.name}"),
            address_of(given, disk_key(disk.name)),
            type_="file",
            device="cdrom" if disk.cdrom else "disk",
        )


def _driver(given: RenderInput, disk: Disk) -> Element:
    return element(
        "driver",
        name="qemu",
        type_="raw",
        cache=disk.cache,
        io=disk.io,
        iothread=given.effective.io_threads.disks.get(disk.name),
    )


def _volume(spec: NumaVMSpec, disk: Disk) -> HostDisk:
    for volume in spec.volumes:
        if volume.name == disk.name:
            return volume.host_disk
    raise CannotRender(f"spec.domain.devices.disks: no entry of spec.volumes is named {disk.name}")
