"""What one VM asks of the fleet, in the numbers the search works with.

Owns the step from an effective VM to demands: how many threads, on what kind of siblings, how many pages of
which size per
guest cell. The rules for threads are Nova's (`hw:cpu_thread_policy`), made definite for guests that name their
own threads:

Prefer
    Any free CPUs; a guest core's threads on siblings where there are such.
Require
    A guest core's threads sit on sibling threads of one host core. With one thread per core, consecutive vCPUs
    of a cell pair up and each pair sits on siblings; an odd last one takes any thread of a core that has
    siblings.
Isolate
    Each vCPU has a whole host core, all of whose threads are claimed; the siblings stay empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Final

from numavm_api.cpu import BindingMode, ThreadPolicy
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveCell, EffectiveVM
from numavm_api.numavm import CellSharing, DomainType
from numavm_api.quantity import BASE_PAGE, MEBIBYTE, Bytes

OVERHEAD_BASE: Final = 64 * MEBIBYTE
"""QEMU itself: code, device models, the display, libvirt's monitor buffers."""
OVERHEAD_PER_VCPU: Final = 8 * MEBIBYTE
"""KubeVirt's figure per vCPU (GetMemoryOverhead)."""
PAGE_TABLE_ENTRY: Final = 8
"""Bytes of page table per page: 1/512 of memory in base pages, KubeVirt's figure, and next to nothing in huge pages."""
PAIR: Final = 2


class CpuRule(StrEnum):
    """What a guest cell's vCPUs take of a host cell."""

    FLOAT = "Float"
    """Room among the shared CPUs; a unit is a vCPU."""
    ANYWHERE = "Anywhere"
    """A CPU each; a unit is a vCPU."""
    SIBLINGS = "Siblings"
    """A unit is a group of vCPUs that sit on threads of one core; leftover vCPUs are singles."""
    WHOLE_CORES = "WholeCores"
    """A unit is a vCPU and takes a whole core."""


@dataclass(frozen=True, slots=True)
class CellNeed:
    """What one guest cell asks for. Cells with equal needs are interchangeable to the search."""

    units: int
    """In the sense of the request's `CpuRule`."""
    singles: int
    """vCPUs beside the groups; only with `SIBLINGS`."""
    vcpus: int
    memory: Bytes
    """Whole pages."""
    page_size: Bytes
    mode: BindingMode
    host_cells: CpuSet | None
    """The nodeset the user bound it to; None: the search chooses one host cell."""


@dataclass(frozen=True, slots=True)
class CellDemand:
    """What a guest cell, with or without the emulator, wants of one host cell that has nothing else to bear."""

    rule: CpuRule
    group_size: int
    units: int
    singles: int
    emulators: int
    memory: tuple[tuple[Bytes, int], ...]
    least: int
    """CPUs that it takes at least: what is quickest to look at."""


@dataclass(frozen=True)
class Shape:
    """Everything of a request that decides where it fits; equal shapes get equal answers from equal hosts."""

    cells: tuple[CellNeed, ...]
    rule: CpuRule
    group_size: int
    """Threads per unit with `SIBLINGS`, else 1."""
    emulators: int
    """pCPUs (with Isolate: cores) for emulator threads: 0 or 1."""
    overhead: Bytes
    declared: bool
    """False: the one cell may span host cells."""
    sharing: bool
    """True: guest cells may share a host cell."""
    vcpus: int
    domain_type: DomainType
    node_selector: tuple[tuple[str, str], ...] = ()
    machine_type: str = "q35"
    host_paths: tuple[str, ...] = ()

    @cached_property
    def bound(self) -> bool:
        """Whether the user bound any cell to host cells."""
        return any(cell.host_cells is not None for cell in self.cells)

    @cached_property
    def open_cells(self) -> tuple[int, ...]:
        """Guest cells whose host cell the search chooses: equal ones together, the most demanding first."""
        free = [at for at, cell in enumerate(self.cells) if cell.host_cells is None]
        return tuple(sorted(free, key=lambda at: (*_greed(self.cells[at]), at)))

    @cached_property
    def same_as_before(self) -> tuple[bool, ...]:
        """Per open cell: it asks for the same as the one before it."""
        cells = [self.cells[at] for at in self.open_cells]
        return tuple(at > 0 and cells[at - 1] == cell for at, cell in enumerate(cells))

    @cached_property
    def demands(self) -> tuple[tuple[CellDemand, CellDemand], ...]:
        """Per guest cell: its demand on one host cell, and that with emulator and overhead on top."""
        return tuple(self.demands_of(cell) for cell in self.cells)

    def demands_of(self, need: CellNeed) -> tuple[CellDemand, CellDemand]:
        """Return a need as a demand on one host cell, and with emulator and overhead on top."""
        own = {need.page_size: int(need.memory)}
        full = own | {BASE_PAGE: own.get(BASE_PAGE, 0) + self.overhead}
        bare = self._demand(need, own, 0)
        return bare, self._demand(need, full, self.emulators)

    def _demand(self, need: CellNeed, memory: dict[Bytes, int], emulators: int) -> CellDemand:
        floats = self.rule is CpuRule.FLOAT
        return CellDemand(
            rule=self.rule,
            group_size=self.group_size,
            units=need.units,
            singles=need.singles,
            emulators=emulators,
            memory=tuple(sorted(memory.items())),
            least=0 if floats else need.units * self.group_size + need.singles + emulators,
        )


