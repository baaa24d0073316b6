"""The claim: what one VM holds on one host, and the map from guest cells to host cells.

Owns the value that the scheduler decides, `status.placement` carries, the agent admits, the domain's metadata keeps and
NumaHost reports: one type on the whole way, so that nothing is lost in translation.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from numavm_api.base import StatusModel
from numavm_api.cpu import MAX_CELLS, MAX_VCPUS, BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.modules import MAX_MODULES
from numavm_api.quantity import BASE_PAGE, Bytes, Quantity


class CpuPlacement(StrEnum):
    """Whether vCPUs hold pCPUs or float over shared ones."""

    DEDICATED = "Dedicated"
    SHARED = "Shared"


class PlacedCell(StatusModel):
    """One guest cell and where it is."""

    id: Annotated[int, Field(ge=0, lt=MAX_CELLS)]
    """The guest cell."""
    host_cells: CpuSet
    """The host cells it is bound to."""
    mode: BindingMode
    """How its memory is bound."""
    memory: Quantity
    """Boot memory of the cell."""
    page_size: Quantity = BASE_PAGE
    """Size of the pages behind it; `4Ki` means no huge pages."""
    vcpus: CpuSet
    """The guest's vCPU numbers in this cell."""
    pcpus: list[CpuSet] = Field(default=[], max_length=MAX_VCPUS)
    """With dedicated CPUs: the pCPU of each vCPU, in the order of `vcpus`. Empty for shared ones; an entry is empty where the vCPU is off and no CPU is held for it."""
    plugged: Quantity | None = None
    """Memory beside the boot memory that is held too: modules, and with reserveMaximum what may still be added. Left out: none."""
    held_vcpus: CpuSet | None = None
    """vCPUs that the claim has room for. Left out: all of them."""

    @property
    def room(self) -> CpuSet:
        """The vCPUs that the claim has room for."""
        return self.vcpus if self.held_vcpus is None else self.held_vcpus


class PlacedModule(StatusModel):
    """A memory module that is claimed by itself: on host cells or in pages of its own."""

    name: Annotated[str, Field(max_length=63)]
    """The entry of `spec.domain.devices.memory`."""
    cell: Annotated[int, Field(ge=0, lt=MAX_CELLS)]
    """The guest cell it belongs to."""
    host_cells: CpuSet
    """The host cells it is bound to."""
    mode: BindingMode
    """How it is bound: as its cell."""
    memory: Quantity
    """What it may hold: of virtio-mem what is requested."""
    page_size: Quantity
    """Size of the pages behind it."""


class PlacedDevice(StatusModel):
    """One host device that the claim holds."""

    name: Annotated[str, Field(max_length=63)]
    """The entry of `spec.domain.devices.hostDevices`."""
    address: Annotated[str, Field(max_length=32)]
    """PCI address on the host, `0000:65:00.0`."""
    host_cell: int
    """Its host cell; -1: the firmware names none."""
    cell: Annotated[int, Field(ge=0, lt=MAX_CELLS)] | None = None
    """The guest cell it belongs to; left out: none."""


