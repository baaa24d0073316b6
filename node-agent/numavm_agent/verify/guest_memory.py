"""Which of QEMU's mappings are the memory of which guest cell. Pure.

QEMU maps each cell's memory as one block with a guard page behind it, so that two blocks never
become one mapping. The kernel does not say which block is whose; size, policy and page size tell.
Where two cells agree in all of these, either block may be either's: what is promised for them is
the same.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from numavm_agent.verify.parsers import MemoryMapping, Policy
from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.placement import PlacedCell
from numavm_api.quantity import Bytes

_MEMFD_NAME: Final = "/memfd:memory-backend-memfd"
"""QEMU's name for the memory of a memory-backend-memfd (backends/hostmem-memfd.c)."""
_FILE_NAME: Final = re.compile(
    r"/.*/(qemu_back_mem\._objects_)?(ram-node\d+|memua-mem-[-a-z0-9]+)(\.\w+)?( \(deleted\))?"
)
"""Memory of a memory-backend-file: libvirt's name below memory_backing_dir, QEMU's on hugetlbfs (softmmu/physmem.c)."""

Key = TypeVar("Key", bound=Hashable)

POLICIES: Final = {
    BindingMode.STRICT: frozenset({Policy.BIND}),
    BindingMode.PREFERRED: frozenset({Policy.PREFER, Policy.PREFER_MANY}),
    BindingMode.INTERLEAVE: frozenset({Policy.INTERLEAVE}),
}
"""What each mode is in the kernel. Restrictive has no policy: the cgroup holds the process down."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of guest memory: one mapping, or several in a row where the kernel split it."""

    mappings: tuple[MemoryMapping, ...]

    @property
    def size(self) -> Bytes:
        """Its size."""
        return Bytes(sum(mapping.size for mapping in self.mappings))

    @property
    def page_size(self) -> Bytes:
        """Size of its pages."""
        return self.mappings[0].page_size

    def resident(self) -> dict[int, Bytes]:
        """Return host cell -> bytes resident there, by cell."""
        found: dict[int, Bytes] = {}
        for mapping in self.mappings:
            for cell, amount in mapping.resident.items():
                found[cell] = Bytes(found.get(cell, 0) + amount)
        return dict(sorted(found.items()))

    def is_bound_as(self, cell: PlacedCell) -> bool:
        """Tell whether every mapping has the policy and host cells promised for a guest cell."""
        if cell.mode is BindingMode.RESTRICTIVE:
            return True
        return all(
            mapping.policy in POLICIES[cell.mode] and mapping.nodes == cell.host_cells
            for mapping in self.mappings
        )

    def holds(self, address: int) -> bool:
        """Tell whether an address of the process is in it."""
        return any(one.start <= address < one.end for one in self.mappings)

    def astray(self, cells: CpuSet) -> Bytes:
        """Return how much of it is resident on other host cells than these."""
        return Bytes(sum(size for cell, size in self.resident().items() if cell not in cells))

    def nodes(self) -> CpuSet:
        """Return the host cells that its policies name."""
        return CpuSet.union_of(mapping.nodes for mapping in self.mappings)


def blocks_of(
    promised: Mapping[Key, PlacedCell], mappings: Iterable[MemoryMapping]
) -> dict[Key, Block]:
    """Return the block of each cell or module; one whose memory is not there is left out.

    Blocks bound as promised are given out first, so that one wrong block never looks like two.
    """
    free = _blocks(mappings, {cell.memory for cell in promised.values()})
    found: dict[Key, Block] = {}
    for fits in (_is_as_promised, _has_size_and_pages, _has_size):
        for key, cell in promised.items():
            block = next((block for block in free if fits(block, cell)), None)
            if key not in found and block is not None:
                found[key] = block
                free.remove(block)
    return found


def blocks_at(
    cells: Sequence[PlacedCell], mappings: Iterable[MemoryMapping], addresses: Mapping[int, int]
) -> dict[int, Block]:
    """Return guest cell -> the block that holds the address QEMU names for it.

    After memory was moved, policies no longer tell whose a block is.
    """
    blocks = _blocks(mappings, {cell.memory for cell in cells})
    found = {
        cell.id: next(
            (block for block in blocks if cell.id in addresses and block.holds(addresses[cell.id])),
            None,
        )
        for cell in cells
    }
    return {cell: block for cell, block in found.items() if block is not None}


def _is_as_promised(block: Block, cell: PlacedCell) -> bool:
    return _has_size_and_pages(block, cell) and block.is_bound_as(cell)


def _has_size_and_pages(block: Block, cell: PlacedCell) -> bool:
    return _has_size(block, cell) and block.page_size == cell.page_size


def _has_size(block: Block, cell: PlacedCell) -> bool:
    return block.size == cell.memory


def _blocks(mappings: Iterable[MemoryMapping], sizes: set[Bytes]) -> list[Block]:
    """Return candidates: memfd blocks by file, and anonymous ranges as large as a cell's memory.

    QEMU creates cells in their order and the kernel maps downwards, hence the highest address
    first.
    """
    readable = sorted(
        (mapping for mapping in mappings if mapping.permissions.startswith("rw-")),
        key=lambda mapping: mapping.start,
    )
    files: dict[int, list[MemoryMapping]] = {}
    for mapping in readable:
        if mapping.name.startswith(_MEMFD_NAME) or _FILE_NAME.fullmatch(mapping.name):
            files.setdefault(mapping.inode, []).append(mapping)
    blocks = [Block(tuple(parts)) for parts in files.values()]
    blocks += _anonymous_blocks([one for one in readable if not one.name], sizes)
    return sorted(blocks, key=lambda block: block.mappings[0].start, reverse=True)


def _anonymous_blocks(mappings: Sequence[MemoryMapping], sizes: set[Bytes]) -> list[Block]:
    """Return runs of adjoining mappings that together have one of `sizes`."""
    found: list[Block] = []
    taken_up_to = 0
    for index, mapping in enumerate(mappings):
        if mapping.start < taken_up_to:
            continue
        block = _run_of_size(mappings[index:], sizes)
        if block is not None:
            found.append(block)
            taken_up_to = block.mappings[-1].end
    return found


def _run_of_size(mappings: Sequence[MemoryMapping], sizes: set[Bytes]) -> Block | None:
    run: list[MemoryMapping] = []
    for mapping in mappings:
        if run and run[-1].end != mapping.start:
            return None
        run.append(mapping)
        size = mapping.end - run[0].start
        if size in sizes:
            return Block(tuple(run))
        if size > max(sizes):
            return None
    return None
