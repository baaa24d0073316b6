"""What every configurator reads: VM, claim and host, checked against each other once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from numavm_agent.domain.model import Accelerator, CannotRender, HostFacts, VmToRender
from numavm_agent.domain.names import domain_name, serial_log_path
from numavm_agent.domain.pins import Pins, cpus_of, starting_pins
from numavm_api.backing import Allocation, MemoryAccess
from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveCell, EffectiveVM
from numavm_api.numavm import NumaVMSpec
from numavm_api.pci_plan import PciPlan, pci_plan
from numavm_api.placement import CpuPlacement, PlacedCell, PlacedModule, Placement
from numavm_api.quantity import format_bytes
from numavm_api.resolved import resolved

IOMMU_ABOVE_VCPUS: Final = 255
"""xAPIC ids have 8 bits; more vCPUs need interrupt remapping in extended interrupt mode."""


@dataclass(frozen=True, slots=True)
class RenderInput:
    """The input of every configurator."""

    vm: VmToRender
    effective: EffectiveVM
    """The VM with every default, and with what the spec leaves to the placement."""
    placement: Placement
    host: HostFacts
    pins: Pins
    """Affinities at start."""
    pci: PciPlan
    """Buses and addresses."""

    @classmethod
    def of(cls, vm: VmToRender, placement: Placement, host: HostFacts) -> RenderInput:
        """Return the input after checking that claim, spec and host fit each other.

        Raises:
            CannotRender: they do not.
        """
        effective = resolved(vm.effective, placement)
        _refuse_foreign_claim(vm.effective, effective, placement)
        _refuse_missing_devices(vm.effective, placement)
        _refuse_mixed_restrictive(placement)
        _refuse_allocation_without_cpus(effective, placement, host)
        _refuse_too_many_emulated_vcpus(effective, host)
        pins = starting_pins(placement, host.pools, host.cells, host.held, effective)
        plan = pci_plan(vm.spec.domain, guest_cells_of_devices(effective, placement))
        return cls(vm=vm, effective=effective, placement=placement, host=host, pins=pins, pci=plan)

    @property
    def spec(self) -> NumaVMSpec:
        """The spec."""
        return self.vm.spec

    @property
    def cells(self) -> tuple[tuple[EffectiveCell, PlacedCell], ...]:
        """Each guest cell as wanted and as placed, in the order of ids."""
        placed = {cell.id: cell for cell in self.placement.cells}
        return tuple((cell, placed[cell.id]) for cell in self.effective.cells)

    @property
    def domain_access(self) -> MemoryAccess:
        """How memory that belongs to no cell is mapped, plugged modules' above all: as the cells' that are shared."""
        shared = any(cell.access is MemoryAccess.SHARED for cell in self.effective.cells)
        return MemoryAccess.SHARED if shared else self.effective.backing.access

    @property
    def name(self) -> str:
        """The domain's name."""
        return domain_name(self.vm.namespace, self.vm.name, self.vm.uid)

    @property
    def serial_log(self) -> str:
        """Where the serial console is logged."""
        return serial_log_path(self.host.log_directory, self.name)

    @property
    def is_q35(self) -> bool:
        """Whether the machine has PCI Express."""
        return "q35" in self.host.machine

    @property
    def needs_iommu(self) -> bool:
        """Whether the guest has more vCPUs than interrupts can name without an IOMMU."""
        return self.effective.vcpus > IOMMU_ABOVE_VCPUS


def _refuse_foreign_claim(asked: EffectiveVM, vm: EffectiveVM, placement: Placement) -> None:
    """Refuse a claim for another spec.

    Args:
        asked: The VM as the spec has it: derived cells are one cell there.
        vm: The VM as the placement resolved it.
        placement: The claim.
    """
    vcpus = CpuSet.union_of(cell.vcpus for cell in placement.cells)
    everything = CpuSet.union_of(cell.vcpus for cell in asked.cells)
    if (vcpus, vm.memory) != (everything, asked.memory):
        raise CannotRender(
            f"placement.cells was made for another spec: it has vCPUs {vcpus} and {vm.memory} bytes, "
            f"the spec {everything} and {asked.memory}"
        )
    wanted = {cell.id: (str(cell.vcpus), int(cell.memory)) for cell in vm.cells}
    placed = {cell.id: (str(cell.vcpus), int(cell.memory)) for cell in placement.cells}
    if wanted != placed:
        raise CannotRender(
            f"placement.cells was made for another spec: {{cell: (vcpus, bytes)}} is {placed}, "
            f"the spec wants {wanted}"
        )
    dedicated = placement.cpu_placement is CpuPlacement.DEDICATED
    if dedicated != vm.dedicated:
        raise CannotRender(
            f"placement.cpuPlacement is {placement.cpu_placement}, "
            f"but spec.domain.cpu.dedicatedCpuPlacement is {vm.dedicated}"
        )
    for cell in placement.cells:
        expected = len(cell.vcpus) if dedicated else 0
        if len(cell.pcpus) != expected or (dedicated and _without_pcpu(cell) & vm.boot_vcpus):
            raise CannotRender(
                f"placement.cells[{cell.id}].pcpus names {len(cell.pcpus)} cpusets, "
                f"but {expected} belong there"
            )
        if not cell.host_cells:
            raise CannotRender(f"placement.cells[{cell.id}].hostCells is empty")


