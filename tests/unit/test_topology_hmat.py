"""The host's HMAT as the kernel tells of it (Documentation/admin-guide/mm/numaperf.rst)."""

from pathlib import Path

from numavm_agent.topology.allocatable import OwnResident, report_cells
from numavm_agent.topology.host import read_cells
from numavm_api.hmat import CacheAssociativity, CachePolicy
from numavm_api.numahost import NumaHostSpec
from numavm_api.quantity import GIBIBYTE, MEBIBYTE
from support.made_up_sysfs import even_host, write_sysfs

NODE = "sys/devices/system/node/node1"


def write(root: Path, name: str, text: str) -> None:
    path = root / NODE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def with_hmat(root: Path) -> Path:
    """Give cell 1 figures as seen from cell 0, and a cache."""
    write_sysfs(root, even_host(2))
    for name, value in {
        "read_latency": "80",
        "write_latency": "0",
        "read_bandwidth": "102400",
        "write_bandwidth": "51200",
    }.items():
        write(root, f"access0/initiators/{name}", value)
    (root / NODE / "access0/initiators/node0").symlink_to("../../../node0")
    for name, value in {
        "size": str(16 * GIBIBYTE),
        "line_size": "64",
        "indexing": "0",
        "write_policy": "1",
    }.items():
        write(root, f"memory_side_cache/index1/{name}", value)
    return root


def test_latencies_are_nanoseconds_and_bandwidths_mebibytes(tmp_path: Path) -> None:
    figures = read_cells(with_hmat(tmp_path))[1].figures

    assert figures is not None
    assert str(figures.initiators) == "0"
    assert figures.read_latency_nanoseconds == 80
    assert figures.write_latency_nanoseconds is None  # 0: the table has none
    assert figures.read_bytes_per_second == 102400 * MEBIBYTE
    assert figures.write_bytes_per_second == 51200 * MEBIBYTE


def test_a_memory_side_cache_is_direct_mapped_or_not_and_writes_back_or_through(
    tmp_path: Path,
) -> None:
    figures = read_cells(with_hmat(tmp_path))[1].figures

    assert figures is not None
    (cache,) = figures.caches
    assert (cache.level, cache.size, cache.line_bytes) == (1, 16 * GIBIBYTE, 64)
    assert cache.associativity is CacheAssociativity.DIRECT
    assert cache.policy is CachePolicy.WRITETHROUGH


def test_a_host_without_hmat_reports_none(tmp_path: Path) -> None:
    cells = report_cells(read_cells(with_hmat(tmp_path)), NumaHostSpec(), OwnResident())

    assert cells[0].figures is None
    assert "figures" not in cells[0].to_api()
    assert cells[1].to_api()["figures"]["readBytesPerSecond"] == "100Gi"
