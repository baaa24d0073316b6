"""What libvirt's capabilities say of QEMU on this host. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lxml import etree

from numavm_agent.topology.readings import TopologyError

_ARCHITECTURE: Final = "x86_64"
_FAMILIES: Final = ("pc-q35-", "pc-i440fx-")


@dataclass(frozen=True, slots=True)
class EmulatorCapabilities:
    """QEMU for x86-64, as libvirt knows it."""

    emulator: str
    """Its path."""
    machine_types: tuple[str, ...]
    """Versioned q35 and i440fx machine types, sorted."""
    aliases: Mapping[str, str]
    """`q35` and `pc` -> versioned machine type."""
    max_vcpus: int
    """Largest number of vCPUs of any of them."""
    kvm: bool
    """libvirt could open /dev/kvm, which does not mean that it works."""


def parse_capabilities(xml: str) -> EmulatorCapabilities:
    """Return what virConnectGetCapabilities says of the x86-64 emulator.

    Raises:
        TopologyError: there is no such emulator.
    """
    root = etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False))
    arch = root.find(f"guest/arch[@name='{_ARCHITECTURE}']")
    emulator = arch.findtext("emulator") if arch is not None else None
    if arch is None or emulator is None:
        raise TopologyError(f"libvirt's capabilities name no emulator for {_ARCHITECTURE}")
    machines = [machine for machine in arch.iterfind("machine") if machine.text]
    limits = {machine.text or "": int(machine.get("maxCpus", "1")) for machine in machines}
    offered = {name: limit for name, limit in limits.items() if name.startswith(_FAMILIES)}
    return EmulatorCapabilities(
        emulator=emulator,
        machine_types=tuple(sorted(offered)),
        aliases={
            machine.text or "": machine.get("canonical", "")
            for machine in machines
            if machine.get("canonical", "").startswith(_FAMILIES)
        },
        max_vcpus=max(offered.values(), default=1),
        kvm=arch.find("domain[@type='kvm']") is not None,
    )
