"""Whether threads and pages are where they were promised. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from numavm_agent.domain.pins import Pins
from numavm_agent.verify.guest_memory import Block, blocks_at, blocks_of
from numavm_agent.verify.modules import module_problems, promised_modules
from numavm_agent.verify.parsers import NOTHING, OTHER, MemoryMapping, ThreadState
from numavm_api.backing import Allocation
from numavm_api.conditions import Reason
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveVM
from numavm_api.placement import PlacedCell, Placement
from numavm_api.quantity import BASE_PAGE, Bytes, format_bytes
from numavm_api.vm_status import CellStatus, NumaStatus, Resident


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as promised."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the kernel confirms, and what not."""

    numa: NumaStatus
    problems: tuple[Problem, ...]
    """Threads first, then pages."""

    @property
    def aligned(self) -> bool:
        """Whether everything is as promised, on one host cell per guest cell."""
        return not self.problems

    @property
    def reason(self) -> Reason:
        """Reason of the condition NumaAligned."""
        return self.problems[0].reason if self.problems else Reason.KERNEL_CONFIRMS

    @property
    def message(self) -> str:
        """Message of the condition NumaAligned."""
        if self.problems:
            return "; ".join(problem.message for problem in self.problems)[:4096]
        return "every vCPU thread is pinned, and every page of guest memory lies, as promised"


def verify(
    placement: Placement,
    vm: EffectiveVM,
    pins: Pins,
    threads: Sequence[ThreadState],
    mappings: Iterable[MemoryMapping],
    now: str,
    addresses: Mapping[int, int] | None = None,
) -> Verdict:
    """Return what the kernel confirms of a running domain.

    Args:
        placement: The claim it runs under.
        vm: The spec it was built from, with defaults.
        pins: Affinities that must hold now (`settled_pins`).
        threads: Its threads, as the kernel has them.
        mappings: Its memory, as the kernel has it.
        now: Time of reading, for `status.numa.verifiedAt`.
        addresses: Of a domain whose memory was moved: guest cell -> an address in its memory. Its policies are not
            judged: nobody but QEMU itself can set them anew.
    """
    moved = addresses is not None
    modules = {} if moved else promised_modules(placement, vm)
    blocks, plugged = _blocks_of(placement, modules, mappings, addresses)
    cells = [
        _cell_status(
            cell,
            pins,
            threads,
            CellMemory(
                blocks.get(cell.id),
                [
                    (block, modules[name])
                    for name, block in plugged.items()
                    if modules[name].id == cell.id
                ],
            ),
            vm.boot_vcpus,
            moved=moved,
        )
        for cell in placement.cells
    ]
    problems = (
        *thread_problems(pins, threads, vm),
        *_locking(vm, threads),
        *_page_problems(placement, vm, blocks, moved=moved),
        *(Problem(reason, text) for reason, text in module_problems(vm, modules, plugged)),
        *_spanning(placement, vm),
    )
    return Verdict(numa=NumaStatus(cells=cells, verified_at=now), problems=problems)


def thread_problems(
    pins: Pins, threads: Sequence[ThreadState], vm: EffectiveVM
) -> tuple[Problem, ...]:
    """Return every thread that may run elsewhere than promised, and every vCPU without a thread.

    A vCPU's thread may run exactly where promised; an I/O thread or an emulator's there or on a
    part of it. A thread that KVM made may run wherever the VM may: it comes up where a vCPU is, and
    libvirt's groups can keep it there. A vCPU that is off has no thread.
    """
    found = _vcpu_threads(threads)
    io_threads = vm.io_threads.ids
    wrong = [
        *_wrong_vcpus(pins.vcpus, found, vm.boot_vcpus),
        *_wrong_io_threads(pins, threads, io_threads),
        *_wrong_scheduling(vm, found),
        *_wrong_others(pins, threads, io_threads),
    ]
    return tuple(Problem(Reason.THREADS_MISPLACED, message) for message in wrong)


def _vcpu_threads(threads: Sequence[ThreadState]) -> dict[int, ThreadState]:
    return {thread.vcpu: thread for thread in threads if thread.vcpu is not None}


def _wrong_vcpus(
    promised: Mapping[int, CpuSet], found: Mapping[int, ThreadState], online: CpuSet
) -> Iterator[str]:
    for vcpu, cpus in promised.items():
        thread = found.get(vcpu)
        if thread is None and vcpu in online:
            yield f"vCPU {vcpu} has no thread"
        elif thread is not None and thread.allowed != cpus:
            yield f"vCPU {vcpu} may run on CPUs {thread.allowed}, promised {cpus}"
    for vcpu in sorted(set(found) - set(promised)):
        yield f"vCPU {vcpu} has a thread, but no CPU was promised to it"


def _wrong_others(
    pins: Pins, threads: Sequence[ThreadState], io_threads: Sequence[int]
) -> Iterator[str]:
    for thread in threads:
        if thread.vcpu is not None or thread.io_thread in io_threads:
            continue
        promised = pins.anywhere if thread.is_kvm_worker else pins.emulator
        if not thread.allowed <= promised:
            allowed = thread.allowed or "nothing"
            yield f"thread {thread.tid} ({thread.name}) may run on {allowed}, promised {promised}"


def _wrong_io_threads(
    pins: Pins, threads: Sequence[ThreadState], ids: Sequence[int]
) -> Iterator[str]:
    found = {thread.io_thread: thread for thread in threads}
    for at, number in enumerate(ids):
        thread, promised = found.get(number), pins.of_io_thread(at)
        if thread is None:
            yield f"I/O thread {number} has no thread"
        elif not thread.allowed <= promised:
            yield f"I/O thread {number} may run on CPUs {thread.allowed}, promised {promised}"


