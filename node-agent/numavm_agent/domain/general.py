"""Configurators of what a domain is called, how it boots and what its ends mean."""

from __future__ import annotations

from collections.abc import Iterator

from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.metadata import DomainRecord, metadata_element
from numavm_agent.domain.xml import Element, element


def identity(given: RenderInput) -> Iterator[Element]:
    """The UUID is the NumaVM's uid: a VM made again under its old name is another domain."""
    yield element("name", given.name)
    yield element("uuid", given.vm.uid)


def metadata(given: RenderInput) -> Iterator[Element]:
    """What the domain itself must remember: whose it is, what it holds, what it was built from."""
    record = DomainRecord(
        uid=given.vm.uid,
        namespace=given.vm.namespace,
        name=given.vm.name,
        generation=given.vm.generation,
        restart_token=given.spec.restart_token,
        placement=given.placement,
        spec=given.spec,
    )
    yield element("metadata", metadata_element(record))


def boot(given: RenderInput) -> Iterator[Element]:
    """Machine type and what boots; without a kernel, disks in their boot order."""
    kernel = given.spec.domain.firmware.kernel_boot
    yield element(
        "os",
        element("type", "hvm", arch="x86_64", machine=given.host.machine),
        element("kernel", kernel.kernel) if kernel else None,
        element("initrd", kernel.initrd) if kernel and kernel.initrd else None,
        element("cmdline", kernel.args) if kernel and kernel.args else None,
    )


def features(given: RenderInput) -> Iterator[Element]:
    """ACPI always: without it distances, HMAT and hotplug are silently lost (measured)."""
    yield element(
        "features",
        element("acpi"),
        element("apic"),
        # Interrupt remapping needs the I/O APIC in QEMU; libvirt asks for it under TCG, too.
        element("ioapic", driver="qemu") if given.needs_iommu else None,
    )


def clock(_: RenderInput) -> Iterator[Element]:
    """UTC, with virt-install's timers for Linux guests."""
    yield element(
        "clock",
        element("timer", name="rtc", tickpolicy="catchup"),
        element("timer", name="pit", tickpolicy="delay"),
        element("timer", name="hpet", present="no"),
        offset="utc",
    )


def lifecycle(_: RenderInput) -> Iterator[Element]:
    """A reboot stays inside the domain; what follows an end is the run strategy's."""
    yield element("on_poweroff", "destroy")
    yield element("on_reboot", "restart")
    yield element("on_crash", "destroy")


def power_management(_: RenderInput) -> Iterator[Element]:
    """No suspend: nobody would wake the guest."""
    yield element(
        "pm",
        element("suspend-to-mem", enabled="no"),
        element("suspend-to-disk", enabled="no"),
    )
