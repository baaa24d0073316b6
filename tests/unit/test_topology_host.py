"""Reading hosts that do not exist: cells, siblings, caches, huge pages, distances, PCI devices."""

from pathlib import Path

import pytest

from numavm_agent.topology.host import read_host
from numavm_agent.topology.readings import TopologyError
from numavm_api.cpuset import CpuSet
from numavm_api.quantity import GIBIBYTE, MEBIBYTE
from support.made_up_sysfs import (
    BOOT_ID,
    MadeUpCell,
    MadeUpHost,
    even_host,
    write_pci_device,
    write_sysfs,
)


@pytest.mark.parametrize("cells", [1, 2, 3, 4, 8])
def test_every_cell_with_its_cpus(tmp_path: Path, cells: int) -> None:
    found = read_host(write_sysfs(tmp_path, even_host(cells, cpus=4)))

    assert {cell: str(cpus) for cell, cpus in found.cell_cpus().items()} == {
        cell: f"{4 * cell}-{4 * cell + 3}" for cell in range(cells)
    }
    assert found.boot_id == BOOT_ID


def test_threads_and_caches(tmp_path: Path) -> None:
    (first, second) = read_host(write_sysfs(tmp_path, even_host(2, cpus=4, threads=2))).cells

    assert [str(cpu.siblings) for cpu in second.cpus] == ["4-5", "4-5", "6-7", "6-7"]
    assert {cpu.last_level_cache for cpu in first.cpus} == {100}
    assert {cpu.last_level_cache for cpu in second.cpus} == {101}


def test_a_cache_without_id_is_named_after_its_first_cpu(tmp_path: Path) -> None:
    host = MadeUpHost(cells={0: MadeUpCell((0, 1)), 1: MadeUpCell((2, 3))}, cache_ids=False)

    (_, second) = read_host(write_sysfs(tmp_path, host)).cells

    assert {cpu.last_level_cache for cpu in second.cpus} == {2}


def test_cells_with_gaps_in_their_numbers(tmp_path: Path) -> None:
    """The kernel's distance rows have one number per online cell, not per number."""
    host = MadeUpHost(
        cells={0: MadeUpCell((0, 1)), 3: MadeUpCell((2, 3))}, distances=((10, 31), (31, 10))
    )

    (_, far) = read_host(write_sysfs(tmp_path, host)).cells

    assert far.id == 3
    assert {one.cell: one.value for one in far.distances} == {0: 31, 3: 10}


def test_a_memory_only_cell(tmp_path: Path) -> None:
    host = MadeUpHost(cells={0: MadeUpCell((0, 1)), 1: MadeUpCell((), memory_mib=8192)})

    (_, far) = read_host(write_sysfs(tmp_path, host)).cells

    assert far.cpus == ()
    assert far.memory.total == 8 * GIBIBYTE


def test_offline_cpus(tmp_path: Path) -> None:
    host = MadeUpHost(cells={0: MadeUpCell((0, 2))}, offline=(1, 3), threads=2)

    found = read_host(write_sysfs(tmp_path, host))

    assert found.offline_cpus == CpuSet.of(1, 3)
    assert [str(cpu.siblings) for cpu in found.cells[0].cpus] == ["0", "2"]


def test_memory_and_huge_pages(tmp_path: Path) -> None:
    pools = {1048576: (2, 1), 2048: (128, 100)}
    cell = MadeUpCell((0,), memory_mib=4096, free_mib=1000, cache_mib=300, hugepages=pools)

    (found,) = read_host(write_sysfs(tmp_path, MadeUpHost(cells={0: cell}))).cells

    memory = found.memory
    assert (memory.total, memory.free) == (4 * GIBIBYTE, 1000 * MEBIBYTE)
    assert memory.reclaimable == 300 * MEBIBYTE
    assert [(pool.page_size, pool.total, pool.free) for pool in found.page_pools] == [
        (2 * MEBIBYTE, 128, 100),
        (GIBIBYTE, 2, 1),
    ]


def test_pci_devices_without_bridges(tmp_path: Path) -> None:
    root = write_sysfs(tmp_path, even_host(2))
    write_pci_device(root, "0000:00:02.0", cell=None, group=None)
    write_pci_device(root, "0000:81:00.0", cell=1, group=17)
    write_pci_device(root, "0000:80:01.0", cell=1, group=16, class_code="0x060400")

    assert [(one.address, one.cell, one.iommu_group) for one in read_host(root).pci_devices] == [
        ("0000:00:02.0", -1, None),
        ("0000:81:00.0", 1, 17),
    ]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("node/online", None, "No such file or directory"),
        ("node/online", "0-x", "no number and no range"),
        ("node/node0/meminfo", "Node 0 MemTotal: 4 kB\n", "has no line 'Active"),
        ("node/node1/distance", "10 20 30", "3 distances for 2 online cells"),
        ("cpu/cpu1/topology/physical_package_id", "none", "'none' is no number"),
    ],
)
def test_what_cannot_be_understood_is_named(
    tmp_path: Path, file: str, text: str | None, message: str
) -> None:
    root = write_sysfs(tmp_path, even_host(2))
    path = root / "sys/devices/system" / file
    if text is None:
        path.unlink()
    else:
        path.write_text(text)

    with pytest.raises(TopologyError, match=rf"^/sys/devices/system/{file}: .*{message}"):
        read_host(root)
