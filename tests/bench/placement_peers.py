"""Reference placers: best fit and fragmentation gradient, in the plainest form that sees NUMA cells.

They keep counts only (threads and GiB per cell), rescan every host for each request, and know the mix of
flavors: what a good scheduler of a few dozen lines does. The fragmentation gradient follows "Beware of
Fragmentation" (Weng et al., USENIX ATC 2023): put a VM where the free threads that no VM of the mix can use
grow least.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.placement_mix import FLAVORS, HUGE_SHARE, Arrival
from numavm_operator.placement import Host

GIB = 1024**3
OVERHEAD_GIB = 1


@dataclass(slots=True)
class PeerCell:
    """Free threads and GiB of one cell."""

    threads: int
    huge: int
    base: int

    def fits(self, threads: int, huge: int, base: int) -> bool:
        """Tell whether a guest cell fits."""
        return self.threads >= threads and self.huge >= huge and self.base >= base


@dataclass(frozen=True, slots=True)
class Taken:
    """What a VM holds."""

    host: int
    cells: tuple[int, ...]
    need: tuple[int, int, int]


class Peer:
    """A placer that rescans every host and takes the one of least cost."""

    def __init__(
        self, hosts: list[Host], cost: Callable[[PeerCell, tuple[int, int, int]], float]
    ) -> None:
        """Start with empty hosts."""
        self._cost = cost
        self._hosts = hosts
        self._cells = [
            [
                PeerCell(
                    cell.dedicated.bit_count(),
                    next((amount // GIB for size, amount in cell.memory.items() if size == GIB), 0),
                    cell.memory[min(cell.memory)] // GIB,
                )
                for cell in host.cells
            ]
            for host in hosts
        ]
        self._held: dict[str, Taken] = {}

    def place(self, arrival: Arrival) -> tuple[int, tuple[int, ...]] | None:
        """Place a VM; return host and cells, or None."""
        threads = arrival.vcpus // arrival.cells
        gib = threads * arrival.gib_per_vcpu
        need = (threads, gib if arrival.huge else 0, 0 if arrival.huge else gib + OVERHEAD_GIB)
        best: tuple[float, int, int, tuple[int, ...]] | None = None
        for number, cells in enumerate(self._cells):
            for distance, chosen in self._sets(number, cells, need, arrival.cells):
                cost = sum(self._cost(cells[cell], need) for cell in chosen)
                entry = (cost, distance, number, chosen)
                if best is None or entry < best:
                    best = entry
        if best is None:
            return None
        _, _, number, chosen = best
        self._held[arrival.uid] = Taken(number, chosen, need)
        self._book(self._held[arrival.uid], 1)
        return number, chosen

    def leave(self, uid: str) -> None:
        """Give back what a VM holds."""
        self._book(self._held.pop(uid), -1)

    def _book(self, taken: Taken, sign: int) -> None:
        for cell in taken.cells:
            here = self._cells[taken.host][cell]
            here.threads -= sign * taken.need[0]
            here.huge -= sign * taken.need[1]
            here.base -= sign * taken.need[2]

    def _sets(
        self, number: int, cells: list[PeerCell], need: tuple[int, int, int], count: int
    ) -> list[tuple[int, tuple[int, ...]]]:
        """Return one set per first cell: its nearest neighbours that fit, the tightest first."""
        able = [at for at, cell in enumerate(cells) if cell.fits(*need)]
        if len(able) < count:
            return []
        far = self._hosts[number].distances
        sets = []
        for first in able:
            near = sorted(able, key=lambda at: (at != first, far[first][at], cells[at].threads, at))
            chosen = tuple(sorted(near[:count]))
            sets.append((sum(far[a][b] for a in chosen for b in chosen if a < b), chosen))
        return sets


def best_fit(cell: PeerCell, need: tuple[int, int, int]) -> float:
    """Threads left in the cell, and a little for the memory left."""
    left = cell.threads - need[0]
    memory = (cell.huge - need[1]) if need[1] else (cell.base - need[2])
    return left + memory / 1000


def fragmentation_gradient(cell: PeerCell, need: tuple[int, int, int]) -> float:
    """How much more of the cell's free threads is of no use to the mix, once the VM is there."""
    after = PeerCell(cell.threads - need[0], cell.huge - need[1], cell.base - need[2])
    return _useless(after) - _useless(cell)


def _useless(cell: PeerCell) -> float:
    total = sum(weight for _, _, weight in FLAVORS)
    useless = 0.0
    for vcpus, cells, weight in FLAVORS:
        threads = vcpus // cells
        for huge, share in ((True, HUGE_SHARE), (False, 1 - HUGE_SHARE)):
            gib = threads * 3
            fits = cell.fits(threads, gib if huge else 0, 0 if huge else gib + OVERHEAD_GIB)
            useless += 0 if fits else weight / total * share * cell.threads
    return useless
