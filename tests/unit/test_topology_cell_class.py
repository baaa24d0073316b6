"""What kind of memory a host cell has, by what the kernel says (numaperf.rst; sysfs-kernel-mm-memory-tiers)."""

from __future__ import annotations

from pathlib import Path

import pytest

from numavm_agent.topology.allocatable import OwnResident, report_cells
from numavm_agent.topology.host import read_cells
from numavm_api.numahost import NumaHostSpec
from support.made_up_sysfs import MadeUpCell, MadeUpHost, write_sysfs

NODES = "sys/devices/system/node"


def made_up(root: Path, **figures: dict[str, int]) -> Path:
    """Write a host of cell 0 with CPUs and cell 1 without; figures per node, seen from cell 0."""
    host = MadeUpHost(cells={0: MadeUpCell(cpus=(0, 1)), 1: MadeUpCell(cpus=())})
    write_sysfs(root, host)
    for node, numbers in figures.items():
        directory = root / NODES / node / "access0/initiators"
        directory.mkdir(parents=True)
        (directory / "node0").symlink_to("../../../node0")
        for name, number in numbers.items():
            (directory / name).write_text(f"{number}\n")
    return root


def classes(root: Path) -> list[object]:
    report = report_cells(read_cells(root), NumaHostSpec(), OwnResident())
    return [cell.to_api().get("class") for cell in report]


DRAM = {"read_latency": 100, "read_bandwidth": 100_000}


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"read_latency": 130, "read_bandwidth": 800_000}, "HBM"),  # more latency, as Xeon Max has
        ({"read_latency": 250, "read_bandwidth": 30_000}, "CXL"),
        ({"read_latency": 250}, "CXL"),
        ({"read_latency": 100}, "DRAM"),
        (DRAM, "DRAM"),
        ({"write_latency": 3}, None),
    ],
)
def test_a_cell_without_cpus_is_held_against_the_memory_of_its_initiators(
    tmp_path: Path, figures: dict[str, int], expected: str | None
) -> None:
    assert classes(made_up(tmp_path, node0=DRAM, node1=figures)) == ["DRAM", expected]


@pytest.mark.parametrize(("tier", "expected"), [(4, None), (5, "CXL"), (3, "HBM")])
def test_without_hmat_the_memory_tiers_tell(
    tmp_path: Path, tier: int, expected: str | None
) -> None:
    root = made_up(tmp_path)
    members: dict[int, list[str]] = {}
    for cell, number in (("0", 4), ("1", tier)):
        members.setdefault(number, []).append(cell)
    for number, cells in members.items():
        directory = root / f"sys/devices/virtual/memory_tiering/memory_tier{number}"
        directory.mkdir(parents=True)
        (directory / "nodelist").write_text(",".join(cells))

    assert classes(root) == ["DRAM", expected]


def test_where_the_kernel_says_nothing_a_cell_without_cpus_has_no_class(tmp_path: Path) -> None:
    assert classes(made_up(tmp_path)) == ["DRAM", None]
