"""The exhaustive oracle: tries every map and every CPU, and says what the best lawful answer costs.

Written from the rules, sharing nothing with the engine but the API's models. Slow on purpose: no bound, no
matching, no counting; CPUs are tried one by one. Only for small hosts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

from numavm_api.backing import Allocation
from numavm_api.cpu import BindingMode, ThreadPolicy
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveCell, EffectiveVM
from numavm_api.numahost import NumaHostStatus
from numavm_api.numavm import CellSharing, LastLevelCache
from numavm_api.placement import Placement
from numavm_api.quantity import BASE_PAGE, Bytes
from support.placement_checker import HostFacts, booked, floating, room_for_emulator
from support.placement_rules import (
    allowed,
    beside_boot_memory,
    counts_of,
    groups,
    modules_apart,
    needs_cpu,
    pages_by_node,
    split,
)

Map = tuple[tuple[int, ...], ...]
"""Host cells of each guest cell."""


@dataclass(frozen=True, order=True)
class Cost:
    """What an answer costs on one host, the more important first."""

    compromise: int
    fallbacks: int
    astray: int
    distance: int


class Oracle:
    """Knows everything about one host under some claims."""

    def __init__(
        self,
        host: dict[str, Any],
        claims: Sequence[Placement],
        closed: frozenset[int] = frozenset(),
    ) -> None:
        """Take a host; on the host cells that are `closed` the VM may have nothing."""
        self.closed = closed
        self.facts = HostFacts.of(host)
        self.claims = claims
        status = NumaHostStatus.model_validate(host["status"])
        self.slit = {
            (cell.id, entry.cell): entry.value for cell in status.cells for entry in cell.distances
        }
        self.held = frozenset().union(*(claim.dedicated_cpus.members for claim in claims))
        self.memory_held = sum((booked(claim) for claim in claims), Counter[tuple[int, int]]())
        self.floating_held = sum((floating(claim, self.facts) for claim in claims), Counter[int]())

    def best(self, vm: EffectiveVM, overhead: Callable[[EffectiveVM], int]) -> Cost | None:
        """Return the cost of the best lawful answer; None: there is none."""
        if vm.derived_cells is None:
            return min(self._answers(vm, overhead), default=None)
        answers = [
            replace(cost, compromise=count - 1)
            for count in counts_of(vm)
            for cost in self._answers(split(vm, count), overhead)
        ]
        return min(answers, default=None)

    def _answers(self, vm: EffectiveVM, overhead: Callable[[EffectiveVM], int]) -> Iterator[Cost]:
        """Yield the cost of lawful answers, the best one among them."""
        best: Cost | None = None
        for compromise, distance, one in sorted(
            (*self._cost(vm, one), one) for one in self._maps(vm)
        ):
            if best is not None and (compromise, 0, 0, distance) >= (
                best.compromise,
                best.fallbacks,
                best.astray,
                best.distance,
            ):
                continue
            settled = self._settled(vm, one, overhead)
            if settled is not None:
                cost = Cost(compromise, *settled, distance)
                yield cost
                best = cost if best is None else min(best, cost)

    def _settled(
        self, vm: EffectiveVM, one: Map, overhead: Callable[[EffectiveVM], int]
    ) -> tuple[int, int] | None:
        """Return the least page sizes fallen back and devices astray with this map; None: it is not lawful."""
        if any(node not in self.facts.cpus for nodes in one for node in nodes):
            return None
        held = {device.address for claim in self.claims for device in claim.devices}
        by_id = {cell.id: nodes for cell, nodes in zip(vm.cells, one, strict=True)}
        nodes_of = [by_id.get(at, ()) for at in range(16)]
        astray = min(self.facts.devices.ways(vm.host_devices, nodes_of, held), default=None)
        if astray is None:
            return None
        used = sorted({node for nodes in one for node in nodes})
        steps = None
        for sizes in _page_sizes(vm):
            count = sum(step for step, _ in sizes)
            if steps is not None and count >= steps:
                continue
            paged = replace(
                vm,
                cells=tuple(
                    replace(cell, page_size=size)
                    for cell, (_, size) in zip(vm.cells, sizes, strict=True)
                ),
            )
            if any(
                self._memory_fits(paged, one, overhead(paged), at) and self._cpus_fit(vm, one, at)
                for at in used
            ):
                steps = count
        return None if steps is None else (steps, astray)

    def _maps(self, vm: EffectiveVM) -> Iterator[Map]:
        with_cpus = [cell for cell, cpus in self.facts.cpus.items() if cpus]
        choices: list[list[tuple[int, ...]]] = []
        for cell in vm.cells:
            of_class = [one for one, kind in self.facts.classes.items() if kind is cell.cell_class]
            if cell.host_cells is not None:
                named = tuple(sorted(cell.host_cells))
                suits = cell.cell_class is None or set(named) <= set(of_class)
                choices.append([named] if suits else [])
            elif cell.cell_class is not None:
                later = vm.backing.allocation is Allocation.ON_DEMAND
                later = later or cell.mode is BindingMode.RESTRICTIVE
                choices.append([(one,) for one in of_class if later or one in with_cpus])
            elif vm.cells_declared:
                among = None if cell.among is None else cell.among.members
                choices.append([(one,) for one in with_cpus if among is None or one in among])
            else:
                sizes = range(1, len(with_cpus) + 1)
                choices.append([one for size in sizes for one in combinations(with_cpus, size)])
        for one in product(*choices):
            touched = {node for nodes in one for node in nodes}
            touched |= {n for module in vm.modules for n in module.host_cells or ()}
            if self._apart(vm, one) and not touched & self.closed:
                yield one

    def _apart(self, vm: EffectiveVM, one: Map) -> bool:
        if vm.cell_sharing is CellSharing.ALLOW or not vm.cells_declared:
            return True
        uses = Counter(node for nodes in one for node in nodes)
        return all(
            cell.host_cells is not None or uses[nodes[0]] == 1
            for cell, nodes in zip(vm.cells, one, strict=True)
        )

    def _cost(self, vm: EffectiveVM, one: Map) -> tuple[int, int]:
        if not vm.cells_declared:
            pairs = combinations(one[0], 2)
            return len(one[0]) - 1, sum(self._far(a, b) for a, b in pairs)
        bound = {
            n for c, ns in zip(vm.cells, one, strict=True) if c.host_cells is not None for n in ns
        }
        free = [ns[0] for c, ns in zip(vm.cells, one, strict=True) if c.host_cells is None]
        alone = len({node for node in free if node not in bound})
        distance = sum(
            max(self._far(a, b) for a in ones for b in others)
            for ones, others in combinations(one, 2)
        )
        return len(free) - alone, distance

    def _far(self, a: int, b: int) -> int:
        unknown = 10 if a == b else 20
        return self.slit.get((a, b), unknown) + self.slit.get((b, a), unknown)

    def _memory_fits(self, vm: EffectiveVM, one: Map, overhead: int, at: int) -> bool:
        wanted: Counter[tuple[int, int]] = Counter({(at, int(BASE_PAGE)): overhead})
        for cell, nodes in zip(vm.cells, one, strict=True):
            size = int(cell.page_size)
            pages = -(-int(cell.memory) // size) + beside_boot_memory(vm, cell, size) // size
            mode = cell.mode if cell.host_cells is not None or len(nodes) == 1 else "Span"
            if mode in ("Span", BindingMode.INTERLEAVE):
                parts = dict.fromkeys(nodes, -(-pages // len(nodes)))
            elif mode is BindingMode.PREFERRED:
                parts = {nodes[0]: pages}
            else:
                parts = dict.fromkeys(nodes, pages)
            for node, part in parts.items():
                wanted[node, size] += part * size
        nodes_of = {cell.id: nodes for cell, nodes in zip(vm.cells, one, strict=True)}
        modes = {cell.id: cell.mode for cell in vm.cells}
        for module in modules_apart(vm):
            named = sorted(module.host_cells) if module.host_cells else nodes_of[module.cell or 0]
            size = int(module.page_size)
            pages = -(-int(module.size) // size)
            for node, part in pages_by_node(modes[module.cell or 0], named, pages).items():
                if node not in self.facts.cpus:
                    return False
                wanted[node, size] += part * size
        return all(
            amount == 0 or self.memory_held[key] + amount <= self.facts.memory.get(key, 0)
            for key, amount in wanted.items()
        )

    def _cpus_fit(self, vm: EffectiveVM, one: Map, at: int) -> bool:
        if not vm.dedicated:
            return self._floats(vm, one)
        wishes = [
            wish
            for cell, nodes in zip(vm.cells, one, strict=True)
            for wish in self._wishes(vm, cell, nodes)
        ]
        used = {node for nodes in one for node in nodes}
        if vm.isolate_emulator_thread:
            wishes.append(self._emulator_options(vm, [at], vm.emulator_candidates))
        wishes += [
            self._emulator_options(vm, sorted(used), vm.io_thread_candidates.get(one))
            for one in range(1, vm.dedicated_io_threads + 1)
        ]
        for threads in _disjoint(wishes):
            taken = threads
            if vm.last_level_cache is LastLevelCache.WHOLE:
                taken = frozenset().union(*(self.facts.caches[cpu] for cpu in threads))
                if taken & self.held or not taken <= self.facts.dedicated:
                    continue
            if self._others_keep(taken) and self._emulator_floats(vm, used, taken):
                return True
        return False

    def _emulator_floats(self, vm: EffectiveVM, used: set[int], taken: frozenset[int]) -> bool:
        if vm.dedicated and vm.isolate_emulator_thread:
            return True
        room = room_for_emulator(used, self.held | taken, self.facts)
        pins = vm.emulator_candidates
        return bool(room if pins is None else room & pins.members)

    def _floats(self, vm: EffectiveVM, one: Map) -> bool:
        more: Counter[int] = Counter()
        for cell, nodes in zip(vm.cells, one, strict=True):
            over = [node for node in nodes if self.facts.cpus[node]]
            if needs_cpu(vm, cell) and not over:
                return False
            for node in over:
                more[node] += -(-len(needs_cpu(vm, cell)) // len(over))
            shared = frozenset().union(*(self.facts.shared_left(node, self.held) for node in nodes))
            for vcpu in needs_cpu(vm, cell):
                pins = vm.vcpu_candidates.get(vcpu)
                if pins is not None and not pins.members & shared:
                    return False
        used = {node for nodes in one for node in nodes}
        if vm.emulator_candidates and not self._emulator_floats(vm, used, frozenset()):
            return False
        return all(
            vcpus == 0
            or self.floating_held[node] + vcpus
            <= len(self.facts.shared_left(node, self.held)) * self.facts.percent // 100
            for node, vcpus in more.items()
        )

    def _wishes(
        self, vm: EffectiveVM, cell: EffectiveCell, nodes: Sequence[int]
    ) -> list[list[frozenset[int]]]:
        """Return, per vCPU or group of vCPUs, every set of CPUs it could take."""
        free = self._free(nodes)
        sets = []
        for group in groups(vm, cell):
            match vm.thread_policy:
                case ThreadPolicy.PREFER:
                    options = [frozenset({cpu}) for cpu in free]
                case ThreadPolicy.ISOLATE:
                    options = self._whole_cores(nodes)
                case ThreadPolicy.REQUIRE:
                    options = self._siblings(free, len(group))
            if vm.thread_policy is ThreadPolicy.ISOLATE:
                pins = vm.vcpu_candidates.get(group[0])
                sets.append([one for one in options if pins is None or one & pins.members])
            else:
                sets.append([one for one in options if allowed(vm, group, sorted(one))])
        return sets

    def _siblings(self, free: list[int], size: int) -> list[frozenset[int]]:
        """Return every group of so many free threads of one core that has siblings."""
        cores = {self.facts.cores[cpu] for cpu in free if len(self.facts.cores[cpu]) > 1}
        return [
            frozenset(some)
            for core in sorted(cores, key=min)
            for some in combinations(sorted(core & set(free)), size)
        ]

    def _emulator_options(
        self, vm: EffectiveVM, nodes: Sequence[int], pins: CpuSet | None
    ) -> list[frozenset[int]]:
        whole = vm.thread_policy is ThreadPolicy.ISOLATE
        every = self._whole_cores(nodes) if whole else [frozenset({c}) for c in self._free(nodes)]
        return [one for one in every if pins is None or one & pins.members]

    def _free(self, nodes: Iterable[int]) -> list[int]:
        near = frozenset().union(*(self.facts.cpus[node] for node in nodes))
        return sorted((near & self.facts.dedicated) - self.held)

    def _whole_cores(self, nodes: Iterable[int]) -> list[frozenset[int]]:
        free = set(self._free(nodes))
        return sorted(
            {self.facts.cores[cpu] for cpu in free if self.facts.cores[cpu] <= free}, key=min
        )

    def _others_keep(self, taken: frozenset[int]) -> bool:
        """Tell whether no promise to another VM is broken."""
        after = self.held | taken
        for node, vcpus in self.floating_held.items():
            left = len(self.facts.shared_left(node, after))
            before = len(self.facts.shared_left(node, self.held))
            if left < before and vcpus > left * self.facts.percent // 100:
                return False
        return all(
            claim.emulator_cpus
            or not room_for_emulator(claim.host_cells, self.held, self.facts)
            or room_for_emulator(claim.host_cells, after, self.facts)
            for claim in self.claims
        )


def _disjoint(wishes: list[list[frozenset[int]]]) -> Iterator[frozenset[int]]:
    """Yield every choice of one set per wish without overlaps, united; equal wishes in rising order only."""

    def choose(at: int, start: int, taken: frozenset[int]) -> Iterator[frozenset[int]]:
        if at == len(wishes):
            yield taken
            return
        first = start if at and wishes[at] == wishes[at - 1] else 0
        for index in range(first, len(wishes[at])):
            option = wishes[at][index]
            if not option & taken:
                yield from choose(at + 1, index + 1, taken | option)

    yield from choose(0, 0, frozenset())


def _page_sizes(vm: EffectiveVM) -> Iterator[tuple[tuple[int, Bytes], ...]]:
    """Yield every choice of a page size per cell, each with its steps down the list."""
    choices = [list(enumerate((cell.page_size, *cell.fallback_page_sizes))) for cell in vm.cells]
    return product(*choices)
