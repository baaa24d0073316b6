"""What is left of the cores and last-level caches of one host cell, for VMs that take CPUs by cores or caches."""

from __future__ import annotations

from dataclasses import dataclass

from numavm_operator.placement.caches import Kind
from numavm_operator.placement.host import Cell


@dataclass(frozen=True, slots=True)
class CoresLeft:
    """Free threads of a host cell, counted by core and by cache."""

    sibling_free: int
    """Free CPUs on cores with more than one thread."""
    groups: tuple[int, ...]
    """At index n: how many groups of n threads, each on one core with siblings, are free."""
    whole_cores: tuple[int, ...]
    """At index n: the CPUs that the n narrowest wholly free cores have."""
    caches: tuple[Kind, ...]
    """The last-level caches that are free as a whole, by their cores."""

    def groups_of(self, size: int) -> int:
        """Return how many groups of `size` threads are free."""
        return self.groups[size] if size < len(self.groups) else 0


def cores_left(cell: Cell, free: int) -> CoresLeft:
    """Return what the CPUs in the mask `free` leave of a cell's cores."""
    with_free: dict[int, int] = {}
    widths: list[int] = []
    for core in cell.cores:
        left = (core.threads & free).bit_count()
        if left == core.width:
            widths.append(left)
        if left and core.width > 1:
            with_free[left] = with_free.get(left, 0) + 1
    whole = [0]
    for width in sorted(widths):
        whole.append(whole[-1] + width)
    return CoresLeft(
        sibling_free=sum(left * cores for left, cores in with_free.items()),
        groups=_groups(with_free),
        whole_cores=tuple(whole),
        caches=_whole_caches(cell, free),
    )


def _groups(with_free: dict[int, int]) -> tuple[int, ...]:
    """Return how many groups there are per size.

    Args:
        with_free: Per number of free threads, how many cores have so many.
    """
    widest = max(with_free, default=0)
    return tuple(
        sum(cores * (left // size) for left, cores in with_free.items()) if size else 0
        for size in range(widest + 1)
    )


def _whole_caches(cell: Cell, free: int) -> tuple[Kind, ...]:
    """Return the last-level caches all of whose CPUs are free; their cores stand together in `cell.cores`."""
    caches: dict[int, list[int] | None] = {}
    for core in cell.cores:
        widths = caches.setdefault(core.last_level_cache, [])
        if widths is not None and core.threads & free == core.threads:
            widths.append(core.width)
        else:
            caches[core.last_level_cache] = None
    return tuple(sorted(tuple(sorted(widths)) for widths in caches.values() if widths))
