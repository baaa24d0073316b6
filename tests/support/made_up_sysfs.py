"""A host that does not exist: sysfs trees with any number of cells, for the agent's reader and for libvirt."""

from dataclasses import dataclass, field
from pathlib import Path

from numavm_api.cpuset import CpuSet

BOOT_ID = "11111111-2222-3333-4444-555555555555"


@dataclass(frozen=True)
class MadeUpCell:
    """One NUMA node."""

    cpus: tuple[int, ...]
    """Online CPUs; none: a memory-only cell."""
    memory_mib: int = 4096
    free_mib: int = 3000
    cache_mib: int = 200
    hugepages: dict[int, tuple[int, int]] = field(default_factory=lambda: {2048: (0, 0)})
    """Page size in KiB -> (total, free)."""


@dataclass(frozen=True)
class MadeUpHost:
    """The whole."""

    cells: dict[int, MadeUpCell]
    threads: int = 1
    """Neighbouring CPU numbers are threads of one core."""
    offline: tuple[int, ...] = ()
    distances: tuple[tuple[int, ...], ...] = ()
    cache_ids: bool = True
    """Whether the kernel gives caches an id."""


def even_host(cells: int, cpus: int = 8, threads: int = 1) -> MadeUpHost:
    """Return a host of equal cells with consecutive CPUs."""
    return MadeUpHost(
        cells={
            cell: MadeUpCell(cpus=tuple(range(cell * cpus, (cell + 1) * cpus)))
            for cell in range(cells)
        },
        threads=threads,
    )


def write_sysfs(root: Path, host: MadeUpHost) -> Path:
    """Write the tree below ``root`` and return ``root``."""
    nodes, cpus = root / "sys/devices/system/node", root / "sys/devices/system/cpu"
    online = CpuSet(frozenset(cpu for cell in host.cells.values() for cpu in cell.cpus))
    present = online | CpuSet(frozenset(host.offline))
    ids = CpuSet(frozenset(host.cells))
    with_cpus = CpuSet(frozenset(one for one, cell in host.cells.items() if cell.cpus))
    for name, value in {
        "online": ids,
        "possible": ids,
        "has_memory": ids,
        "has_normal_memory": ids,
        "has_cpu": with_cpus,
    }.items():
        _write(nodes / name, value)
    for name, value in {"online": online, "present": present, "possible": present}.items():
        _write(cpus / name, value)
    _write(cpus / "kernel_max", present_max := max(present))
    for position, (cell, what) in enumerate(host.cells.items()):
        _write_node(nodes / f"node{cell}", cell, what, present_max)
        _write(nodes / f"node{cell}" / "distance", _distances(host, position))
        for cpu in what.cpus:
            _write_cpu(cpus / f"cpu{cpu}", cpu, cell, host, online)
            (nodes / f"node{cell}" / f"cpu{cpu}").symlink_to(f"../../cpu/cpu{cpu}")
    _write(root / "proc/sys/kernel/random/boot_id", BOOT_ID)
    return root


def write_pci_device(
    root: Path, address: str, *, cell: int | None, class_code: str = "0x020000", group: int | None
) -> None:
    """Add a PCI device to a tree."""
    device = root / "sys/bus/pci/devices" / address
    _write(device / "class", class_code)
    _write(device / "vendor", "0x8086")
    _write(device / "device", "0x10d3")
    if cell is not None:
        _write(device / "numa_node", cell)
    if group is not None:
        (device / "iommu_group").symlink_to(f"../../../../kernel/iommu_groups/{group}")


def _distances(host: MadeUpHost, position: int) -> str:
    if host.distances:
        return " ".join(map(str, host.distances[position]))
    return " ".join("10" if other == position else "20" for other in range(len(host.cells)))


def _write_node(node: Path, cell: int, what: MadeUpCell, last_cpu: int) -> None:
    cpus = CpuSet(frozenset(what.cpus))
    _write(node / "cpulist", cpus)
    _write(node / "cpumap", _mask(cpus, last_cpu))
    kib = 1024
    lines = {
        "MemTotal": what.memory_mib * kib,
        "MemFree": what.free_mib * kib,
        "Active(file)": what.cache_mib * kib // 2,
        "Inactive(file)": what.cache_mib * kib // 2,
        "SReclaimable": 0,
    }
    text = "\n".join(f"Node {cell} {key}:  {value} kB" for key, value in lines.items())
    _write(node / "meminfo", f"{text}\nNode {cell} HugePages_Total:     0")
    for size, (total, free) in what.hugepages.items():
        pool = node / "hugepages" / f"hugepages-{size}kB"
        _write(pool / "nr_hugepages", total)
        _write(pool / "free_hugepages", free)
        _write(pool / "surplus_hugepages", 0)


def _write_cpu(directory: Path, cpu: int, cell: int, host: MadeUpHost, online: CpuSet) -> None:
    first = cpu // host.threads * host.threads
    siblings = CpuSet(frozenset(range(first, first + host.threads))) & online
    topology = directory / "topology"
    _write(topology / "physical_package_id", cell)
    _write(topology / "core_id", cpu // host.threads)
    _write(topology / "die_id", 0)
    _write(topology / "thread_siblings_list", siblings)
    _write(topology / "core_cpus_list", siblings)
    _write(topology / "thread_siblings", _mask(siblings, max(online)))
    _write(topology / "core_cpus", _mask(siblings, max(online)))
    _write(directory / "online", 1)
    package = CpuSet(frozenset(host.cells[cell].cpus))
    for index, (level, kind, shared) in enumerate(
        [(1, "Data", siblings), (1, "Instruction", siblings), (3, "Unified", package)]
    ):
        cache = directory / "cache" / f"index{index}"
        _write(cache / "level", level)
        _write(cache / "type", kind)
        _write(cache / "size", "32K")
        _write(cache / "shared_cpu_list", shared)
        if host.cache_ids:
            _write(cache / "id", cell + 100)


def _mask(cpus: CpuSet, last: int) -> str:
    """Return the kernel's bitmap format: words of 32 bits, the highest first."""
    value = sum(1 << cpu for cpu in cpus)
    words = range(last // 32, -1, -1)
    return ",".join(f"{(value >> (32 * word)) & 0xFFFFFFFF:08x}" for word in words)


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")
