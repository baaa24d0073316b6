"""From NumaVM, claim and host to a libvirt domain: one configurator per element, in a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final

from lxml import etree

from numavm_agent.domain import cpu, devices, disks, general, memory
from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.model import Accelerator, Domain, HostFacts, VmToRender
from numavm_agent.domain.paths import host_paths
from numavm_agent.domain.xml import Element, element
from numavm_api.placement import Placement

CONFIGURATORS: Final[Sequence[Callable[[RenderInput], Iterator[Element]]]] = (
    general.identity,
    general.metadata,
    memory.sizes,
    memory.backing,
    cpu.vcpus,
    disks.io_threads,
    cpu.pinning,
    memory.binding,
    general.boot,
    general.features,
    cpu.model_and_cells,
    general.clock,
    general.lifecycle,
    general.power_management,
    devices.devices,
)
"""In the order in which libvirt prints a domain."""

_DOMAIN_TYPES: Final = {Accelerator.KVM: "kvm", Accelerator.TCG: "qemu"}


def render(vm: VmToRender, placement: Placement, host: HostFacts) -> Domain:
    """Return the domain that runs `vm` under the claim `placement` on `host`.

    The same input gives the same text.

    Raises:
        CannotRender: spec, claim and host do not fit each other.
    """
    given = RenderInput.of(vm, placement, host)
    domain = element(
        "domain",
        *chain.from_iterable(configure(given) for configure in CONFIGURATORS),
        type_=_DOMAIN_TYPES[host.accelerator],
    )
    etree.indent(domain)
    return Domain(
        name=given.name,
        uuid=vm.uid,
        xml=etree.tostring(domain, encoding="unicode") + "\n",
        serial_log=given.serial_log,
        host_paths=host_paths(vm.spec),
    )