def _without_pcpu(cell: PlacedCell) -> CpuSet:
    """Return the vCPUs of a dedicated cell that hold no pCPU: those that are off may."""
    pairs = zip(cell.vcpus, cell.pcpus, strict=True)
    return CpuSet(frozenset(vcpu for vcpu, cpus in pairs if not cpus))


def guest_cells_of_devices(vm: EffectiveVM, placement: Placement) -> dict[str, int]:
    """Return host device -> guest cell: the spec's, else the one that is placed on the device's host cell."""
    found: dict[str, int] = {}
    for device in placement.devices:
        wanted = next((one.cell for one in vm.host_devices if one.name == device.name), None)
        placed = (cell.id for cell in placement.cells if device.host_cell in cell.host_cells)
        cell = wanted if wanted is not None else next(placed, None)
        if cell is not None:
            found[device.name] = cell
    return found


def _refuse_missing_devices(vm: EffectiveVM, placement: Placement) -> None:
    """A claim of an operator that does not know of devices or modules has no room for them."""
    wanted = sorted(device.name for device in vm.host_devices)
    held = sorted(device.name for device in placement.devices)
    if wanted != held:
        raise CannotRender(
            f"placement.devices has {held}, but spec.domain.devices.hostDevices {wanted}"
        )
    booked = {cell.id: cell.plugged or 0 for cell in placement.cells}
    for cell in vm.cells:
        if booked.get(cell.id, 0) < cell.plugged:
            raise CannotRender(
                f"placement.cells[{cell.id}].plugged is {format_bytes(booked.get(cell.id, 0))}, but "
                f"spec.domain.devices.memory plugs {format_bytes(cell.plugged)} into the cell"
            )
    _refuse_missing_modules(vm, placement)
    threads = len(placement.io_thread_cpus)
    if threads != vm.dedicated_io_threads:
        raise CannotRender(
            f"placement.ioThreadCpus has {threads} cpusets, but {vm.dedicated_io_threads} dedicated "
            "I/O threads are asked for"
        )


def _refuse_missing_modules(vm: EffectiveVM, placement: Placement) -> None:
    claimed = sorted(module.name for module in placement.modules)
    wanted = sorted(module.name for module in vm.modules_apart)
    if claimed != wanted:
        raise CannotRender(
            f"placement.modules has {claimed}, but of spec.domain.devices.memory {wanted} have host cells or pages of "
            "their own"
        )


def _refuse_too_many_emulated_vcpus(vm: EffectiveVM, host: HostFacts) -> None:
    """QEMU 7.2: "current -smp configuration requires kernel irqchip and X2APIC API support"."""
    if host.accelerator is Accelerator.TCG and vm.vcpus > IOMMU_ABOVE_VCPUS:
        raise CannotRender(
            f"spec.domain.cpu: {vm.vcpus} vCPUs, but TCG emulates at most {IOMMU_ABOVE_VCPUS}: "
            "use fewer, or a host with KVM"
        )


def _refuse_allocation_without_cpus(vm: EffectiveVM, placement: Placement, host: HostFacts) -> None:
    """QEMU 7.2: "The nodes select no CPUs", since pages are taken by threads on the CPUs of the bound host cells.

    Restrictive has no host cells in QEMU's eyes.
    """
    if vm.backing.allocation is not Allocation.IMMEDIATE:
        return
    bound: list[tuple[str, PlacedCell | PlacedModule]] = [
        (f"placement.cells[{cell.id}]", cell) for cell in placement.cells
    ]
    bound += [(f"placement.modules[{one.name}]", one) for one in placement.modules]
    for field, cell in bound:
        if cell.mode is BindingMode.RESTRICTIVE or cpus_of(cell.host_cells, host.cells):
            continue
        raise CannotRender(
            f"{field} is bound to host cells {cell.host_cells}, which have no CPUs to take its "
            "pages at start: set spec.domain.memory.backing.allocation to OnDemand, or bind it Interleave with a cell "
            "that has some"
        )


def _refuse_mixed_restrictive(placement: Placement) -> None:
    """With one restrictive memnode, libvirt 9.0 wants all of them and the domain restrictive."""
    modes = {cell.mode for cell in placement.cells}
    if BindingMode.RESTRICTIVE in modes and len(modes) > 1:
        found = ", ".join(sorted(modes))
        raise CannotRender(
            f"placement.cells are bound {found}: libvirt takes Restrictive for all or for none"
        )
