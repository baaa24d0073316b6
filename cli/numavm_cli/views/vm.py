"""One VM on one screen: where it is, what the kernel confirms, what is pending. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from numavm_api.base import StatusModel
from numavm_api.conditions import Condition
from numavm_api.cpuset import CpuSet
from numavm_api.placement import PlacedDevice, Placement
from numavm_api.quantity import MEBIBYTE, Quantity
from numavm_api.vm_status import CellStatus, NumaVMStatus, Refusal

Document = Mapping[str, Any]


class PlacedView(StatusModel):
    """One guest cell: promised, and confirmed."""

    cell: int
    host_cells: CpuSet
    mode: str
    memory: Quantity
    page_size: Quantity
    vcpus: CpuSet
    pinned: bool | None
    """None: the kernel was not asked yet."""
    aligned: bool | None


class ResidentRow(StatusModel):
    """One line of the view that `numastat -p` has: megabytes per host cell."""

    name: str
    megabytes: dict[int, float]
    """Host cell -> MiB."""

    @property
    def total(self) -> float:
        """The sum."""
        return sum(self.megabytes.values())


class ThreadRow(StatusModel):
    """One line of the view that `taskset -cp` has, for a vCPU."""

    vcpu: int
    cell: int
    promised: CpuSet | None
    """Its CPUs; None: the shared ones of its host cells."""
    allowed: CpuSet | None
    """What the kernel allows the threads of its cell; None: not asked yet."""
    confirmed: bool | None
    """The kernel's word that the thread is where it was promised."""


class EventView(StatusModel):
    """One event."""

    time: str
    type: str
    reason: str
    count: int
    note: str


class VmView(StatusModel):
    """One VM."""

    namespace: str
    name: str
    status: str
    node_name: str | None
    run_strategy: str
    domain_state: str | None
    domain_type: str | None
    machine: str | None
    started_at: str | None
    verified_at: str | None
    placement_id: str | None
    summary: str | None
    emulator_cpus: CpuSet | None
    overhead: Quantity | None
    overhead_cell: int | None
    cells: list[PlacedView]
    devices: list[PlacedDevice]
    resident: list[ResidentRow]
    threads: list[ThreadRow]
    conditions: list[Condition]
    pending: list[str]
    refusals: list[Refusal]
    events: list[EventView]


def vm_view(vm: Document, events: Sequence[Document] = ()) -> VmView:
    """Return what is known of a NumaVM.

    Args:
        vm: The NumaVM.
        events: core/v1 Events about it, oldest first.
    """
    status = NumaVMStatus.model_validate(vm.get("status") or {})
    placement, domain = status.placement, status.domain
    confirmed = {cell.id: cell for cell in status.numa.cells} if status.numa else {}
    return VmView(
        namespace=vm["metadata"]["namespace"],
        name=vm["metadata"]["name"],
        status=status.printable_status,
        node_name=status.node_name,
        run_strategy=vm["spec"].get("runStrategy", "Always"),
        domain_state=domain.state if domain else None,
        domain_type=domain.type if domain else None,
        machine=domain.machine if domain else None,
        started_at=domain.started_at if domain else None,
        verified_at=status.numa.verified_at if status.numa else None,
        placement_id=placement.id if placement else None,
        summary=placement.summary if placement else None,
        emulator_cpus=placement.emulator_cpus if placement else None,
        overhead=placement.overhead if placement else None,
        overhead_cell=placement.overhead_cell if placement else None,
        cells=list(_cells(placement, confirmed)) if placement else [],
        devices=placement.devices if placement else [],
        resident=list(_resident(confirmed.values())),
        threads=list(_threads(placement, confirmed)) if placement else [],
        conditions=status.conditions,
        pending=pending_of(status.conditions),
        refusals=status.refusals,
        events=[_event(event) for event in events],
    )


def pending_of(conditions: Sequence[Condition]) -> list[str]:
    """Return the changes that a restart would apply, from the condition RestartRequired."""
    for one in conditions:
        if one.type == "RestartRequired" and one.status == "True":
            _, _, changes = one.message.partition(": ")
            return (changes or one.message).split("; ")
    return []


def _cells(placement: Placement, confirmed: Mapping[int, CellStatus]) -> Iterator[PlacedView]:
    for cell in placement.cells:
        seen = confirmed.get(cell.id)
        yield PlacedView(
            cell=cell.id,
            host_cells=cell.host_cells,
            mode=cell.mode,
            memory=cell.memory,
            page_size=cell.page_size,
            vcpus=cell.vcpus,
            pinned=seen.pinned if seen else None,
            aligned=seen.aligned if seen else None,
        )


def _resident(cells: Iterable[CellStatus]) -> Iterator[ResidentRow]:
    for cell in cells:
        yield ResidentRow(
            name=f"guest cell {cell.id}",
            megabytes={one.host_cell: round(one.bytes / MEBIBYTE, 2) for one in cell.resident},
        )


def _threads(placement: Placement, confirmed: Mapping[int, CellStatus]) -> Iterator[ThreadRow]:
    for cell in placement.cells:
        seen = confirmed.get(cell.id)
        for index, vcpu in enumerate(cell.vcpus):
            yield ThreadRow(
                vcpu=vcpu,
                cell=cell.id,
                promised=cell.pcpus[index] if index < len(cell.pcpus) else None,
                allowed=seen.pcpus if seen else None,
                confirmed=seen.pinned if seen else None,
            )


def _event(event: Document) -> EventView:
    series = event.get("series") or {}
    return EventView(
        time=str(event.get("lastTimestamp") or event.get("eventTime") or ""),
        type=event.get("type", ""),
        reason=event.get("reason", ""),
        count=series.get("count") or event.get("count") or 1,
        note=event.get("message", ""),
    )
