"""What is done to a domain, step by step: start, settle, stop. Each may be cut off at any point and done again.

Requests to libvirt return before anything has happened, or fail half-way; so nothing here is remembered as done. The
loop looks again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from numavm_agent.domain.metadata import DomainRecord, metadata_xml
from numavm_agent.domain.pins import Pins
from numavm_agent.errors import DomainMissing
from numavm_agent.ports import Clock, HostReader, HostThreads, Hypervisor
from numavm_agent.reconcile.operations import StopCause, stop_operation
from numavm_agent.reconcile.transitions import timestamp
from numavm_agent.verify.judge import Verdict, verify
from numavm_agent.verify.parsers import MemoryMapping, ThreadState
from numavm_api.effective import EffectiveVM
from numavm_api.killpoints import KillPoint, KillSwitch
from numavm_api.placement import Placement
from numavm_api.quantity import NO_BYTES, Bytes


@dataclass(frozen=True, slots=True)
class Settled:
    """A domain whose threads were put where they belong, and what the kernel then said."""

    run_id: int
    pins: Pins
    verdict: Verdict
    mappings: tuple[MemoryMapping, ...]
    own_memory: dict[int, Bytes] | None
    """Per host cell, by its cgroup, when the pages were read; None: the kernel does not say."""
    settled_at: float
    """When, in seconds since boot."""
    modules: frozenset[str]
    """The memory modules that it then had."""
    restored: bool
    """Threads were put where they belong before that, and not only looked at."""


@dataclass(frozen=True, slots=True)
class Settling:
    """A running domain, and where its threads must be."""

    uuid: str
    name: str
    run_id: int
    placement: Placement
    vm: EffectiveVM
    pins: Pins
    known: Settled | None = None
    """Its pages as they were read before, where they need not be read again."""
    moved: bool = False
    """Its memory was moved while it ran."""
    restore: bool = True
    """Whether threads that are elsewhere are put back, or only read."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A request to stop was made; whether the domain is gone, the loop will see."""

    metadata_changed: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """A slice of a domain's move to another claim was done; its metadata have changed."""

    percent: int
    settled: Settled | None
    """What the kernel says now that the move is done; None: it is not."""
    stuck: str | None
    """Why it does not come forward."""
    refusal: str | None = None
    """What libvirt said of what the guest was to give back, where it said no."""
    handled: Bytes = NO_BYTES
    """Memory whose pages move_pages(2) found for it so far, here or on the way here."""
    seconds: float = 0.0
    """How long that took."""
    kind: str = ""
    """Of the operation that is done, where one is."""


