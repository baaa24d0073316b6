"""Configurators of PCI: root ports, expander buses of guest cells, and the addresses of what stands behind them.

Where things go is `numavm_api.pci_plan`'s to say, which validation reads too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.model import CannotRender
from numavm_agent.domain.xml import Element, element
from numavm_api.devices import DiskBus
from numavm_api.pci_plan import Expander, address

_MODELS: Final = {
    True: ("pcie-expander-bus", "pxb-pcie"),
    False: ("pci-expander-bus", "pxb"),
}
"""By whether the machine has PCI Express."""


def controllers(given: RenderInput) -> Iterator[Element]:
    """No USB; virtio-scsi where a disk needs it; root ports with some to spare; expanders with their own."""
    yield element("controller", type_="usb", model="none")
    if any(disk.bus is DiskBus.SCSI for disk in given.spec.domain.devices.disks):
        yield element("controller", type_="scsi", index=0, model="virtio-scsi")
    if given.is_q35:
        yield element("controller", type_="pci", index=0, model="pcie-root")
        for index in given.pci.root_ports:
            yield element("controller", type_="pci", index=index, model="pcie-root-port")
    for expander in given.pci.expanders:
        yield from _expander(expander, express=given.is_q35)


def address_of(given: RenderInput, key: str) -> Element | None:
    """Return the address of a device; None: libvirt finds it a place on the root bus."""
    text = given.pci.addresses.get(key)
    return address_element(text) if text is not None else None


def address_element(text: str) -> Element:
    """Return an address in the guest, or on the host, as libvirt writes it."""
    return element("address", type_="pci", **_parts(text))


def source_address(text: str) -> Element:
    """Return a device's address on the host."""
    return element("address", **_parts(text))


def _expander(expander: Expander, *, express: bool) -> Iterator[Element]:
    model, name = _MODELS[express]
    if expander.bus_nr is None:
        raise CannotRender(f"spec.domain.devices: no bus number is left for cell {expander.cell}")
    yield element(
        "controller",
        element("model", name=name),
        element("target", element("node", str(expander.cell)), busNr=expander.bus_nr),
        address_element(expander.address) if expander.address else None,
        type_="pci",
        index=expander.index,
        model=model,
    )
    for slot, port in enumerate(expander.ports):
        yield element(
            "controller",
            address_element(address(expander.index, slot)),
            type_="pci",
            index=port,
            model="pcie-root-port",
        )


def _parts(text: str) -> dict[str, str]:
    domain, bus, rest = text.split(":")
    slot, function = rest.split(".")
    return {
        "domain": f"0x{domain}",
        "bus": f"0x{bus}",
        "slot": f"0x{slot}",
        "function": f"0x{function}",
    }
