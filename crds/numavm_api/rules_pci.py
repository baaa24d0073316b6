"""Rules on PCI addresses and expander buses of the guest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_api.effective import effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.pci import MAX_BUS, MAX_EXPANDERS
from numavm_api.pci_plan import (
    SLOTS,
    Expander,
    PciPlan,
    bus_and_slot,
    is_q35,
    pci_plan,
)
from numavm_api.rules_cells import Rule
from numavm_api.violation import Violation

DEVICES: Final = "spec.domain.devices"
BALLOON: Final = "spec.domain.memory.balloon"
FIRST_FREE_SLOT: Final = 3
"""Slots 0 to 2 of the root bus are the chipset's, or kept by libvirt for a video card."""
LAST_FREE_SLOT: Final = 30
"""Slot 31 of q35's root bus is the chipset's."""


def pci_rules() -> tuple[Rule, ...]:
    """Return the rules on PCI."""
    return (
        _cells_exist,
        _expander_names_differ,
        _addresses_exist,
        _addresses_differ,
        _expanders_sit_on_the_root_bus,
        _bus_numbers_fit,
        _expanders_not_too_many,
        _everything_has_a_place,
    )


def _cells_exist(spec: NumaVMSpec) -> Iterator[Violation]:
    known = [cell.id for cell in effective(spec).cells]
    for field, cell in _cells(spec):
        if cell not in known:
            yield Violation(
                field,
                str(cell),
                f"the guest's cells are {', '.join(map(str, known))}",
                "name one of these",
            )


def _expander_names_differ(spec: NumaVMSpec) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, expander in enumerate(spec.domain.devices.pci_expanders):
        if expander.name in seen:
            yield Violation(
                f"{DEVICES}.pciExpanders[{index}].name",
                f"'{expander.name}'",
                "an earlier entry has it too",
                "rename one",
            )
        seen.add(expander.name)


def _addresses_exist(spec: NumaVMSpec) -> Iterator[Violation]:
    plan, express = pci_plan(spec.domain), is_q35(spec.domain.machine.type)
    for field, text, cell in _addresses(spec):
        domain, (bus, slot) = text[:4], bus_and_slot(text)
        behind = next((one for one in plan.expanders if one.index == bus and not express), None)
        if domain != "0000" or not text.endswith(".0"):
            yield _no_address(field, text, "domain and function are 0", "write 0000:BUS:SLOT.0")
        elif bus and behind is None:
            yield _no_address(field, text, _buses_there(plan, express=express), "use another bus")
        elif bus and slot not in SLOTS:
            yield _no_address(field, text, "slots behind an expander are 01 to 1f", "use one")
        elif not bus and not FIRST_FREE_SLOT <= slot <= LAST_FREE_SLOT:
            yield _no_address(field, text, "free slots of bus 00 are 03 to 1e", "use one of these")
        elif cell is not None and (behind is None or behind.cell != cell):
            yield _no_address(
                field,
                text,
                f"that is no bus of guest cell {cell}, which cell names",
                "leave one of cell and pciAddress out",
            )


def _buses_there(plan: PciPlan, *, express: bool) -> str:
    if express:
        return "on machine q35 only slots of bus 00 can be chosen: NumaVM gives each other device a root port of its own"
    names = [f"{one.index:02x} ({_called(one)})" for one in plan.expanders]
    return f"the buses are 00{''.join(f', {name}' for name in names)}"


def _called(expander: Expander) -> str:
    return expander.name or f"made for cell {expander.cell}"


def _no_address(field: str, text: str, limit: str, remedy: str) -> Violation:
    return Violation(field, text, limit, remedy)


def _addresses_differ(spec: NumaVMSpec) -> Iterator[Violation]:
    given = [(field, text) for field, text, _ in _addresses(spec)]
    given += _expander_addresses(spec)
    seen: dict[tuple[int, int], str] = {}
    for field, text in given:
        place = bus_and_slot(text)
        if place in seen:
            yield _no_address(field, text, f"{seen[place]} is there already", "use another slot")
        seen.setdefault(place, field)


