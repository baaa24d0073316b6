"""What comes out of a decision: a placement, a refusal with numbers, or the word that the budget was used up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from numavm_api.placement import Placement


class Cause(StrEnum):
    """Why a host cannot take a VM; the first that applies, in this order."""

    TIED_ELSEWHERE = "TiedElsewhere"
    FENCED = "Fenced"
    UNSCHEDULABLE = "Unschedulable"
    UNREACHABLE = "Unreachable"
    NOT_READY = "NotReady"
    EXCLUDED = "Excluded"
    KEPT = "Kept"
    """Kept free for a VM that waits longer (`queue`)."""
    SPREAD = "Spread"
    """A VM that it is to be spread from is there."""
    TAINT = "Taint"
    NODE_SELECTOR = "NodeSelector"
    NODE_AFFINITY = "NodeAffinity"
    NO_KVM = "NoKvm"
    EMULATION_NOT_ALLOWED = "EmulationNotAllowed"
    MACHINE_TYPE = "MachineType"
    MAX_VCPUS = "MaxVcpus"
    NOT_PERMITTED = "NotPermitted"
    """A host path below no permitted directory."""
    POWER_NOT_PERMITTED = "PowerNotPermitted"
    """Realtime threads or locked memory."""
    NETWORK_NOT_PERMITTED = "NetworkNotPermitted"
    """A bridge of the host, or a network of its libvirt."""
    UNKNOWN_CELL = "UnknownCell"
    HOST_CELL_CLASS = "HostCellClass"
    """No host cell of the class, or the one that is named has another."""
    NO_SIBLINGS = "NoSiblings"
    DEDICATED_CPUS = "DedicatedCpus"
    SIBLING_THREADS = "SiblingThreads"
    WHOLE_CORES = "WholeCores"
    SHARED_CPUS = "SharedCpus"
    MEMORY = "Memory"
    HUGE_PAGES = "HugePages"
    PINNED_CPUS = "PinnedCpus"
    """The CPUs that the user allows are not all free."""
    WHOLE_CACHES = "WholeCaches"
    IO_THREADS = "IoThreads"
    DEVICES = "Devices"
    HOST_CELLS = "HostCells"
    """Each guest cell fits somewhere, not all of them at once."""
    QEMU_OVERHEAD = "QemuOverhead"
    """No room for the emulator: its own CPU, or QEMU's own memory."""
    EMULATOR_CPUS = "EmulatorCpus"
    """No CPU would be left for emulator threads to float over: the VM's own, or those of another VM."""


class Miss(NamedTuple):
    """Why one host cannot take the VM, with the numbers of its nearest miss."""

    cause: Cause
    wanted: int = 0
    """In units of the cause: CPUs, cores, groups of threads, vCPUs, bytes, cells."""
    available: int = 0
    guest_cell: int | None = None
    host_cell: int | None = None
    """The host cell that misses by least."""
    page_size: int | None = None
    detail: str = ""
    """The label, path or reason that the cause speaks of."""

    @property
    def missing(self) -> int:
        """By how much."""
        return self.wanted - self.available


@dataclass(frozen=True, slots=True)
class CauseCount:
    """How many hosts fail for one cause, and the host that came nearest."""

    cause: Cause
    hosts: int
    nearest_host: str
    nearest: Miss


class Placed(NamedTuple):
    """A host and what the VM holds there."""

    node_name: str
    placement: Placement
    spans_cells: bool
    """A VM that named no cells got more than one host cell."""
    distance: int
    """Sum over pairs of guest cells of their host cells' distances, there and back."""
    fallbacks: int = 0
    """Steps down the lists of page sizes, summed over guest cells."""
    astray: int = 0
    """Devices that are not near though that was preferred."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """No host can take the VM now; an exhaustive search would not find one either."""

    hosts: int
    counts: tuple[CauseCount, ...]
    """The most frequent cause first."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """The budget was used up on some hosts and no other fits: try again."""

    hosts: int
    undecided: tuple[str, ...]
    counts: tuple[CauseCount, ...]
    """Of the other hosts."""
