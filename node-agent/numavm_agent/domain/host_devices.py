"""Configurator of host devices: what the claim holds, behind the bus of its guest cell."""

from __future__ import annotations

from collections.abc import Iterator

from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.pci import address_of, source_address
from numavm_agent.domain.xml import Element, element
from numavm_api.pci_plan import host_device_key


def host_devices(given: RenderInput) -> Iterator[Element]:
    """By name; libvirt binds each to vfio-pci for the time of the run, and gives it back after."""
    for device in sorted(given.placement.devices, key=lambda one: one.name):
        yield element(
            "hostdev",
            element("driver", name="vfio"),
            element("source", source_address(device.address)),
            element("alias", name=f"ua-hostdev-{device.name}"),
            address_of(given, host_device_key(device.name)),
            mode="subsystem",
            type_="pci",
            managed="yes",
        )
