"""All devices, and the configurators of those that have no room of their own: interfaces, the serial console.

Devices stand in an order of their own, not in the spec's, so that re-ordering a manifest changes
nothing in the guest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final

from numavm_agent.domain.balloon import balloon
from numavm_agent.domain.disks import disks
from numavm_agent.domain.host_devices import host_devices
from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.model import CannotRender
from numavm_agent.domain.modules import memory_modules
from numavm_agent.domain.names import mac_address
from numavm_agent.domain.pci import address_of, controllers
from numavm_agent.domain.xml import Element, element
from numavm_api.devices import Interface, Network
from numavm_api.numavm import NumaVMSpec
from numavm_api.pci_plan import interface_key


def devices(given: RenderInput) -> Iterator[Element]:
    """All devices, each kind by a configurator of its own."""
    yield element("devices", *chain.from_iterable(each(given) for each in _CONFIGURATORS))


def emulator(given: RenderInput) -> Iterator[Element]:
    """QEMU's path, where the host names one."""
    if given.host.emulator is not None:
        yield element("emulator", given.host.emulator)


def interfaces(given: RenderInput) -> Iterator[Element]:
    """Network cards by name, each on the network of its name."""
    for card in sorted(given.spec.domain.devices.interfaces, key=lambda card: card.name):
        kind, source = _source(_network(given.spec, card))
        yield element(
            "interface",
            element("mac", address=card.mac_address or mac_address(given.vm.uid, card.name)),
            source,
            element("model", type_=card.model.value),
            element("alias", name=f"ua-net-{card.name}"),
            address_of(given, interface_key(card.name)),
            type_=kind,
        )


def serial_console(given: RenderInput) -> Iterator[Element]:
    """One serial port, both a console (`virsh console`) and logged by virtlogd, which rotates."""
    yield element(
        "serial",
        element("log", file=given.serial_log, append="on"),
        element("target", element("model", name="isa-serial"), type_="isa-serial", port=0),
        type_="pty",
    )
    yield element("console", element("target", type_="serial", port=0), type_="pty")


def panic_notifier(_: RenderInput) -> Iterator[Element]:
    """A guest kernel that panics says so, which ends the domain as crashed."""
    yield element("panic", model="isa")


def iommu(given: RenderInput) -> Iterator[Element]:
    """Interrupt remapping in extended mode, where vCPUs are too many to be named without."""
    if given.needs_iommu:
        # With a host device behind it QEMU wants to see what the guest maps (hw/i386/intel_iommu.c, caching-mode).
        caching = "on" if given.placement.devices else None
        driver = element("driver", intremap="on", caching_mode=caching, eim="on")
        yield element("iommu", driver, model="intel")


_CONFIGURATORS: Final[Sequence[Callable[[RenderInput], Iterator[Element]]]] = (
    emulator,
    controllers,
    disks,
    interfaces,
    serial_console,
    host_devices,
    balloon,
    panic_notifier,
    iommu,
    memory_modules,
)


def _source(network: Network) -> tuple[str, Element | None]:
    """Return the interface's type, and what of the host it is connected to."""
    if network.bridge is not None:
        return "bridge", element("source", bridge=network.bridge.name)
    if network.network is not None:
        return "network", element("source", network=network.network.name)
    return "user", None


def _network(spec: NumaVMSpec, card: Interface) -> Network:
    for network in spec.networks:
        if network.name == card.name:
            return network
    raise CannotRender(
        f"spec.domain.devices.interfaces: no entry of spec.networks is named {card.name}"
    )
