"""The agent's errors, in NumaVM's tree.

    TransientError
    ├── HypervisorUnavailable    libvirtd cannot be reached
    ├── OperationBusy            libvirt works on this domain and says: not now
    ├── KubeletUnavailable       kubelet's pod resources socket is there and does not answer
    └── ApiUnavailable           the API server cannot be reached, or asks to come back later
    ConflictError
    ├── DomainMissing            the domain ended meanwhile
    ├── DomainExists             the domain is there already
    └── ApiConflict              the object changed, moved away or is another one of the same name
    HostFaultError
    └── StartFault               libvirt or QEMU could not start a domain; says what was short
    RejectedError
    └── ApiDenied                the API server refuses what the agent asks

libvirt's codes are turned into these in `numavm_agent.libvirt.faults`, HTTP's in `numavm_agent.kube.transport`.
"""

from __future__ import annotations

from enum import StrEnum

from numavm_api.errors import ConflictError, HostFaultError, RejectedError, TransientError


class HypervisorUnavailable(TransientError):  # noqa: N818 - named after the state
    """libvirtd cannot be reached."""


class OperationBusy(TransientError):  # noqa: N818 - named after the state
    """libvirt works on this domain and says: not now."""


class KubeletUnavailable(TransientError):  # noqa: N818 - named after the state
    """Kubelet's pod resources socket is there and does not answer."""


class ApiUnavailable(TransientError):  # noqa: N818 - named after the state
    """The API server cannot be reached, or asks to come back later."""


class DomainMissing(ConflictError):  # noqa: N818 - named after the state
    """The domain ended meanwhile."""


class DomainExists(ConflictError):  # noqa: N818 - named after the state
    """The domain is there already."""


class ApiConflict(ConflictError):  # noqa: N818 - HTTP's own word
    """The object changed, moved away or is another one of the same name."""


class ApiDenied(RejectedError):  # noqa: N818 - HTTP's own word
    """The API server refuses what the agent asks."""


class Shortage(StrEnum):
    """What a failed start was short of, as far as QEMU says."""

    MEMORY = "Memory"
    HUGE_PAGES = "HugePages"
    NETWORK = "Network"
    """A bridge or a network of libvirt."""
    UNSUPPORTED = "Unsupported"
    UNKNOWN = "Unknown"


class StartFault(HostFaultError):  # noqa: N818 - a fault of this host, not of a program
    """libvirt or QEMU could not start a domain."""

    def __init__(self, message: str, shortage: Shortage = Shortage.UNKNOWN) -> None:
        super().__init__(message)
        self.shortage = shortage
