"""Where each PCI device of the guest sits: buses, their numbers, and the addresses of what stands behind an expander.

Owns the one plan that validation checks and the agent renders. libvirt itself puts devices anywhere that is free: it knows
nothing of cells. Devices stand here in an order of their own, so that the order in a manifest changes nothing. Pure.

Rules from outside: libvirt 9.0, formatdomain "Controllers" (busNr, target node); QEMU 7.2, docs/pcie.txt (a pxb-pcie takes
root ports only, each a bus of its own) and docs/pci_expander_bridge.txt (a pxb brings a bridge, which takes one more bus).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from numavm_api.devices import DiskBus
from numavm_api.effective_iothreads import in_boot_order
from numavm_api.effective_modules import ON_PCI, kind_of
from numavm_api.numavm import Domain
from numavm_api.pci import MAX_BUS, PciExpander

SPARE_ROOT_PORTS: Final = 4
"""PCI Express plugs into free root ports only: some are kept for what may come later."""
SPARE_EXPANDER_PORTS: Final = 1
SLOTS: Final = range(1, 32)
"""Slots behind an expander that are given out; slot 0 is left alone, as bridges of other QEMUs keep their hotplug controller there."""
PORT_SLOTS: Final = range(32)
BALLOON: Final = "balloon"


@dataclass(frozen=True, slots=True)
class Expander:
    """An expander bus."""

    name: str | None
    """None: it is there because a device's `cell` needs it."""
    cell: int
    index: int
    """libvirt's index: what addresses call its bus."""
    bus_nr: int | None
    """None: no number is free."""
    address: str | None
    ports: tuple[int, ...]
    """Indices of its root ports; none on machine pc."""


@dataclass(frozen=True, slots=True)
class PciPlan:
    """Buses and addresses."""

    root_ports: tuple[int, ...]
    """Indices of the root ports on the root bus; none on machine pc."""
    expanders: tuple[Expander, ...]
    addresses: Mapping[str, str]
    """Device -> address, for those that have one; libvirt places the others on the root bus."""
    homeless: tuple[str, ...] = ()
    """Devices for which no slot is left behind their cell's expander."""


@dataclass(frozen=True, slots=True)
class _Device:
    key: str
    cell: int | None = None
    address: str | None = None


@dataclass(slots=True)
class _Bus:
    name: str | None
    cell: int
    expander: PciExpander | None
    devices: list[_Device] = field(default_factory=list)

    def has_room(self, slots: int) -> bool:
        return len(self.devices) < slots


def disk_key(name: str) -> str:
    """Return what the plan calls a disk."""
    return f"disk/{name}"


def interface_key(name: str) -> str:
    """Return what the plan calls an interface."""
    return f"interface/{name}"


def host_device_key(name: str) -> str:
    """Return what the plan calls a host device."""
    return f"hostdev/{name}"


def is_q35(machine: str) -> bool:
    """Tell whether a machine type, versioned or not, has PCI Express."""
    return machine.startswith(("q35", "pc-q35"))


def pci_plan(domain: Domain, host_device_cells: Mapping[str, int] | None = None) -> PciPlan:
    """Return the plan of a domain.

    Args:
        domain: `spec.domain`.
        host_device_cells: Host device -> guest cell, where the placement knows more than the spec.
    """
    devices = _devices(domain, host_device_cells or {})
    express = is_q35(domain.machine.type)
    buses = _buses(domain.devices.pci_expanders, devices)
    homeless = _seat(devices, buses, express=express)
    behind = {device.key for bus in buses for device in bus.devices}
    on_root = sum(device.key not in behind and device.address is None for device in devices)
    ports = tuple(range(1, on_root + _others(domain) + SPARE_ROOT_PORTS + 1)) if express else ()
    expanders = _expanders(buses, first=len(ports) + 1, express=express)
    return PciPlan(
        root_ports=ports,
        expanders=expanders,
        addresses=_addresses(devices, buses, expanders),
        homeless=homeless,
    )


def address(bus: int, slot: int) -> str:
    """Return a PCI address of the guest in the kernel's form."""
    return f"0000:{bus:02x}:{slot:02x}.0"


def bus_and_slot(text: str) -> tuple[int, int]:
    """Return bus and slot of an address in the kernel's form."""
    _, bus, rest = text.split(":")
    return int(bus, 16), int(rest.split(".")[0], 16)


