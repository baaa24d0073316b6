"""I/O threads with their defaults, and which disk is served by which. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from numavm_api.devices import Disk, DiskBus
from numavm_api.iothreads import IoThread, IoThreadPlacement, IoThreads


@dataclass(frozen=True, slots=True)
class EffectiveIoThreads:
    """The I/O threads of a VM."""

    threads: tuple[IoThread, ...] = ()
    """By id: the user's, then one for each disk with `dedicatedIOThread`."""
    disks: Mapping[str, int] = field(default_factory=dict)
    """Disk -> the thread that serves it; those left out are served by QEMU's main loop."""
    dedicated: bool = False
    """Whether each holds a pCPU."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids, in order."""
        return tuple(thread.id for thread in self.threads)


def effective_io_threads(wanted: IoThreads | None, disks: Sequence[Disk]) -> EffectiveIoThreads:
    """Return the threads and who is served by whom; the order of the disks in the spec makes no difference."""
    given = _given(wanted)
    virtio = [disk for disk in in_boot_order(disks) if disk.bus is DiskBus.VIRTIO]
    own = [disk.name for disk in virtio if disk.dedicated_io_thread]
    sharing = [disk.name for disk in virtio if not disk.dedicated_io_thread]
    first = max((thread.id for thread in given), default=0) + 1
    extra = [IoThread.model_construct(id=first + at) for at in range(len(own))]
    served = {name: thread.id for name, thread in zip(own, extra, strict=True)}
    if given:
        served |= {name: given[at % len(given)].id for at, name in enumerate(sharing)}
    return EffectiveIoThreads(
        threads=(*given, *extra),
        disks=served,
        dedicated=wanted is not None and wanted.placement is IoThreadPlacement.DEDICATED,
    )


def in_boot_order(disks: Sequence[Disk]) -> list[Disk]:
    """Return disks in an order of their own: those with a boot order first, then by name."""
    return sorted(disks, key=lambda disk: (disk.boot_order or sys.maxsize, disk.name))


def _given(wanted: IoThreads | None) -> tuple[IoThread, ...]:
    if wanted is None:
        return ()
    by_id = {thread.id: thread for thread in wanted.threads or ()}
    return tuple(by_id.get(number) or IoThread(id=number) for number in wanted.ids)