JobOutcome = Settled | Stopped | Moved


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs, with what they need."""

    hypervisor: Hypervisor
    reader: HostReader
    threads: HostThreads
    clock: Clock
    kill: KillSwitch

    def start(self, xml: str, settling: Settling) -> Settled:
        """Create a domain, then settle it.

        Raises:
            StartFault, DomainExists, HypervisorUnavailable: libvirt's word.
            DomainMissing: it ended at once.
        """
        self.kill.reach(KillPoint.BEFORE_DEFINE)
        self.hypervisor.create(xml)
        self.kill.reach(KillPoint.AFTER_CREATE)
        run_id = self._run_of(settling.uuid)
        return self.settle(replace(settling, run_id=run_id))

    def settle(self, settling: Settling) -> Settled:
        """Put every thread where it belongs, then read what the kernel says of threads and pages.

        The emulator started wide: immediate allocation fails where it may not run on each host cell it takes memory
        from.

        Raises:
            DomainMissing: it has ended.
        """
        self.kill.reach(KillPoint.BEFORE_VERIFY)
        pid = self.reader.qemu_pid(settling.name, settling.uuid)
        if pid is None:
            raise DomainMissing(f"domain {settling.name} has no process")
        try:
            if settling.restore:
                self.put(
                    settling.uuid,
                    settling.pins,
                    self.reader.threads(pid),
                    io_threads=settling.vm.io_threads.ids,
                )
            return self.read(settling, pid)
        except ProcessLookupError as error:
            raise DomainMissing(f"domain {settling.name}: {error}") from error

    def read(self, settling: Settling, pid: int) -> Settled:
        """Read what the kernel says of threads and pages.

        Raises:
            ProcessLookupError: the domain has ended.
        """
        threads = self.reader.threads(pid)
        mappings, own_memory = self._pages(settling, pid)
        now = timestamp(self.clock.now())
        addresses = self._addresses(settling) if settling.moved else None
        verdict = verify(
            settling.placement, settling.vm, settling.pins, threads, mappings, now, addresses
        )
        return Settled(
            run_id=settling.run_id,
            pins=settling.pins,
            verdict=verdict,
            mappings=mappings,
            own_memory=own_memory,
            settled_at=self.clock.boottime(),
            modules=modules_of(settling.vm),
            restored=settling.restore,
        )

    def begin_stop(self, record: DomainRecord, cause: StopCause) -> Stopped:
        """Record that a stop begins, then ask the guest to shut down."""
        self.kill.reach(KillPoint.BEFORE_DESTROY)
        began = stop_operation(cause, began=self.clock.boottime())
        self.hypervisor.set_metadata(record.uid, metadata_xml(replace(record, operation=began)))
        self.hypervisor.shutdown(record.uid)
        return Stopped(metadata_changed=True)

    def ask_again(self, uuid: str) -> Stopped:
        """Ask the guest once more to shut down."""
        self.hypervisor.shutdown(uuid)
        return Stopped(metadata_changed=False)

    def cut_power(self, uuid: str) -> Stopped:
        """End the domain whatever its guest does."""
        self.hypervisor.destroy(uuid)
        self.kill.reach(KillPoint.AFTER_DESTROY)
        return Stopped(metadata_changed=False)

    def put(
        self, uuid: str, pins: Pins, threads: tuple[ThreadState, ...], *, io_threads: Sequence[int]
    ) -> None:
        """Pin what is not where it belongs, and nothing else."""
        for thread in threads:
            wanted = pins.vcpus.get(thread.vcpu) if thread.vcpu is not None else None
            if thread.vcpu is not None and wanted is not None and thread.allowed != wanted:
                self.hypervisor.pin_vcpu(uuid, thread.vcpu, wanted)
        here = {thread.io_thread: thread for thread in threads}
        for at, number in enumerate(io_threads):
            wanted = pins.of_io_thread(at)
            if number in here and here[number].allowed != wanted:
                self.hypervisor.pin_io_thread(uuid, number, wanted)
        others = [one for one in threads if one.vcpu is None and one.io_thread not in io_threads]
        wrong = [thread for thread in others if thread.allowed != pins.emulator]
        if any(not thread.is_kvm_worker for thread in wrong):
            self.hypervisor.pin_emulator(uuid, pins.emulator)
        for thread in wrong:
            if thread.is_kvm_worker:  # it belongs beside the emulator, and libvirt does not know it
                self.threads.allow_cpus(thread.tid, pins.emulator)

    def _pages(
        self, settling: Settling, pid: int
    ) -> tuple[tuple[MemoryMapping, ...], dict[int, Bytes] | None]:
        if settling.known is not None:
            return settling.known.mappings, settling.known.own_memory
        return self.reader.mappings(pid), self.reader.own_memory(pid)

    def _addresses(self, settling: Settling) -> Mapping[int, int]:
        sizes = {cell.id: Bytes(cell.memory) for cell in settling.placement.cells}
        return self.hypervisor.cell_addresses(settling.uuid, sizes)

    def _run_of(self, uuid: str) -> int:
        for seen in self.hypervisor.list_domains():
            if seen.uuid == uuid:
                return seen.run_id
        raise DomainMissing(f"domain {uuid} ended as soon as it had started")


def modules_of(vm: EffectiveVM) -> frozenset[str]:
    """Return the names of a VM's memory modules."""
    return frozenset(module.name for module in vm.modules)
