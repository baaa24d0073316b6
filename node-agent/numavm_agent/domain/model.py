"""What rendering takes and gives. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Final

from numavm_agent.domain.paths import HostPathUse
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveVM, effective
from numavm_api.errors import HostFaultError
from numavm_api.numahost import EffectivePools, MemoryFigures
from numavm_api.numavm import NumaVMSpec

DEFAULT_LOG_DIRECTORY: Final = "/var/log/libvirt/qemu"
"""Where libvirt keeps domain logs: virtlogd may write there and rotates what it writes."""


class Accelerator(StrEnum):
    """Who really runs guest code: the outcome of `spec.domain.type: Auto`."""

    KVM = "KVM"
    TCG = "TCG"


class CannotRender(HostFaultError):  # noqa: N818 - reads as a sentence after `raises`
    """Spec, claim and host do not make a domain; the message names field, value and limit."""


@dataclass(frozen=True)
class VmToRender:
    """A NumaVM as far as its domain needs it."""

    namespace: str
    name: str
    uid: str
    """A UUID: Kubernetes' uid, and the domain's."""
    generation: int
    spec: NumaVMSpec

    @cached_property
    def effective(self) -> EffectiveVM:
        """The spec with every default filled in."""
        return effective(self.spec)


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What rendering must know of the host."""

    accelerator: Accelerator
    machine: str
    """The versioned machine type."""
    cells: Mapping[int, CpuSet]
    """Online CPUs of each host cell."""
    pools: EffectivePools
    """Pools as of now. Whether this VM's own CPUs are out of `shared` yet makes no difference."""
    held: CpuSet
    """CPUs that claims on this host keep to themselves, this VM's own among them or not."""
    distances: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    """Host cell -> other host cell -> distance."""
    figures: Mapping[int, MemoryFigures] = field(default_factory=dict)
    """What the host's HMAT says of the memory of its cells; none where it has no HMAT."""
    emulator: str | None = None
    """Path of QEMU; None: libvirt's default."""
    log_directory: str = DEFAULT_LOG_DIRECTORY
    """Where the serial console is logged."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A libvirt domain, ready for virDomainCreateXML."""

    name: str
    uuid: str
    xml: str
    serial_log: str
    """Where the serial console is logged."""
    host_paths: tuple[HostPathUse, ...]
    """Host paths that the manifest names; each must be permitted and safe before the start."""
