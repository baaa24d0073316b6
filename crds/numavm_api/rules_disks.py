"""Rules on what a disk is, and on the I/O threads that serve disks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_api.devices import DiskBus, DiskCache, DiskIo
from numavm_api.effective import effective
from numavm_api.iothreads import MAX_IO_THREADS, IoThreadPlacement
from numavm_api.numavm import NumaVMSpec
from numavm_api.rules_cells import Rule
from numavm_api.violation import Violation

DISKS: Final = "spec.domain.devices.disks"
IO_THREADS: Final = "spec.domain.ioThreads"
UNCACHED: Final = frozenset({DiskCache.NONE, DiskCache.DIRECTSYNC})


def disk_rules() -> tuple[Rule, ...]:
    """Return the rules on disks and I/O threads."""
    return (
        _disk_or_cdrom,
        _only_virtio_is_on_pci,
        _native_io_needs_no_cache,
        _count_or_threads,
        _thread_ids_differ,
        _pools_in_order,
        _not_too_many_threads,
        _dedicated_threads_need_dedicated_cpus,
    )


def _disk_or_cdrom(spec: NumaVMSpec) -> Iterator[Violation]:
    for index, disk in enumerate(spec.domain.devices.disks):
        if disk.disk is not None and disk.cdrom is not None:
            yield Violation(
                f"{DISKS}[{index}].cdrom",
                disk.cdrom.bus,
                "disk is set too, and an entry is one of the two",
                "leave one out",
            )


def _only_virtio_is_on_pci(spec: NumaVMSpec) -> Iterator[Violation]:
    for index, disk in enumerate(spec.domain.devices.disks):
        if disk.bus is DiskBus.VIRTIO:
            continue
        wishes = {
            "cell": disk.cell,
            "pciAddress": disk.pci_address,
            "dedicatedIOThread": disk.dedicated_io_thread or None,
        }
        for name, value in wishes.items():
            if value is not None:
                yield Violation(
                    f"{DISKS}[{index}].{name}",
                    str(value).lower(),
                    f"the disk's bus is {disk.bus}, and only a virtio disk is a PCI device of its own",
                    f"set disk.bus to virtio, or leave {name} out",
                )


def _native_io_needs_no_cache(spec: NumaVMSpec) -> Iterator[Violation]:
    """Libvirt refuses native with another cache mode (qemuValidateDomainDeviceDefDiskFrontend)."""
    for index, disk in enumerate(spec.domain.devices.disks):
        if disk.io is DiskIo.NATIVE and disk.cache not in UNCACHED:
            yield Violation(
                f"{DISKS}[{index}].io",
                disk.io,
                f"cache is {disk.cache or 'left out'}, and native needs none or directsync",
                "set cache to none, or leave io out",
            )


def _count_or_threads(spec: NumaVMSpec) -> Iterator[Violation]:
    given = spec.domain.io_threads
    if given is not None and (given.count is None) == (given.threads is None):
        yield Violation(
            IO_THREADS,
            "neither count nor threads" if given.count is None else "both count and threads",
            "it is one of count and threads",
            "set one of the two",
        )


def _thread_ids_differ(spec: NumaVMSpec) -> Iterator[Violation]:
    seen: set[int] = set()
    for index, thread in enumerate(
        (spec.domain.io_threads and spec.domain.io_threads.threads) or ()
    ):
        if thread.id in seen:
            yield Violation(
                f"{IO_THREADS}.threads[{index}].id",
                str(thread.id),
                "an earlier entry has it too",
                "renumber one",
            )
        seen.add(thread.id)


def _pools_in_order(spec: NumaVMSpec) -> Iterator[Violation]:
    for index, thread in enumerate(
        (spec.domain.io_threads and spec.domain.io_threads.threads) or ()
    ):
        least, most = thread.pool_min, thread.pool_max
        if least is not None and most is not None and least > most:
            yield Violation(
                f"{IO_THREADS}.threads[{index}].poolMin",
                str(least),
                f"poolMax is {most}",
                "make poolMin poolMax or less",
            )


def _not_too_many_threads(spec: NumaVMSpec) -> Iterator[Violation]:
    ids = effective(spec).io_threads.ids
    if len(ids) > MAX_IO_THREADS:
        yield Violation(
            IO_THREADS,
            f"{len(ids)} with those of {DISKS}[*].dedicatedIOThread",
            f"a VM has at most {MAX_IO_THREADS} I/O threads",
            "lower count, or let disks share",
        )


def _dedicated_threads_need_dedicated_cpus(spec: NumaVMSpec) -> Iterator[Violation]:
    given = spec.domain.io_threads
    if given is None or given.placement is not IoThreadPlacement.DEDICATED:
        return
    if not spec.domain.cpu.dedicated_cpu_placement:
        yield Violation(
            f"{IO_THREADS}.placement",
            given.placement,
            "only a VM with dedicated CPUs can hold pCPUs for its I/O threads",
            "set spec.domain.cpu.dedicatedCpuPlacement to true or leave placement out",
        )
