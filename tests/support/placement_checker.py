"""The independent reader: whether a claim breaks a rule, by the rules and not by the engine.

Reads API objects as dicts (NumaHost, NumaVM), so that any test can hand it what the API server says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numavm_api.backing import Allocation
from numavm_api.cpu import BindingMode, ThreadPolicy
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveCell, EffectiveVM, effective
from numavm_api.hmat import HostCellClass
from numavm_api.host_devices import NumaAffinity
from numavm_api.numahost import NumaHostSpec, NumaHostStatus
from numavm_api.numavm import CellSharing, LastLevelCache, NumaVMSpec
from numavm_api.placement import CpuPlacement, PlacedCell, Placement
from numavm_api.quantity import BASE_PAGE
from support.placement_rules import (
    DeviceFacts,
    beside_boot_memory,
    counts_of,
    groups,
    modules_apart,
    needs_cpu,
    pages_by_node,
    split,
)


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
    caches: dict[int, frozenset[int]]
    """CPUs of one host cell that share the last-level cache of each CPU."""
    devices: DeviceFacts
    classes: dict[int, HostCellClass | None]
    """Kind of memory of each host cell."""

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
            caches={
                cpu.id: frozenset(
                    other.id
                    for other in cell.cpus
                    if other.last_level_cache == cpu.last_level_cache
                )
                for cell in status.cells
                for cpu in cell.cpus
            },
            devices=DeviceFacts(host["status"]),
            classes={cell.id: cell.memory_class for cell in status.cells},
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
    return claim_violations(
        Placement.model_validate(placement),
        effective(NumaVMSpec.model_validate(vm["spec"])),
        host,
        [Placement.model_validate(other) for other in other_claims],
    )


def claim_violations(
    claim: Placement, wanted: EffectiveVM, host: dict[str, Any], others: Sequence[Placement]
) -> list[str]:
    """Return every rule that a claim breaks, of a VM with everything a user can ask for."""
    facts = HostFacts.of(host)
    if wanted.derived_cells is not None:
        if len(claim.cells) not in counts_of(wanted):
            return [f"{len(claim.cells)} derived cells"]
        wanted = split(wanted, len(claim.cells))
    return [
        *_cells_as_asked(claim, wanted, facts),
        *_own_host_cells(claim, wanted),
        *_modules(claim, wanted),
        *_cpus(claim, wanted, facts),
        *_whole_caches(claim, wanted, facts),
        *_devices(claim, wanted, others, facts),
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
        if (got.vcpus, got.memory) != (cell.vcpus, cell.memory):
            yield f"guest cell {cell.id}: vCPUs or memory are not those asked for"
        if got.page_size not in (cell.page_size, *cell.fallback_page_sizes):
            yield f"guest cell {cell.id}: pages of {got.page_size}"
        yield from _held_as_asked(got, cell, wanted)
        yield from _binding_as_asked(got, cell, wanted, facts)


def _held_as_asked(got: PlacedCell, cell: EffectiveCell, wanted: EffectiveVM) -> Iterable[str]:
    if (got.plugged or 0) != beside_boot_memory(wanted, cell, got.page_size):
        yield f"guest cell {cell.id}: {got.plugged} beside its boot memory"
    if sorted(got.vcpus if got.held_vcpus is None else got.held_vcpus) != needs_cpu(wanted, cell):
        yield f"guest cell {cell.id}: room for vCPUs {got.held_vcpus}"
    if cell.among is not None and not got.host_cells.members <= cell.among.members:
        yield f"guest cell {cell.id}: on {got.host_cells}, not among {cell.among}"


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
    without_cpus = any(not facts.cpus.get(one) for one in got.host_cells)
    if cell.cell_class is not None:
        classes = {facts.classes.get(one) for one in got.host_cells}
        if classes != {cell.cell_class}:
            yield f"guest cell {cell.id}: on {got.host_cells} of {classes}, not {cell.cell_class}"
    at_start = wanted.backing.allocation is Allocation.IMMEDIATE
    takes_at_start = at_start and cell.mode is not BindingMode.RESTRICTIVE
    named = cell.host_cells is not None
    if without_cpus and not named and (cell.cell_class is None or takes_at_start):
        yield f"guest cell {cell.id}: on a host cell without CPUs, unasked"


def _modules(claim: Placement, wanted: EffectiveVM) -> Iterable[str]:
    """Modules with host cells or pages of their own are where they were asked for, else where their cell is."""
    asked = modules_apart(wanted)
    if [module.name for module in claim.modules] != [one.name for one in asked]:
        yield f"modules {[module.name for module in claim.modules]}"
        return
    cells = {cell.id: cell for cell in claim.cells}
    for got, one in zip(claim.modules, asked, strict=True):
        cell = cells[got.cell]
        where = cell.host_cells if one.host_cells is None else one.host_cells
        facts = (got.cell, got.host_cells, got.mode, got.memory, got.page_size)
        if facts != (one.cell, where, cell.mode, one.size, one.page_size):
            yield f"module {one.name}: {facts}"


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
    wrong = [message for cell in claim.cells for message in _pcpus_of_cell(cell, facts)]
    yield from wrong
    if wrong:
        return
    pinned = [cpus.first() for cell in claim.cells for cpus in cell.pcpus if cpus]
    pinned += [cpus.first() for cpus in claim.io_thread_cpus]
    if len(set(pinned)) != len(pinned):
        yield "a pCPU for two threads"
    yield from _thread_policy(claim, wanted, facts)
    yield from _hands(claim, wanted, facts)
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
    if wanted.last_level_cache is LastLevelCache.WHOLE:
        expected = set().union(*(facts.caches.get(cpu, frozenset({cpu})) for cpu in expected))
    if claim.dedicated_cpus.members != expected:
        yield f"holds {claim.dedicated_cpus}, should hold {CpuSet(frozenset(expected))}"
    if not claim.dedicated_cpus.members <= facts.dedicated:
        yield f"holds {claim.dedicated_cpus}, the pool is {CpuSet(facts.dedicated)}"


def _pcpus_of_cell(cell: PlacedCell, facts: HostFacts) -> Iterable[str]:
    if len(cell.pcpus) != len(cell.vcpus):
        yield f"{len(cell.pcpus)} pCPUs for {len(cell.vcpus)} vCPUs"
        return
    near = frozenset().union(*(facts.cpus.get(one, frozenset()) for one in cell.host_cells))
    held = cell.vcpus if cell.held_vcpus is None else cell.held_vcpus
    for vcpu, cpus in zip(cell.vcpus, cell.pcpus, strict=True):
        if len(cpus) != (vcpu in held) or not cpus.members <= near:
            yield f"vCPU {vcpu}: pCPU '{cpus}' is not one CPU of host cells {cell.host_cells}"


def _hands(claim: Placement, wanted: EffectiveVM, facts: HostFacts) -> Iterable[str]:
    for cell in claim.cells:
        for vcpu, cpus in zip(cell.vcpus, cell.pcpus, strict=True):
            pins = wanted.vcpu_candidates.get(vcpu)
            if cpus and pins is not None and cpus.first() not in pins:
                yield f"vCPU {vcpu} on {cpus}, allowed are {pins}"
    pins = wanted.emulator_candidates
    if claim.emulator_cpus and pins is not None and claim.emulator_cpus.first() not in pins:
        yield f"emulator on {claim.emulator_cpus}, allowed are {pins}"
    yield from _io_threads(claim, wanted, facts)


def _io_threads(claim: Placement, wanted: EffectiveVM, facts: HostFacts) -> Iterable[str]:
    if len(claim.io_thread_cpus) != wanted.dedicated_io_threads:
        yield f"{len(claim.io_thread_cpus)} CPUs for I/O threads"
    near = frozenset().union(*(facts.cpus.get(one, frozenset()) for one in claim.host_cells))
    for number, cpus in enumerate(claim.io_thread_cpus, start=1):
        pins = wanted.io_thread_candidates.get(number)
        if cpus and pins is not None and cpus.first() not in pins:
            yield f"I/O thread {number} on {cpus}, allowed are {pins}"
        if len(cpus) != 1 or not cpus.members <= near:
            yield f"I/O thread on '{cpus}', not on one CPU of the VM's host cells"


def _whole_caches(claim: Placement, wanted: EffectiveVM, facts: HostFacts) -> Iterable[str]:
    if not wanted.dedicated or wanted.last_level_cache is not LastLevelCache.WHOLE:
        return
    for cpu in claim.dedicated_cpus:
        if not facts.caches[cpu] <= claim.dedicated_cpus.members:
            yield f"CPU {cpu}: the rest of its cache is not held"


def _devices(
    claim: Placement, wanted: EffectiveVM, others: Sequence[Placement], facts: HostFacts
) -> Iterable[str]:
    if [device.name for device in claim.devices] != [wish.name for wish in wanted.host_devices]:
        yield f"devices {[device.name for device in claim.devices]}"
        return
    free = facts.devices.free({one.address for other in others for one in other.devices})
    if len({device.address for device in claim.devices}) != len(claim.devices):
        yield "one device twice"
    nodes_of = {cell.id: sorted(cell.host_cells) for cell in claim.cells}
    for device, wish in zip(claim.devices, wanted.host_devices, strict=True):
        nodes = sorted(claim.host_cells) if wish.cell is None else nodes_of.get(wish.cell, [])
        if device.address not in free:
            yield f"device {device.address} is not free"
        elif not facts.devices.of_kind(wish, device.address):
            yield f"device {device.address} is not what was asked for"
        elif wish.affinity is not NumaAffinity.PREFERRED and not facts.devices.near(
            wish, device.address, nodes
        ):
            yield f"device {device.address} is not near host cells {nodes}"


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
        pins = {v: cpus.first() for v, cpus in zip(cell.vcpus, got.pcpus, strict=True) if cpus}
        for group in groups(wanted, cell):
            cores = {facts.cores[pins[vcpu]] for vcpu in group}
            if len(cores) != 1 or any(len(core) < 2 for core in cores):
                yield f"guest cell {cell.id}: vCPUs {group} not on siblings"


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
        pages = -(-int(cell.memory) // size) - (-int(cell.plugged or 0) // size)
        nodes = sorted(cell.host_cells)
        if cell.mode is BindingMode.INTERLEAVE:
            for node in nodes:
                sums[node, size] += -(-pages // len(nodes)) * size
        elif cell.mode is BindingMode.PREFERRED:
            sums[nodes[0], size] += pages * size
        else:
            for node in nodes:
                sums[node, size] += pages * size
    for module in claim.modules:
        size = int(module.page_size)
        for node, pages in pages_by_node(
            module.mode, sorted(module.host_cells), -(-int(module.memory) // size)
        ).items():
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


def floating(claim: Placement, facts: HostFacts) -> Counter[int]:
    """Return shared vCPUs per host cell: equal shares, rounded up, on those that have CPUs."""
    counts: Counter[int] = Counter()
    if claim.cpu_placement is CpuPlacement.SHARED:
        for cell in claim.cells:
            vcpus = cell.vcpus if cell.held_vcpus is None else cell.held_vcpus
            over = [node for node in cell.host_cells if facts.cpus.get(node)]
            for node in over:
                counts[node] += -(-len(vcpus) // len(over))
    return counts


def _held(claims: Iterable[Placement]) -> frozenset[int]:
    return frozenset().union(*(claim.dedicated_cpus.members for claim in claims))


def _shared(claim: Placement, others: Sequence[Placement], facts: HostFacts) -> Iterable[str]:
    before, after = _held(others), _held([claim, *others])
    vcpus = sum((floating(one, facts) for one in (claim, *others)), Counter[int]())
    for node in facts.cpus:
        takes = facts.shared_left(node, before) - facts.shared_left(node, after)
        if not vcpus[node] or not (takes or floating(claim, facts)[node]):
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
