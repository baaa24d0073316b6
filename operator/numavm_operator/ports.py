"""What the operator's logic needs of the outside.

Narrow protocols, fulfilled by `kube` and `leadership`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol

from numavm_api.conditions import Reason
from numavm_api.placement import Placement
from numavm_api.vm_status import Refusal
from numavm_operator.objects import Host, Vm, VmKey
from numavm_operator.reconcile.report import Report


class EventType(StrEnum):
    """Kinds of Kubernetes events."""

    NORMAL = "Normal"
    WARNING = "Warning"


class VmWriter(Protocol):
    """Writes the operator's part of NumaVMs.

    Each method returns the object as the API server then has it.

    Raises (each of them): ConflictError where the object has moved on since it was read,
        NotFoundError where it is gone,
    TransientError where it is not known whether it was written, NotLeaderError where this operator
        may not write.
    """

    async def claim(
        self,
        vm: Vm,
        *,
        node_name: str | None,
        placement: Placement | None,
        refusals: Iterable[Refusal],
    ) -> Vm:
        """Write node name, placement and refusals as a whole, if the VM is still as it was read."""
        ...

    async def report(self, vm: Vm, report: Report) -> Vm:
        """Write the conditions and the summary."""
        ...

    async def add_finalizer(self, vm: Vm) -> Vm:
        """Put the finalizer on."""
        ...

    async def remove_finalizer(self, vm: Vm) -> Vm:
        """Take the finalizer off."""
        ...


class Reader(Protocol):
    """Reads single objects past the cache."""

    async def vm(self, key: VmKey) -> Vm:
        """Return a NumaVM as it is now.

        Raises:
            NotFoundError: there is none.
        """
        ...

    async def host(self, name: str) -> Host:
        """Return a NumaHost as it is now.

        Raises:
            NotFoundError: there is none.
        """
        ...


class Recorder(Protocol):
    """Tells people what happened."""

    def record(self, vm: Vm, kind: EventType, reason: Reason | str, action: str, note: str) -> None:
        """Have an event about a VM published, once however often it is recorded.

        Never fails, never waits.
        """
        ...


class Epochs(Protocol):
    """The count of leaderships."""

    @property
    def epoch(self) -> int:
        """The epoch that may be used now."""
        ...

    async def raise_epoch(self, at_least: int) -> None:
        """Return when an epoch of at least so much may be used."""
        ...
