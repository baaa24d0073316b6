"""What runs on this host: NumaVM's domains with what their metadata say, and others' with the CPUs they keep.

A domain is NumaVM's where its metadata name its own UUID: a copy of one, made by hand under another UUID, is somebody
else's. What cannot change while a domain runs is read once per run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from lxml import etree

from numavm_agent.domain.foreign import host_devices, narrow_pins
from numavm_agent.domain.metadata import DomainRecord, UnreadableMetadata, read_metadata
from numavm_agent.domain.model import Accelerator
from numavm_agent.errors import DomainMissing
from numavm_agent.ports import Clock, DomainSeen, HostReader, Hypervisor, LibvirtState
from numavm_api.cpuset import CpuSet
from numavm_api.quantity import KIBIBYTE, Bytes

_FOREIGN_SECONDS: Final = 30.0
"""Somebody may re-pin a domain that is not NumaVM's; it is read again this often."""


@dataclass(frozen=True, slots=True)
class ManagedDomain:
    """A domain that NumaVM started."""

    seen: DomainSeen
    record: DomainRecord
    accelerator: Accelerator
    machine: str
    memory: Bytes
    """What libvirt says the guest has."""
    has_host_devices: bool
    """Devices of the host are assigned to it: they may write to any of its pages at any time."""
    pid: int | None
    started_at: float | None
    """Seconds since the epoch."""
    removable_vcpus: CpuSet = field(default_factory=CpuSet)
    """vCPUs that QEMU can take out: those that it did not boot with."""

    @property
    def is_whole(self) -> bool:
        """Tell whether its process is there, and no longer being made."""
        return self.pid is not None and self.seen.state is not LibvirtState.STARTING


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every active domain of the host."""

    managed: Mapping[str, ManagedDomain]
    """By uid."""
    foreign_cpus: CpuSet
    """CPUs that domains of others keep to themselves."""
    foreign_devices: frozenset[str] = frozenset()
    """Host devices that domains of others hold."""


@dataclass(frozen=True, slots=True)
class _Managed:
    record: DomainRecord
    accelerator: Accelerator
    machine: str
    memory: Bytes
    has_host_devices: bool
    removable_vcpus: CpuSet


@dataclass(frozen=True, slots=True)
class _Foreign:
    cpus: CpuSet
    devices: frozenset[str]
    read_at: float


_Run = tuple[str, int]


@dataclass(slots=True)
class InventoryReader:
    """Reads the inventory, and remembers what it has read."""

    hypervisor: Hypervisor
    reader: HostReader
    clock: Clock
    _known: dict[_Run, _Managed | _Foreign] = field(default_factory=dict)

    def read(self, online: CpuSet) -> Inventory:
        """Return what runs now.

        Raises:
            HypervisorUnavailable: libvirtd does not answer.
        """
        domains = self.hypervisor.list_domains()
        current = {(seen.uuid, seen.run_id) for seen in domains}
        self._known = {run: known for run, known in self._known.items() if run in current}
        managed: dict[str, ManagedDomain] = {}
        foreign = CpuSet()
        devices: frozenset[str] = frozenset()
        for seen in domains:
            match self._know(seen, online):
                case _Managed() as known:
                    managed[seen.uuid] = self._managed(seen, known)
                case _Foreign() as known:
                    foreign = foreign | known.cpus
                    devices = devices | known.devices
                case None:
                    continue
        return Inventory(managed, foreign, devices)

    def forget(self, uuid: str) -> None:
        """Read a domain's metadata again: they were changed."""
        self._known = {run: known for run, known in self._known.items() if run[0] != uuid}

    def _know(self, seen: DomainSeen, online: CpuSet) -> _Managed | _Foreign | None:
        run = (seen.uuid, seen.run_id)
        known = self._known.get(run)
        if known is None or self._is_stale(known):
            try:
                known = self._understand(seen, self.hypervisor.domain_xml(seen.uuid), online)
            except DomainMissing:
                return None
            self._known[run] = known
        return known

    def _is_stale(self, known: _Managed | _Foreign) -> bool:
        return (
            isinstance(known, _Foreign) and self.clock.boottime() > known.read_at + _FOREIGN_SECONDS
        )

    def _understand(self, seen: DomainSeen, xml: str, online: CpuSet) -> _Managed | _Foreign:
        try:
            record = read_metadata(xml)
        except UnreadableMetadata as error:
            structlog.get_logger("inventory").error(
                "metadata_unreadable", domain=seen.name, uuid=seen.uuid, error=str(error)
            )
            record = None
        if record is None or record.uid != seen.uuid:
            return _Foreign(narrow_pins(xml, online), host_devices(xml), self.clock.boottime())
        domain = etree.fromstring(xml.encode())
        memory = int(domain.findtext("currentMemory") or 0)
        os_type = domain.find("os/type")
        accelerator = Accelerator.KVM if domain.get("type") == "kvm" else Accelerator.TCG
        return _Managed(
            record=record,
            accelerator=accelerator,
            machine=(os_type.get("machine") or "") if os_type is not None else "",
            memory=Bytes(memory * KIBIBYTE),
            has_host_devices=domain.find("devices/hostdev") is not None,
            removable_vcpus=_removable(domain, accelerator),
        )

    def _managed(self, seen: DomainSeen, known: _Managed) -> ManagedDomain:
        pid = self.reader.qemu_pid(seen.name, seen.uuid)
        started_at = None
        if pid is not None:
            try:
                started_at = self.reader.started_at(pid)
            except ProcessLookupError:
                pid = None
        return ManagedDomain(
            seen=seen,
            record=known.record,
            accelerator=known.accelerator,
            machine=known.machine,
            memory=known.memory,
            has_host_devices=known.has_host_devices,
            pid=pid,
            started_at=started_at,
            removable_vcpus=known.removable_vcpus,
        )


def _removable(domain: etree._Element, accelerator: Accelerator) -> CpuSet:
    """Return the vCPUs that can be taken out of a running domain.

    None of an emulated one: after a vCPU was taken out, the next memory module brings QEMU down (seen with QEMU 7.2
    under TCG, "free(): invalid pointer").
    """
    if accelerator is not Accelerator.KVM:
        return CpuSet()
    return CpuSet(
        frozenset(
            int(vcpu.get("id") or 0)
            for vcpu in domain.iterfind("vcpus/vcpu")
            if (vcpu.get("enabled"), vcpu.get("hotpluggable")) == ("yes", "yes")
        )
    )
