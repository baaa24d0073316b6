"""The host's HMAT, as the kernel tells of it: how fast each cell's memory is, and the caches in front of it.

Formats: Documentation/admin-guide/mm/numaperf.rst of the kernel; latencies in nanoseconds, bandwidths in MiB a second,
both seen from the cells that access the memory best.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from numavm_agent.topology.sysfs import KernelFiles
from numavm_api.cpuset import CpuSet
from numavm_api.hmat import MAX_CACHE_LEVEL, CacheAssociativity, CachePolicy, MemorySideCache
from numavm_api.numahost import MemoryFigures
from numavm_api.quantity import MEBIBYTE, Bytes

_NODE: Final = re.compile(r"node(?P<id>\d+)")
_INDEX: Final = re.compile(r"index(?P<level>\d+)")


def read_figures(files: KernelFiles, node: str) -> MemoryFigures | None:
    """Return what HMAT says of a host cell's memory; None: the firmware has none.

    Args:
        files: The kernel's files.
        node: The cell's directory, `sys/devices/system/node/node0`.
    """
    directory = f"{node}/access0/initiators"
    names = files.names(directory)
    if not names:
        return None
    found = [match for name in names if (match := _NODE.fullmatch(name))]
    return MemoryFigures(
        initiators=CpuSet(frozenset(int(match["id"]) for match in found)),
        read_latency_nanoseconds=_figure(files, f"{directory}/read_latency"),
        write_latency_nanoseconds=_figure(files, f"{directory}/write_latency"),
        read_bytes_per_second=_bandwidth(files, f"{directory}/read_bandwidth"),
        write_bytes_per_second=_bandwidth(files, f"{directory}/write_bandwidth"),
        caches=list(_caches(files, f"{node}/memory_side_cache")),
    )


def _figure(files: KernelFiles, path: str) -> int | None:
    """Return a figure; None: it is missing, or 0, which the kernel writes where the table has none."""
    if files.optional_text(path) is None:
        return None
    return files.number(path) or None


def _bandwidth(files: KernelFiles, path: str) -> Bytes | None:
    mebibytes = _figure(files, path)
    return None if mebibytes is None else Bytes(mebibytes * MEBIBYTE)


def _caches(files: KernelFiles, directory: str) -> Iterator[MemorySideCache]:
    for name in files.names(directory):
        found = _INDEX.fullmatch(name)
        if found is None or int(found["level"]) > MAX_CACHE_LEVEL:
            continue
        cache = f"{directory}/{name}"
        size, line = files.number(f"{cache}/size"), files.number(f"{cache}/line_size")
        if not size or not line:
            continue
        direct = files.number(f"{cache}/indexing") == 0
        back = files.number(f"{cache}/write_policy") == 0
        yield MemorySideCache(
            level=int(found["level"]),
            associativity=CacheAssociativity.DIRECT if direct else CacheAssociativity.FULL,
            policy=CachePolicy.WRITEBACK if back else CachePolicy.WRITETHROUGH,
            size=Bytes(size),
            line_bytes=line,
        )
