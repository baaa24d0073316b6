"""What a map under search puts on each host cell, and whether the cell bears it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from numavm_api.quantity import BASE_PAGE, Bytes
from numavm_operator.placement.free import FreeCell
from numavm_operator.placement.shape import CellNeed, Shape


class OutOfStepsError(Exception):
    """The budget of the search is used up: nothing is known."""


@dataclass(slots=True)
class Budget:
    """Counts the nodes of one search down."""

    left: int
    used: int = 0

    def step(self) -> None:
        """Count one node.

        Raises:
            OutOfStepsError: it was one too many.
        """
        if self.left <= 0:
            raise OutOfStepsError
        self.left -= 1
        self.used += 1


@dataclass(frozen=True, slots=True)
class SpreadCpus:
    """vCPUs of one guest cell that take CPUs from any of several host cells."""

    guest_cell: int
    host_cells: tuple[int, ...]
    units: int
    singles: int


@dataclass(slots=True)
class Loads:
    """Demands per host cell, by index; changed and changed back by the search."""

    cells: tuple[FreeCell, ...]
    shape: Shape
    units: list[int] = field(init=False)
    singles: list[int] = field(init=False)
    memory: list[dict[Bytes, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.units = [0] * len(self.cells)
        self.singles = [0] * len(self.cells)
        self.memory = [{} for _ in self.cells]

    def add(self, host_cell: int, need: CellNeed, sign: int = 1) -> None:
        """Put a whole guest cell on one host cell; with sign -1 take it away again."""
        self.units[host_cell] += sign * need.units
        self.singles[host_cell] += sign * need.singles
        self.book(host_cell, need.page_size, sign * need.memory)
        for size, amount in need.beside:
            self.book(host_cell, size, sign * amount)

    @contextmanager
    def carrying(self, guests: Iterable[tuple[int, CellNeed]]) -> Iterator[None]:
        """Bear guest cells, given as (host cell, need), for as long as the block lasts."""
        carried = list(guests)
        for cell, need in carried:
            self.add(cell, need)
        try:
            yield
        finally:
            for cell, need in carried:
                self.add(cell, need, -1)

    def book(self, host_cell: int, page_size: Bytes, amount: int) -> None:
        """Add an amount of memory."""
        booked = self.memory[host_cell]
        booked[page_size] = booked.get(page_size, 0) + amount

    def memory_with(self, host_cell: int, need: CellNeed) -> list[tuple[Bytes, int]]:
        """Return the memory per page size that a host cell would bear with one guest cell more."""
        if not (self.memory[host_cell] or need.beside):
            return [(need.page_size, need.memory)]
        booked = dict(self.memory[host_cell])
        for size, amount in ((need.page_size, need.memory), *need.beside):
            booked[size] = booked.get(size, 0) + amount
        return sorted(booked.items())

    def bears(
        self, host_cell: int, *, emulators: int = 0, overhead: int = 0, kept: int = 0
    ) -> bool:
        """Tell whether the cell bears its load, and so many emulator CPUs and bytes of overhead on top."""
        room = self.unit_room(host_cell, emulators=emulators, kept=kept)
        return room >= 0 and self._bears_memory(host_cell, overhead)

    def unit_room(self, host_cell: int, *, emulators: int = 0, kept: int = 0) -> int:
        """Return how many more units the cell's CPUs bear; negative: they do not bear the load."""
        shape = self.shape
        units = self.units[host_cell]
        singles = self.singles[host_cell]
        return (
            self.cells[host_cell].unit_capacity(
                shape.rule,
                shape.group_size,
                singles,
                emulators,
                kept=kept,
                whole_caches=shape.whole_caches,
            )
            - units
        )

    def spare(self, host_cell: int, *, emulators: int = 0, kept: int = 0) -> int:
        """Return how many more threads with a CPU (or core) of their own the cell bears; negative: not its load."""
        wanted = self.shape.io_threads
        for more in range(wanted, -1, -1):
            if self.unit_room(host_cell, emulators=emulators + more, kept=kept) >= 0:
                return more
        return -1

    def taken(self, host_cell: int, emulators: int = 0) -> int:
        """Return the CPUs that the load takes of the cell, which bears it."""
        shape = self.shape
        units, singles = self.units[host_cell], self.singles[host_cell]
        if not (units or singles or emulators):
            return 0
        return self.cells[host_cell].cpus_taken(
            shape.rule,
            shape.group_size,
            units,
            singles,
            emulators,
            whole_caches=shape.whole_caches,
        )

    def snapshot(self, host_cell: int) -> tuple[int, int, tuple[tuple[Bytes, int], ...]]:
        """Return the load of a cell as a value."""
        return (
            self.units[host_cell],
            self.singles[host_cell],
            tuple(
                sorted((size, amount) for size, amount in self.memory[host_cell].items() if amount)
            ),
        )

    def _bears_memory(self, host_cell: int, overhead: int) -> bool:
        cell = self.cells[host_cell]
        booked = self.memory[host_cell]
        if overhead and booked.get(BASE_PAGE, 0) + overhead > cell.memory_left(BASE_PAGE):
            return False
        return all(
            amount <= cell.memory_left(size) for size, amount in booked.items() if amount > 0
        )