def _wrong_scheduling(vm: EffectiveVM, found: Mapping[int, ThreadState]) -> Iterator[str]:
    for vcpu, thread in sorted(found.items()):
        realtime = vm.realtime is not None and vcpu in vm.realtime.vcpus
        promised = f"SCHED_FIFO {vm.realtime.priority}" if vm.realtime and realtime else OTHER
        if thread.scheduling != promised and (realtime or "FIFO" in thread.scheduling):
            yield f"vCPU {vcpu} runs under {thread.scheduling}, promised {promised}"


def _locking(vm: EffectiveVM, threads: Sequence[ThreadState]) -> Iterator[Problem]:
    """Huge pages are never swapped out, and the kernel does not count them as locked."""
    locked = max((thread.locked for thread in threads), default=NOTHING)
    wanted = Bytes(sum(cell.memory for cell in vm.cells if cell.page_size == BASE_PAGE))
    if vm.backing.locked and locked < wanted:
        yield Problem(
            Reason.PAGES_MISPLACED,
            f"{format_bytes(locked)} of the process are locked, promised {format_bytes(wanted)}",
        )


def _blocks_of(
    placement: Placement,
    modules: Mapping[str, PlacedCell],
    mappings: Iterable[MemoryMapping],
    addresses: Mapping[int, int] | None,
) -> tuple[dict[int, Block], dict[str, Block]]:
    """Return the blocks of cells, and those of modules; a VM with modules is never moved (see `rehoming`)."""
    if addresses is not None:
        return blocks_at(placement.cells, mappings, addresses), {}
    promised: dict[int | str, PlacedCell] = {cell.id: cell for cell in placement.cells}
    promised.update(modules.items())
    found = blocks_of(promised, mappings)
    return (
        {key: block for key, block in found.items() if isinstance(key, int)},
        {key: block for key, block in found.items() if isinstance(key, str)},
    )


def _page_problems(
    placement: Placement, vm: EffectiveVM, blocks: Mapping[int, Block], *, moved: bool
) -> Iterator[Problem]:
    immediate = vm.backing.allocation is Allocation.IMMEDIATE and not vm.has_balloon
    for cell in placement.cells:
        block = blocks.get(cell.id)
        if block is None:
            yield Problem(
                Reason.PAGES_MISSING,
                f"guest cell {cell.id}: no mapping of {format_bytes(cell.memory)} was found",
            )
            continue
        yield from _block_problems(cell, block, immediate=immediate, moved=moved)


def _block_problems(
    cell: PlacedCell, block: Block, *, immediate: bool, moved: bool
) -> Iterator[Problem]:
    where = f"guest cell {cell.id}"
    if not moved and not block.is_bound_as(cell):
        policies = ", ".join(sorted({f"{one.policy}:{one.nodes}" for one in block.mappings}))
        yield Problem(
            Reason.PAGES_MISPLACED,
            f"{where}: its memory policy is {policies}, promised {cell.mode} on {cell.host_cells}",
        )
    if block.page_size != cell.page_size:
        yield Problem(
            Reason.PAGES_MISPLACED,
            f"{where}: its pages have {format_bytes(block.page_size)}, "
            f"promised {format_bytes(cell.page_size)}",
        )
    resident = block.resident()
    elsewhere = {host: size for host, size in resident.items() if host not in cell.host_cells}
    if elsewhere:
        yield Problem(
            Reason.PAGES_MISPLACED,
            f"{where}: {_amounts(elsewhere)} instead of on {cell.host_cells}",
        )
    total = sum(resident.values())
    if immediate and total != cell.memory:
        yield Problem(
            Reason.PAGES_MISSING,
            f"{where}: {format_bytes(total)} of {format_bytes(cell.memory)} are resident",
        )


def _amounts(resident: Mapping[int, Bytes]) -> str:
    return ", ".join(f"{format_bytes(size)} on host cell {cell}" for cell, size in resident.items())


def _spanning(placement: Placement, vm: EffectiveVM) -> Iterator[Problem]:
    """A VM without declared cells that found room only over several host cells is told so."""
    if not vm.cells_declared and len(placement.host_cells) > 1:
        yield Problem(
            Reason.SPANS_CELLS,
            f"no host cell had room for the whole VM: it spans {placement.host_cells}",
        )


@dataclass(frozen=True, slots=True)
class CellMemory:
    """What was found of a cell's memory."""

    block: Block | None
    """Its boot memory."""
    plugged: Sequence[tuple[Block, PlacedCell]]
    """Its modules, each with what is promised of it."""


def _cell_status(
    cell: PlacedCell,
    pins: Pins,
    threads: Sequence[ThreadState],
    memory: CellMemory,
    online: CpuSet,
    *,
    moved: bool,
) -> CellStatus:
    """What is resident counts the cell's modules too: they lie where they were promised, or it is not aligned."""
    found = _vcpu_threads(threads)
    allowed = [found[vcpu].allowed for vcpu in cell.vcpus if vcpu in found]
    block = memory.block
    there = [*([(block, cell)] if block else []), *memory.plugged]
    resident: dict[int, Bytes] = {}
    for one, _ in there:
        for host, size in one.resident().items():
            resident[host] = Bytes(resident.get(host, 0) + size)
    return CellStatus(
        id=cell.id,
        host_cells=cell.host_cells,
        vcpus=cell.vcpus,
        pcpus=CpuSet.union_of(allowed),
        resident=[Resident(host_cell=host, bytes=resident[host]) for host in sorted(resident)],
        pinned=all(
            found[vcpu].allowed == pins.vcpus.get(vcpu) if vcpu in found else vcpu not in online
            for vcpu in cell.vcpus
        ),
        aligned=block is not None
        and (moved or all(one.is_bound_as(promised) for one, promised in there))
        and all(not one.astray(promised.host_cells) for one, promised in there),
    )