def _expanders_sit_on_the_root_bus(spec: NumaVMSpec) -> Iterator[Violation]:
    for field, text in _expander_addresses(spec):
        bus, slot = bus_and_slot(text)
        is_good = text.startswith("0000:") and text.endswith(".0") and bus == 0
        if not (is_good and FIRST_FREE_SLOT <= slot <= LAST_FREE_SLOT):
            yield _no_address(
                field,
                text,
                "an expander sits on the root bus, in slot 03 to 1e",
                "use such as 0000:00:06.0, or leave it out",
            )


def _bus_numbers_fit(spec: NumaVMSpec) -> Iterator[Violation]:
    plan = pci_plan(spec.domain)
    lowest = len(plan.root_ports) + 1
    fields = {
        one.name: f"{DEVICES}.pciExpanders[{at}].busNr"
        for at, one in enumerate(spec.domain.devices.pci_expanders)
    }
    taken: list[tuple[range, str]] = []
    for expander in plan.expanders:
        field = fields.get(expander.name or "", f"{DEVICES}.pciExpanders")
        if expander.bus_nr is None:
            yield Violation(
                field,
                "left out",
                f"no {_width(expander)} bus numbers in a row are free above {lowest} for {_called(expander)}",
                "name fewer devices with a cell",
            )
            continue
        numbers = range(expander.bus_nr, expander.bus_nr + _width(expander))
        clash = next((name for other, name in taken if _overlap(numbers, other)), None)
        if clash or numbers.start <= lowest or numbers.stop - 1 > MAX_BUS:
            yield Violation(
                field,
                str(expander.bus_nr),
                f"it takes the bus numbers {numbers.start} to {numbers.stop - 1}, "
                + (
                    f"{clash} has some of them"
                    if clash
                    else f"above {lowest} and at most {MAX_BUS}"
                ),
                "leave busNr out, or choose a free range",
            )
        taken.append((numbers, _called(expander)))


def _width(expander: Expander) -> int:
    return 1 + (len(expander.ports) or 1)


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def _expanders_not_too_many(spec: NumaVMSpec) -> Iterator[Violation]:
    count = len(pci_plan(spec.domain).expanders)
    if count > MAX_EXPANDERS:
        yield Violation(
            f"{DEVICES}.pciExpanders",
            f"{count} with those that cells of devices need",
            f"a guest has at most {MAX_EXPANDERS}",
            "remove one",
        )


def _everything_has_a_place(spec: NumaVMSpec) -> Iterator[Violation]:
    for key in pci_plan(spec.domain).homeless:
        yield Violation(
            f"{DEVICES}[*].cell",
            key,
            "no slot is left behind its cell's expanders",
            "add an entry to pciExpanders for that cell, or leave cell out",
        )


def _cells(spec: NumaVMSpec) -> Iterator[tuple[str, int]]:
    devices, balloon = spec.domain.devices, spec.domain.memory.balloon
    if balloon is not None and balloon.cell is not None:
        yield f"{BALLOON}.cell", balloon.cell
    kinds: dict[str, list[int | None]] = {
        "disks": [disk.cell for disk in devices.disks],
        "interfaces": [card.cell for card in devices.interfaces],
        "hostDevices": [device.cell for device in devices.host_devices],
        "pciExpanders": [expander.cell for expander in devices.pci_expanders],
    }
    for kind, cells in kinds.items():
        for index, cell in enumerate(cells):
            if cell is not None:
                yield f"{DEVICES}.{kind}[{index}].cell", cell


def _addresses(spec: NumaVMSpec) -> Iterator[tuple[str, str, int | None]]:
    """Yield (field, address, cell beside it) of devices; those of expanders apart."""
    devices, balloon = spec.domain.devices, spec.domain.memory.balloon
    if balloon is not None and balloon.pci_address is not None:
        yield f"{BALLOON}.pciAddress", balloon.pci_address, balloon.cell
    kinds = {
        "disks": [(disk.pci_address, disk.cell) for disk in devices.disks],
        "interfaces": [(card.pci_address, card.cell) for card in devices.interfaces],
    }
    for kind, entries in kinds.items():
        for index, (text, cell) in enumerate(entries):
            if text is not None:
                yield f"{DEVICES}.{kind}[{index}].pciAddress", text, cell


def _expander_addresses(spec: NumaVMSpec) -> list[tuple[str, str]]:
    return [
        (f"{DEVICES}.pciExpanders[{index}].pciAddress", expander.pci_address)
        for index, expander in enumerate(spec.domain.devices.pci_expanders)
        if expander.pci_address is not None
    ]
