"""Reading the host: cells, CPUs, caches, memory, huge pages, distances, PCI devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from numavm_agent.topology.cell_class import read_tiers
from numavm_agent.topology.hmat import read_figures
from numavm_agent.topology.parse import (
    DATA_CACHES,
    memory_reading,
    page_size_of,
    parse_distances,
)
from numavm_agent.topology.readings import CellReading, HostTopology, PagePool
from numavm_agent.topology.sysfs import KernelFiles
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import HostCpu, PciDevice

__all__ = ["HostTopology", "read_cells", "read_host"]

_NODES: Final = "sys/devices/system/node"
_CPUS: Final = "sys/devices/system/cpu"
_PCI: Final = "sys/bus/pci/devices"
_BOOT_ID: Final = "proc/sys/kernel/random/boot_id"
_BRIDGE_CLASS: Final = "0x06"
NO_CELL: Final = -1


def read_host(root: Path = Path("/")) -> HostTopology:
    """Return the host's topology as the kernel says now.

    Args:
        root: Where `sys` and `proc` are; another one than `/` reads a made-up host.

    Raises:
        TopologyError: the kernel has no NUMA files, or one of them cannot be understood.
    """
    files = KernelFiles(root)
    return HostTopology(
        boot_id=files.text(_BOOT_ID),
        cells=read_cells(root),
        offline_cpus=files.cpuset(f"{_CPUS}/present") - files.cpuset(f"{_CPUS}/online"),
        pci_devices=tuple(_pci_devices(files)),
    )


def read_cells(root: Path = Path("/")) -> tuple[CellReading, ...]:
    """Return the host's cells, by id: the part of `read_host` that changes while the host runs.

    Raises:
        TopologyError: as `read_host`.
    """
    files = KernelFiles(root)
    online = list(files.cpuset(f"{_NODES}/online"))
    tiers = read_tiers(files)
    return tuple(_read_cell(files, cell, online, tiers.get(cell)) for cell in online)


def _read_cell(
    files: KernelFiles, cell: int, online_cells: list[int], tier: int | None
) -> CellReading:
    directory = f"{_NODES}/node{cell}"
    meminfo, distance = f"{directory}/meminfo", f"{directory}/distance"
    return CellReading(
        id=cell,
        cpus=tuple(_read_cpu(files, cpu) for cpu in files.cpuset(f"{directory}/cpulist")),
        memory=memory_reading(files.text(meminfo), source=f"/{meminfo}"),
        page_pools=tuple(_page_pools(files, f"{directory}/hugepages")),
        distances=parse_distances(files.text(distance), online_cells, source=f"/{distance}"),
        figures=read_figures(files, directory),
        tier=tier,
    )


def _read_cpu(files: KernelFiles, cpu: int) -> HostCpu:
    topology = f"{_CPUS}/cpu{cpu}/topology"
    socket = files.number(f"{topology}/physical_package_id")
    return HostCpu(
        id=cpu,
        siblings=files.cpuset(f"{topology}/thread_siblings_list"),
        socket=socket,
        last_level_cache=_last_level_cache(files, cpu, otherwise=socket),
    )


def _last_level_cache(files: KernelFiles, cpu: int, *, otherwise: int) -> int:
    """Return the last level's id; where the kernel gives none, the first CPU that shares it."""
    caches = f"{_CPUS}/cpu{cpu}/cache"
    levels = [
        (files.number(f"{caches}/{index}/level"), index)
        for index in files.names(caches)
        if files.optional_text(f"{caches}/{index}/type") in DATA_CACHES
    ]
    if not levels:
        return otherwise
    last = f"{caches}/{max(levels)[1]}"
    if files.optional_text(f"{last}/id") is not None:
        return files.number(f"{last}/id")
    return files.cpuset(f"{last}/shared_cpu_list").first()


def _page_pools(files: KernelFiles, directory: str) -> Iterator[PagePool]:
    sizes = [(page_size_of(name), name) for name in files.names(directory)]
    for size, name in sorted((size, name) for size, name in sizes if size is not None):
        pool = f"{directory}/{name}"
        yield PagePool(
            page_size=size,
            total=files.number(f"{pool}/nr_hugepages"),
            free=files.number(f"{pool}/free_hugepages"),
        )


def _pci_devices(files: KernelFiles) -> Iterator[PciDevice]:
    """Yield all but bridges, which no guest can be given."""
    for address in files.names(_PCI):
        device = f"{_PCI}/{address}"
        class_code = files.text(f"{device}/class")
        if class_code.startswith(_BRIDGE_CLASS):
            continue
        group = files.link_name(f"{device}/iommu_group")
        cell = files.optional_text(f"{device}/numa_node")
        yield PciDevice(
            address=address,
            cell=NO_CELL if cell is None else int(cell),
            vendor=files.text(f"{device}/vendor").removeprefix("0x"),
            device=files.text(f"{device}/device").removeprefix("0x"),
            class_code=class_code,
            iommu_group=None if group is None else int(group),
        )


def online_of(topology: HostTopology) -> CpuSet:
    """Return every online CPU of the host."""
    return CpuSet.union_of(topology.cell_cpus().values())