def _greed(need: CellNeed) -> tuple[int, int, int, str]:
    """Return a key under which equal needs stand together, the most demanding first."""
    return (-need.vcpus, -need.memory, need.page_size, need.mode)


@dataclass(frozen=True, slots=True)
class Request:
    """One VM that wants a host."""

    uid: str
    namespace: str
    name: str
    vm: EffectiveVM
    shape: Shape
    placement_id: str
    epoch: int
    request_hash: str
    priority: int = 0
    excluded: Mapping[str, str] = field(default_factory=dict)
    """Hosts that do not count now, with the reason."""
    tied_to: str | None = None
    """The only host that counts."""
    former_host: str | None = None
    """The host that wins among those of equal distance."""


def request_for(  # noqa: PLR0913 - all by keyword, each a fact of its own
    vm: EffectiveVM,
    *,
    uid: str,
    namespace: str,
    name: str,
    placement_id: str,
    epoch: int,
    request_hash: str,
    domain_type: DomainType = DomainType.AUTO,
    machine_type: str = "q35",
    host_paths: tuple[str, ...] = (),
    node_selector: Mapping[str, str] | None = None,
    priority: int = 0,
    excluded: Mapping[str, str] | None = None,
    tied_to: str | None = None,
    former_host: str | None = None,
) -> Request:
    """Return the request of `vm`.

    Args:
        vm: The VM; `numavm_api.validation.validate` accepted its spec.
        uid: The NumaVM's uid.
        namespace: For people.
        name: For people.
        placement_id: Goes into the placement as it is, like `epoch` and `request_hash`.
        epoch: The leader's.
        request_hash: `numavm_api.request_hash.request_hash(spec)`.
        domain_type: `spec.domain.type`.
        machine_type: `spec.domain.machine.type`, or the version that status keeps.
        host_paths: Every host path of the spec; the host must permit them.
        node_selector: Labels the node must have.
        priority: Larger goes first in a queue; the engine itself does not read it.
        excluded: Hosts that do not count now, with the reason.
        tied_to: The only host that counts (a disk of the VM lies there).
        former_host: Where the VM ran before.
    """
    rule = _rule_of(vm)
    shape = Shape(
        cells=tuple(_cell_need(vm, cell, rule) for cell in vm.cells),
        rule=rule,
        group_size=_group_size(vm) if rule is CpuRule.SIBLINGS else 1,
        emulators=int(vm.isolate_emulator_thread and vm.dedicated),
        overhead=overhead_of(vm),
        declared=vm.cells_declared,
        sharing=vm.cell_sharing is CellSharing.ALLOW,
        vcpus=vm.vcpus,
        domain_type=domain_type,
        node_selector=tuple(sorted((node_selector or {}).items())),
        machine_type=machine_type,
        host_paths=tuple(sorted(host_paths)),
    )
    return Request(
        uid=uid,
        namespace=namespace,
        name=name,
        vm=vm,
        shape=shape,
        placement_id=placement_id,
        epoch=epoch,
        request_hash=request_hash,
        priority=priority,
        excluded=dict(excluded or {}),
        tied_to=tied_to,
        former_host=former_host,
    )


def overhead_of(vm: EffectiveVM) -> Bytes:
    """Return QEMU's own memory: a base, a part per vCPU, page tables; in whole base pages.

    The parts are those of KubeVirt's GetMemoryOverhead that a bare QEMU has.
    """
    tables = sum(_pages(cell) * PAGE_TABLE_ENTRY for cell in vm.cells)
    total = OVERHEAD_BASE + vm.vcpus * OVERHEAD_PER_VCPU + tables
    return Bytes(-(-total // BASE_PAGE) * BASE_PAGE)


def sibling_groups(vm: EffectiveVM, cell: EffectiveCell) -> tuple[tuple[int, ...], ...]:
    """Return the vCPUs of a cell in the groups that belong on siblings, in order of their numbers.

    With several threads per core these are the guest's cores; else pairs of neighbours, the last one alone
    where the number is odd.
    """
    if vm.threads_per_core > 1:
        return tuple(tuple(core) for core in vm.cores_of(cell))
    numbers = tuple(cell.vcpus)
    return tuple(numbers[at : at + PAIR] for at in range(0, len(numbers), PAIR))


def _rule_of(vm: EffectiveVM) -> CpuRule:
    if not vm.dedicated:
        return CpuRule.FLOAT
    match vm.thread_policy:
        case ThreadPolicy.PREFER:
            return CpuRule.ANYWHERE
        case ThreadPolicy.REQUIRE:
            return CpuRule.SIBLINGS
        case ThreadPolicy.ISOLATE:
            return CpuRule.WHOLE_CORES


def _group_size(vm: EffectiveVM) -> int:
    return max(PAIR, vm.threads_per_core)


def _cell_need(vm: EffectiveVM, cell: EffectiveCell, rule: CpuRule) -> CellNeed:
    vcpus = len(cell.vcpus)
    groups, singles = divmod(vcpus, _group_size(vm)) if rule is CpuRule.SIBLINGS else (vcpus, 0)
    return CellNeed(
        units=groups,
        singles=singles,
        vcpus=vcpus,
        memory=Bytes(_pages(cell) * cell.page_size),
        page_size=cell.page_size,
        mode=cell.mode,
        host_cells=cell.host_cells,
    )


def _pages(cell: EffectiveCell) -> int:
    """Return the pages of boot memory and of the modules plugged into it."""
    return -(-cell.memory // cell.page_size) - (-cell.plugged // cell.page_size)
