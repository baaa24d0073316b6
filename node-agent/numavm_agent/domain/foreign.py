"""Domains that NumaVM did not start: which host CPUs and devices they keep to themselves."""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from numavm_api.cpuset import CpuSet


def narrow_pins(domain_xml: str, online: CpuSet) -> CpuSet:
    """Return the host CPUs that a foreign domain is pinned to narrowly.

    A pin is narrow where the domain has as many vCPUs as it has CPUs, or more: then it uses all of
    them. A wider one is a range to float over, as shared VMs have it, and takes nothing away.

    Raises:
        etree.XMLSyntaxError: `domain_xml` is no XML; libvirt never prints such.
        ValueError: a cpuset in it is no list.
    """
    domain = etree.fromstring(domain_xml.encode(), etree.XMLParser(resolve_entities=False))
    vcpus = int(domain.findtext("vcpu") or 1)
    texts = [pin.get("cpuset") for pin in domain.iterfind("cputune/vcpupin")]
    vcpu = domain.find("vcpu")
    if vcpu is not None and len(texts) < vcpus:
        texts.append(vcpu.get("cpuset"))
    pins = [CpuSet.parse(text) & online for text in texts if text]
    return CpuSet.union_of(pin for pin in pins if len(pin) <= vcpus and pin != online)


def host_devices(domain_xml: str) -> frozenset[str]:
    """Return the addresses of the host's PCI devices that a domain has, in the kernel's form.

    Raises:
        etree.XMLSyntaxError: `domain_xml` is no XML; libvirt never prints such.
        ValueError: an address in it is no number.
    """
    domain = etree.fromstring(domain_xml.encode(), etree.XMLParser(resolve_entities=False))
    found = domain.iterfind("devices/hostdev[@type='pci']/source/address")
    return frozenset(_address(dict(node.attrib)) for node in found)


def _address(parts: Mapping[str, str]) -> str:
    domain, bus, slot, function = (
        int(parts.get(name, "0"), 0) for name in ("domain", "bus", "slot", "function")
    )
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
