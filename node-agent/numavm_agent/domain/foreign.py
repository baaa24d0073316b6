"""Domains that NumaVM did not start: which host CPUs they keep to themselves."""

from __future__ import annotations

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