def _devices(domain: Domain, host_device_cells: Mapping[str, int]) -> list[_Device]:
    """Return the devices that may stand behind an expander, in the plan's order."""
    given, balloon = domain.devices, domain.memory.balloon
    found = [
        _Device(disk_key(disk.name), disk.cell, disk.pci_address)
        for disk in in_boot_order(given.disks)
        if disk.bus is DiskBus.VIRTIO
    ]
    found += [
        _Device(interface_key(card.name), card.cell, card.pci_address)
        for card in sorted(given.interfaces, key=lambda card: card.name)
    ]
    found += [
        _Device(host_device_key(one.name), host_device_cells.get(one.name, one.cell))
        for one in sorted(given.host_devices, key=lambda one: one.name)
    ]
    if balloon is not None:
        found.append(_Device(BALLOON, balloon.cell, balloon.pci_address))
    return found


def _others(domain: Domain) -> int:
    """Return how many PCI devices there are that never stand behind an expander."""
    scsi = any(disk.bus is DiskBus.SCSI for disk in domain.devices.disks)
    return scsi + sum(kind_of(device) in ON_PCI for device in domain.devices.memory)


def _buses(given: Sequence[PciExpander], devices: Sequence[_Device]) -> list[_Bus]:
    """Return the user's expanders by name, then one for each other cell that a device names."""
    buses = [
        _Bus(one.name, one.cell, one) for one in sorted(given, key=lambda expander: expander.name)
    ]
    has_one = {bus.cell for bus in buses}
    wanted = {device.cell for device in devices if device.cell is not None} - has_one
    return [*buses, *(_Bus(None, cell, None) for cell in sorted(wanted))]


def _seat(devices: Sequence[_Device], buses: Sequence[_Bus], *, express: bool) -> tuple[str, ...]:
    """Put each device with a cell, and none with an address, behind the first expander of that cell with room."""
    spare = SPARE_EXPANDER_PORTS if express else 0
    room = (len(PORT_SLOTS) if express else len(SLOTS)) - spare
    homeless = []
    for device in devices:
        if device.cell is None or device.address is not None:
            continue
        bus = next((one for one in buses if one.cell == device.cell and one.has_room(room)), None)
        if bus is None:
            homeless.append(device.key)
        else:
            bus.devices.append(device)
    return tuple(homeless)


def _expanders(buses: Sequence[_Bus], *, first: int, express: bool) -> tuple[Expander, ...]:
    """Give each expander its index and number: the highest numbers that are free, from the first on downwards."""
    sizes = [_size(bus, express=express) for bus in buses]
    taken = [
        range(bus.expander.bus_nr, bus.expander.bus_nr + size)
        for bus, size in zip(buses, sizes, strict=True)
        if bus.expander and bus.expander.bus_nr is not None
    ]
    made: list[Expander] = []
    index = first
    for bus, size in zip(buses, sizes, strict=True):
        number = bus.expander.bus_nr if bus.expander else None
        if number is None:
            number = _highest_free(size, taken, floor=first)
            taken.append(range(number or 0, (number or 0) + size))
        ports = tuple(range(index + 1, index + size)) if express else ()
        made.append(
            Expander(
                name=bus.name,
                cell=bus.cell,
                index=index,
                bus_nr=number,
                address=bus.expander.pci_address if bus.expander else None,
                ports=ports,
            )
        )
        index += 1 + len(ports)
    return tuple(made)


def _size(bus: _Bus, *, express: bool) -> int:
    """Return how many bus numbers an expander takes: itself, and its ports or its bridge."""
    return 1 + (len(bus.devices) + SPARE_EXPANDER_PORTS if express else 1)


def _highest_free(size: int, taken: Sequence[range], *, floor: int) -> int | None:
    """Return the highest number from which `size` numbers are free above those of the root bus's own bridges."""
    for start in range(MAX_BUS + 1 - size, floor, -1):
        if all(start + size <= other.start or other.stop <= start for other in taken):
            return start
    return None


def _addresses(
    devices: Sequence[_Device], buses: Sequence[_Bus], expanders: Sequence[Expander]
) -> dict[str, str]:
    given = {device.key: device.address for device in devices if device.address is not None}
    occupied = {bus_and_slot(text) for text in given.values()}
    found = dict(given)
    for bus, expander in zip(buses, expanders, strict=True):
        if expander.ports:
            for device, port in zip(bus.devices, expander.ports, strict=False):
                found[device.key] = address(port, 0)
            continue
        free = (slot for slot in SLOTS if (expander.index, slot) not in occupied)
        for device, slot in zip(bus.devices, free, strict=False):
            found[device.key] = address(expander.index, slot)
    return found
