"""The independent reader: whether a claim breaks a rule, by the rules and not by the engine.

Reads API objects as dicts (NumaHost, NumaVM), so that any test can hand it what the API server says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numavm_api.cpu import BindingMode, ThreadPolicy
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveCell, EffectiveVM, effective
from numavm_api.numahost import NumaHostSpec, NumaHostStatus
from numavm_api.numavm import CellSharing, NumaVMSpec
from numavm_api.placement import CpuPlacement, PlacedCell, Placement
from numavm_api.quantity import BASE_PAGE


@dataclass(frozen=True)
class HostFacts:
    """What the rules ask of a host."""

    cpus: dict[int, frozenset[int]]
    """CPUs of each host cell."""
    cores: dict[int, frozenset[int]]
    """Threads of the core of each CPU."""
    dedicated: frozenset[int]
    shared: frozenset[int] | None
    """None: what dedicated VMs leave of the dedicated pool."""
    housekeeping: frozenset[int]
    percent: int
    memory: dict[tuple[int, int], int]
    """Bytes per host cell and page size."""

    @classmethod
    def of(cls, host: dict[str, Any]) -> HostFacts:
        """Read a NumaHost."""
        spec = NumaHostSpec.model_validate(host.get("spec") or {})
        status = NumaHostStatus.model_validate(host["status"])
        pools = status.pools
        assert pools is not None, "the host publishes no pools"
        cells = {cell.id: frozenset(cpu.id for cpu in cell.cpus) for cell in status.cells}
        online = frozenset().union(*cells.values())
        usable = online - pools.foreign.members
        memory = {(cell.id, int(BASE_PAGE)): int(cell.memory.allocatable) for cell in status.cells}
        for cell in status.cells:
            for pool in cell.hugepages:
                memory[cell.id, int(pool.page_size)] = pool.allocatable * pool.page_size
        return cls(
            cpus=cells,
            cores={
                cpu.id: (cpu.siblings.members | {cpu.id}) & cells[cell.id]
                for cell in status.cells
                for cpu in cell.cpus
            },
            dedicated=pools.dedicated.members & usable,
            shared=None if pools.shared_follows_dedicated else pools.shared.members & usable,
            housekeeping=pools.housekeeping.members & usable,
            percent=spec.cpu_allocation_percent,
            memory=memory,
        )

    def shared_left(self, cell: int, held: frozenset[int]) -> frozenset[int]:
        """Return the shared CPUs of a cell beside the held ones."""
        pool = self.dedicated if self.shared is None else self.shared
        return (pool & self.cpus.get(cell, frozenset())) - held


def violations(
    placement: dict[str, Any],
    vm: dict[str, Any],
    host: dict[str, Any],
    other_claims: Iterable[dict[str, Any]] = (),
) -> list[str]:
    """Return every rule that a claim breaks; of a lawful claim, nothing.

    Args:
        placement: `status.placement` of the VM.
        vm: The NumaVM.
        host: The NumaHost it is on.
        other_claims: What other VMs hold there, one per VM.
    """
    claim = Placement.model_validate(placement)
    wanted = effective(NumaVMSpec.model_validate(vm["spec"]))
    others = [Placement.model_validate(other) for other in other_claims]
    facts = HostFacts.of(host)
    return [
        *_cells_as_asked(claim, wanted, facts),
        *_own_host_cells(claim, wanted),
        *_cpus(claim, wanted, facts),
        *_taken_twice(claim, others),
        *_memory(claim, others, facts),
        *_shared(claim, others, facts),
        *_emulators(claim, others, facts),
    ]


def _cells_as_asked(claim: Placement, wanted: EffectiveVM, facts: HostFacts) -> Iterable[str]:
    if [cell.id for cell in claim.cells] != [cell.id for cell in wanted.cells]:
        yield f"guest cells {[cell.id for cell in claim.cells]}"
        return
    dedicated = claim.cpu_placement is CpuPlacement.DEDICATED
    if dedicated != wanted.dedicated:
        yield f"CPU placement {claim.cpu_placement}"
    for got, cell in zip(claim.cells, wanted.cells, strict=True):
        if (got.vcpus, got.memory, got.page_size) != (cell.vcpus, cell.memory, cell.page_size):
            yield f"guest cell {cell.id}: vCPUs, memory or page size are not those asked for"
        yield from _binding_as_asked(got, cell, wanted, facts)


def _binding_as_asked(
    got: PlacedCell, cell: EffectiveCell, wanted: EffectiveVM, facts: HostFacts
) -> Iterable[str]:
    unknown = got.host_cells.members - facts.cpus.keys()
    if unknown or not got.host_cells:
        yield f"guest cell {cell.id}: host cells '{got.host_cells}'"
    if cell.host_cells is not None and got.host_cells != cell.host_cells:
        yield f"guest cell {cell.id}: on {got.host_cells}, bound to {cell.host_cells}"
    spans = cell.host_cells is None and len(got.host_cells) > 1
    if spans and wanted.cells_declared:
        yield f"guest cell {cell.id}: on several host cells unasked"
    if got.mode != (BindingMode.INTERLEAVE if spans else cell.mode):
        yield f"guest cell {cell.id}: mode {got.mode}"
    if cell.host_cells is None and any(not facts.cpus.get(one) for one in got.host_cells):
        yield f"guest cell {cell.id}: on a host cell without CPUs, unasked"


def _own_host_cells(claim: Placement, wanted: EffectiveVM) -> Iterable[str]:
    if wanted.cell_sharing is CellSharing.ALLOW or not wanted.cells_declared:
        return
    counts = Counter(one for cell in claim.cells for one in cell.host_cells)
    for got, cell in zip(claim.cells, wanted.cells, strict=True):
        if cell.host_cells is None and any(counts[one] > 1 for one in got.host_cells):
            yield f"guest cell {cell.id} shares host cell {got.host_cells} unasked"


def _cpus(claim: Placement, wanted: EffectiveVM, facts: HostFacts) -> Iterable[str]:
    if not wanted.dedicated:
        if claim.dedicated_cpus or any(cell.pcpus for cell in claim.cells):
            yield "a VM with shared CPUs holds dedicated ones"
        return
    wrong = [
        message
        for cell in claim.cells
        for message in _pcpus_of_cell(cell.pcpus, len(cell.vcpus), cell.host_cells, facts)
    ]
    yield from wrong
    if wrong:
        return
    pinned = [cpus.first() for cell in claim.cells for cpus in cell.pcpus]
    if len(set(pinned)) != len(pinned):
        yield "a pCPU for two vCPUs"
    yield from _thread_policy(claim, wanted, facts)
    yield from _held_as_needed(claim, wanted, facts, set(pinned))


def _held_as_needed(
    claim: Placement, wanted: EffectiveVM, facts: HostFacts, expected: set[int]
) -> Iterable[str]:
    if wanted.isolate_emulator_thread:
        yield from _own_emulator(claim, facts, expected)
        expected |= claim.emulator_cpus.members
    elif claim.emulator_cpus:
        yield f"emulator on {claim.emulator_cpus} unasked"
    if wanted.thread_policy is ThreadPolicy.ISOLATE:
        cores = [facts.cores.get(cpu, frozenset({cpu})) for cpu in expected]
        if len(set(cores)) != len(cores):
            yield "Isolate: two threads on one core"
        expected = set().union(*cores)
    if claim.dedicated_cpus.members != expected:
        yield f"holds {claim.dedicated_cpus}, should hold {CpuSet(frozenset(expected))}"
    if not claim.dedicated_cpus.members <= facts.dedicated:
        yield f"holds {claim.dedicated_cpus}, the pool is {CpuSet(facts.dedicated)}"


def _pcpus_of_cell(
    pcpus: Sequence[CpuSet], vcpus: int, host_cells: CpuSet, facts: HostFacts
) -> Iterable[str]:
    if len(pcpus) != vcpus:
        yield f"{len(pcpus)} pCPUs for {vcpus} vCPUs"
    near = frozenset().union(*(facts.cpus.get(cell, frozenset()) for cell in host_cells))
    for cpus in pcpus:
        if len(cpus) != 1 or not cpus.members <= near:
            yield f"pCPU '{cpus}' is not one CPU of host cells {host_cells}"


def _own_emulator(claim: Placement, facts: HostFacts, taken: set[int]) -> Iterable[str]:
    here = facts.cpus.get(claim.overhead_cell, frozenset())
    if len(claim.emulator_cpus) != 1 or not claim.emulator_cpus.members <= here:
        yield f"emulator on '{claim.emulator_cpus}', not on one CPU of cell {claim.overhead_cell}"
    if claim.emulator_cpus.members & taken:
        yield f"emulator on {claim.emulator_cpus}, a vCPU's"


def _thread_policy(claim: Placement, wanted: EffectiveVM, facts: HostFacts) -> Iterable[str]:
    if wanted.thread_policy is not ThreadPolicy.REQUIRE:
        return
    for got, cell in zip(claim.cells, wanted.cells, strict=True):
        pins = dict(zip(cell.vcpus, (next(iter(cpus)) for cpus in got.pcpus), strict=True))
        numbers = list(cell.vcpus)
        size = max(wanted.threads_per_core, 2)
        for at in range(0, len(numbers), size):
            cores = {facts.cores[pins[vcpu]] for vcpu in numbers[at : at + size]}
            if len(cores) != 1 or any(len(core) < 2 for core in cores):
                yield f"guest cell {cell.id}: vCPUs {numbers[at : at + size]} not on siblings"


def _taken_twice(claim: Placement, others: Sequence[Placement]) -> Iterable[str]:
    for other in others:
        both = claim.dedicated_cpus & other.dedicated_cpus
        if both:
            yield f"CPUs {both} are held by claim {other.id} too"


def booked(claim: Placement) -> Counter[tuple[int, int]]:
    """Return bytes per host cell and page size, by the booking rules of the design."""
    sums: Counter[tuple[int, int]] = Counter()
    sums[claim.overhead_cell, int(BASE_PAGE)] += int(claim.overhead)
    for cell in claim.cells:
        size = int(cell.page_size)
        pages = -(-int(cell.memory) // size)
        nodes = sorted(cell.host_cells)
        if cell.mode is BindingMode.INTERLEAVE:
            for node in nodes:
                sums[node, size] += -(-pages // len(nodes)) * size
        elif cell.mode is BindingMode.PREFERRED:
            sums[nodes[0], size] += pages * size
        else:
            for node in nodes:
                sums[node, size] += pages * size
    return sums


def _memory(claim: Placement, others: Sequence[Placement], facts: HostFacts) -> Iterable[str]:
    if claim.overhead_cell not in claim.host_cells:
        yield f"overhead on host cell {claim.overhead_cell}, the VM is on {claim.host_cells}"
    mine = booked(claim)
    held = sum((booked(other) for other in others), Counter[tuple[int, int]]())
    for key, amount in mine.items():
        if amount and amount + held[key] > facts.memory.get(key, 0):
            yield (
                f"host cell {key[0]}, pages of {key[1]}: {amount} on top of {held[key]} "
                f"of {facts.memory.get(key, 0)}"
            )


def floating(claim: Placement) -> Counter[int]:
    """Return shared vCPUs per host cell: equal shares, rounded up."""
    counts: Counter[int] = Counter()
    if claim.cpu_placement is CpuPlacement.SHARED:
        for cell in claim.cells:
            for node in cell.host_cells:
                counts[node] += -(-len(cell.vcpus) // len(cell.host_cells))
    return counts


def _held(claims: Iterable[Placement]) -> frozenset[int]:
    return frozenset().union(*(claim.dedicated_cpus.members for claim in claims))


def _shared(claim: Placement, others: Sequence[Placement], facts: HostFacts) -> Iterable[str]:
    before, after = _held(others), _held([claim, *others])
    vcpus = sum((floating(one) for one in (claim, *others)), Counter[int]())
    for node in facts.cpus:
        takes = facts.shared_left(node, before) - facts.shared_left(node, after)
        if not vcpus[node] or not (takes or floating(claim)[node]):
            continue
        left = len(facts.shared_left(node, after))
        if vcpus[node] > left * facts.percent // 100 or not left:
            yield f"host cell {node}: {vcpus[node]} shared vCPUs over {left} shared CPUs"


def room_for_emulator(
    nodes: Iterable[int], held: frozenset[int], facts: HostFacts
) -> frozenset[int]:
    """Return the CPUs over which an emulator without one of its own can float."""
    room: set[int] = set()
    for node in nodes:
        here = facts.cpus.get(node, frozenset())
        room |= facts.shared_left(node, held)
        room |= (facts.housekeeping | facts.dedicated) & here - held
    return frozenset(room - held)


def _emulators(claim: Placement, others: Sequence[Placement], facts: HostFacts) -> Iterable[str]:
    before, after = _held(others), _held([claim, *others])
    if not claim.emulator_cpus and not room_for_emulator(claim.host_cells, after, facts):
        yield "no CPU for its emulator threads"
    for other in others:
        if other.emulator_cpus:
            continue
        had = room_for_emulator(other.host_cells, before, facts)
        if had and not room_for_emulator(other.host_cells, after, facts):
            yield f"takes the last CPU for the emulator threads of claim {other.id}"
