"""The plain VMs that a VM with alternatives may become, best first.

A VM leaves three things open besides its host: over how many guest cells it is split (`guestMappingPassthrough`),
which page size each guest cell gets (`hugepages.fallback`), and whether a device is near (`numaAffinity: Preferred`).
Each way to settle them is a plain VM with hard rules only, which the search answers exactly; the first way that fits
is the answer. Fewer cells go before the page sizes asked for first, and these before devices that are near.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from numavm_api.cpu import MAX_CELLS
from numavm_api.derived import largest_pages, split_over
from numavm_api.effective import EffectiveCell, EffectiveHostDevice, EffectiveVM
from numavm_api.host_devices import NumaAffinity
from numavm_operator.placement.demands import shape_of
from numavm_operator.placement.shape import Shape

MAX_WAYS: Final = 512
"""Past so many ways a VM that fits nowhere is undecided, not refused."""


class Way(NamedTuple):
    """One way to settle what a VM leaves open, and what it costs."""

    shape: Shape
    spread: int = 0
    """Derived guest cells beyond the first."""
    fallbacks: int = 0
    """Steps down the lists of page sizes, summed over guest cells."""
    astray: int = 0
    """Devices that may be anywhere though they were preferred near."""

    @property
    def cost(self) -> tuple[int, int, int]:
        """What it costs, the more important first."""
        return self.spread, self.fallbacks, self.astray


class Ways(NamedTuple):
    """All ways, the cheapest first, and the plain VM of each."""

    ways: tuple[Way, ...]
    vms: tuple[EffectiveVM, ...]
    all_there: bool
    """False: there are more than `MAX_WAYS`."""


def ways_of(vm: EffectiveVM) -> Ways:
    """Return the ways to settle what `vm` leaves open."""
    if _is_plain(vm):
        return Ways((Way(shape_of(vm)),), (vm,), all_there=True)
    ways: dict[Way, EffectiveVM] = {}
    for spread, split in _splits(vm):
        for fallbacks, paged in _page_sizes(split):
            for astray, plain in _devices(paged):
                way = Way(shape_of(plain), spread, fallbacks, astray)
                if way not in ways and len(ways) == MAX_WAYS:
                    return _cheapest_first(ways, all_there=False)
                ways.setdefault(way, plain)
    return _cheapest_first(ways, all_there=True)


def _is_plain(vm: EffectiveVM) -> bool:
    """Tell whether nothing is left open, as in most VMs."""
    return (
        vm.derived_cells is None
        and not any(cell.fallback_page_sizes for cell in vm.cells)
        and not any(device.affinity is NumaAffinity.PREFERRED for device in vm.host_devices)
    )


def _cheapest_first(ways: dict[Way, EffectiveVM], *, all_there: bool) -> Ways:
    in_order = sorted(ways, key=lambda way: way.cost)
    return Ways(tuple(in_order), tuple(ways[way] for way in in_order), all_there)


def _splits(vm: EffectiveVM) -> Iterator[tuple[int, EffectiveVM]]:
    """Yield the VM with its guest cells, derived ones settled."""
    if vm.derived_cells is None:
        yield 0, vm
        return
    count = vm.derived_cells.count
    most = min(MAX_CELLS, vm.vcpus // vm.threads_per_core, largest_pages(vm.cells[0]))
    for cells in range(1, most + 1) if count is None else [count]:
        yield cells - 1, split_over(vm, cells)


def _page_sizes(vm: EffectiveVM) -> Iterator[tuple[int, EffectiveVM]]:
    """Yield the VM with every choice of page sizes, fewest steps down first; cells that are alike count as one kind."""
    choices = [(cell.page_size, *cell.fallback_page_sizes) for cell in vm.cells]
    kinds = [_kind(vm, cell) for cell in vm.cells]
    for total in range(sum(len(sizes) - 1 for sizes in choices) + 1):
        for steps in _steps([len(sizes) - 1 for sizes in choices], kinds, total):
            cells = tuple(
                replace(cell, page_size=sizes[step], fallback_page_sizes=())
                for cell, sizes, step in zip(vm.cells, choices, steps, strict=True)
            )
            yield total, replace(vm, cells=cells)


def _kind(vm: EffectiveVM, cell: EffectiveCell) -> tuple[object, ...]:
    """Return a value that is equal for guest cells which can change places."""
    own_wishes = (
        cell.host_cells is not None
        or any(vcpu in vm.vcpu_candidates for vcpu in cell.vcpus)
        or any(device.cell == cell.id for device in vm.host_devices)
        or any(module.cell == cell.id for module in vm.modules_apart)
        or (vm.online_vcpus is not None and not cell.vcpus.members <= vm.online_vcpus.members)
    )
    size = (len(cell.vcpus), cell.memory, cell.plugged, cell.mode)
    return (*size, cell.page_size, cell.fallback_page_sizes, cell.id if own_wishes else -1)


def _steps(
    most: Sequence[int], kinds: Sequence[tuple[object, ...]], total: int
) -> Iterator[tuple[int, ...]]:
    """Yield every way to go `total` steps down, each cell at most its own; among a kind never rising."""

    def go(at: int, left: int, taken: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if at == len(most):
            if left == 0:
                yield taken
            return
        if left > sum(most[at:]):
            return
        same = [taken[before] for before in range(at) if kinds[before] == kinds[at]]
        for step in range(min(most[at], left, *same[-1:]) + 1):
            yield from go(at + 1, left - step, (*taken, step))

    return go(0, total, ())


def _devices(vm: EffectiveVM) -> Iterator[tuple[int, EffectiveVM]]:
    """Yield the VM with every set of preferred devices let go, fewest first; those that stay are required near."""
    preferred = [
        at for at, device in enumerate(vm.host_devices) if device.affinity is NumaAffinity.PREFERRED
    ]
    kinds = [_device_kind(vm.host_devices[at]) for at in preferred]
    for count in range(len(preferred) + 1):
        for let_go in _steps([1] * len(preferred), kinds, count):
            settled = {
                at: NumaAffinity.NONE if gone else NumaAffinity.REQUIRED
                for at, gone in zip(preferred, let_go, strict=True)
            }
            devices = tuple(
                replace(device, affinity=settled.get(at, device.affinity))
                for at, device in enumerate(vm.host_devices)
            )
            yield count, replace(vm, host_devices=devices)


def _device_kind(device: EffectiveHostDevice) -> tuple[object, ...]:
    return device.addresses, device.selector, device.cell
