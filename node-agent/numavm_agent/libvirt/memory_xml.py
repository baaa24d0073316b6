"""A memory device's own XML, changed for libvirt's virDomainUpdateDeviceFlags: all else must be as it stands."""

from __future__ import annotations

from lxml import etree

from numavm_api.errors import HostFaultError
from numavm_api.quantity import KIBIBYTE, Bytes


def resized_memory(domain_xml: str, alias: str, requested: Bytes) -> str:
    """Return the element of a virtio-mem device with another requested amount.

    Raises:
        HostFaultError: the domain has no such device.
    """
    root = etree.fromstring(domain_xml.encode(), etree.XMLParser(resolve_entities=False))
    for memory in root.iterfind("devices/memory"):
        name, amount = memory.find("alias"), memory.find("target/requested")
        if name is not None and name.get("name") == alias and amount is not None:
            amount.text, unit = str(requested // KIBIBYTE), "KiB"
            amount.set("unit", unit)
            return etree.tostring(memory, encoding="unicode")
    raise HostFaultError(f"the domain has no virtio-mem device {alias}")