class Claim(StatusModel):
    """What one decision gave a VM."""

    id: Annotated[str, Field(max_length=32)]
    """Names this claim; a new decision has a new id."""
    epoch: Annotated[int, Field(ge=0)]
    """The deciding operator's leadership count; older ones lose against newer ones."""
    request_hash: Annotated[str, Field(max_length=64)]
    """Digest of those parts of the spec that the decision was made for."""
    cpu_placement: CpuPlacement
    """Dedicated or Shared."""
    summary: Annotated[str, Field(max_length=256)]
    """For people: guest cell -> host cells, `0->1,1->0`."""
    cells: list[PlacedCell] = Field(max_length=MAX_CELLS)
    """Where each guest cell is."""
    dedicated_cpus: CpuSet = CpuSet()
    """Every pCPU this claim keeps to itself: those of vCPUs, siblings left empty by Isolate, the emulator's."""
    emulator_cpus: CpuSet = CpuSet()
    """The emulator's own pCPU with isolateEmulatorThread; empty: it floats over the shared CPUs of the VM's host cells."""
    io_thread_cpus: list[CpuSet] = Field(default=[], max_length=64)
    """The pCPU of each I/O thread that holds one, in the order of their ids. Empty: they float like the emulator."""
    devices: list[PlacedDevice] = Field(default=[], max_length=32)
    """Host devices, by name."""
    modules: list[PlacedModule] = Field(default=[], max_length=MAX_MODULES)
    """Memory modules on host cells or in pages of their own, by name; others are in `cells[].plugged`."""
    overhead: Quantity
    """QEMU's own memory, held too."""
    overhead_cell: Annotated[int, Field(ge=0)]
    """The host cell the overhead is booked on."""

    @property
    def host_cells(self) -> CpuSet:
        """Every host cell the VM touches."""
        return CpuSet.union_of(cell.host_cells for cell in self.cells)

    @property
    def memory_host_cells(self) -> CpuSet:
        """Every host cell that holds memory of the guest, modules of their own included."""
        return self.host_cells | CpuSet.union_of(module.host_cells for module in self.modules)

    def memory_by_host_cell(self) -> dict[tuple[int, Bytes], Bytes]:
        """Return what is booked per (host cell, page size), overhead included.

        Booking over several host cells (design, "Booking"): Interleave takes an equal share of each, rounded up to whole
        pages; Strict and Restrictive take the whole on each; Preferred takes it on the first of the nodeset.
        """
        booked: dict[tuple[int, Bytes], Bytes] = {(self.overhead_cell, BASE_PAGE): self.overhead}
        for cell in self.cells:
            for host_cell, amount in booking_of(cell).items():
                key = (host_cell, cell.page_size)
                booked[key] = Bytes(booked.get(key, 0) + amount)
        for module in self.modules:
            for host_cell, amount in booking_of(_as_cell(module)).items():
                key = (host_cell, module.page_size)
                booked[key] = Bytes(booked.get(key, 0) + amount)
        return booked


class Placement(Claim):
    """What a VM holds on the host `status.nodeName`."""

    previous: Claim | None = None
    """While a running VM is changed: the claim it still holds beside this one, until its agent reports this one's id."""

    @property
    def earlier(self) -> Placement | None:
        """The claim that is still held beside this one, as one of its own."""
        if self.previous is None:
            return None
        return Placement.model_validate(self.previous.model_dump())

    @property
    def alone(self) -> Placement:
        """This claim without the one before it."""
        return self.model_copy(update={"previous": None})

    @property
    def held_cpus(self) -> CpuSet:
        """Every pCPU that the VM keeps to itself: this claim's, and those of the one before it."""
        before = self.previous.dedicated_cpus if self.previous else CpuSet()
        return self.dedicated_cpus | before

    def replacing(self, held: Placement) -> Placement:
        """Return this claim with `held` beside it."""
        return self.model_copy(update={"previous": Claim.model_validate(held.model_dump())})

    def held_memory(self) -> dict[tuple[int, Bytes], Bytes]:
        """Return what is booked per (host cell, page size) by this claim and the one before it.

        One domain holds both, so of two bookings of the same pool the larger counts.
        """
        booked = self.memory_by_host_cell()
        before = self.previous.memory_by_host_cell() if self.previous else {}
        return {
            key: Bytes(max(booked.get(key, 0), before.get(key, 0))) for key in {**before, **booked}
        }


def booking_of(cell: PlacedCell) -> dict[int, Bytes]:
    """Return the bytes a placed cell books on each of its host cells, plugged memory included."""
    host_cells = list(cell.host_cells)
    plugged = cell.plugged or Bytes(0)
    whole = Bytes(cell.memory + plugged)
    match cell.mode:
        case BindingMode.INTERLEAVE:
            pages = -(-cell.memory // cell.page_size) - (-plugged // cell.page_size)
            share = Bytes(-(-pages // len(host_cells)) * cell.page_size)
            return dict.fromkeys(host_cells, share)
        case BindingMode.STRICT | BindingMode.RESTRICTIVE:
            return dict.fromkeys(host_cells, whole)
        case BindingMode.PREFERRED:
            return {host_cells[0]: whole}


def _as_cell(module: PlacedModule) -> PlacedCell:
    """Return a module as a cell without vCPUs: it is booked by the same rules."""
    return PlacedCell(
        id=module.cell,
        host_cells=module.host_cells,
        mode=module.mode,
        memory=module.memory,
        page_size=module.page_size,
        vcpus=CpuSet(),
    )
