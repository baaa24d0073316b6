"""libvirt's error codes as the agent's errors: the one place that reads them.

Codes: https://libvirt.org/html/libvirt-virterror.html
"""

from __future__ import annotations

import re
from typing import Final

import libvirt

from numavm_agent.errors import (
    DomainExists,
    DomainMissing,
    HypervisorUnavailable,
    OperationBusy,
    Shortage,
    StartFault,
)
from numavm_api.errors import HostFaultError, NumaVMError

_CONNECTION_CODES: Final = frozenset(
    {
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    }
)
_CONNECTION_DOMAINS: Final = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})
_BUSY_CODES: Final = frozenset({libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_RESOURCE_BUSY})
_SHORT_OF_MEMORY: Final = (
    "unable to map backing store",
    "cannot allocate memory",
    "can't allocate memory",
    "os_mem_prealloc",
    "not enough free memory",
    "unable to allocate",
)
"""What QEMU and libvirt print where memory does not suffice, in lower case."""
_NO_NETWORK: Final = re.compile(
    r"cannot get interface mtu on|unable to add bridge|network '.*' is not active"
)
"""What libvirt says, in lower case, of a bridge that is not there and of a network that is not active."""
_UNSUPPORTED: Final = ("unknown cpu model",)
"""What libvirt calls an internal error, though it is the domain that asks for what is not there."""
_UNSUPPORTED_CODES: Final = frozenset(
    {
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_XML_ERROR,
        libvirt.VIR_ERR_XML_DETAIL,
        libvirt.VIR_ERR_XML_INVALID_SCHEMA,
        libvirt.VIR_ERR_NO_SUPPORT,
    }
)


def is_connection_lost(error: libvirt.libvirtError) -> bool:
    """Tell whether an error says that libvirtd is gone rather than that it refused."""
    return (
        error.get_error_code() in _CONNECTION_CODES
        or error.get_error_domain() in _CONNECTION_DOMAINS
    )


def agent_error(error: libvirt.libvirtError, doing: str) -> NumaVMError:
    """Return the agent's error for libvirt's, saying what was tried."""
    text = f"{doing}: {error.get_error_message()}"
    code = error.get_error_code()
    if is_connection_lost(error):
        return HypervisorUnavailable(text)
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return DomainMissing(text)
    if code == libvirt.VIR_ERR_DOM_EXIST:
        return DomainExists(text)
    if code in _BUSY_CODES:
        return OperationBusy(text)
    if code == libvirt.VIR_ERR_OPERATION_INVALID and "is not running" in text:
        return DomainMissing(text)
    return HostFaultError(text)


def start_error(
    error: libvirt.libvirtError, doing: str, *, short_of: Shortage = Shortage.MEMORY
) -> NumaVMError:
    """Return the agent's error for a start that failed.

    QEMU says the same where memory and where huge pages did not suffice: `short_of` is what the domain wanted.
    """
    if is_connection_lost(error):
        return HypervisorUnavailable(f"{doing}: {error.get_error_message()}")
    message = str(error.get_error_message())
    code = error.get_error_code()
    if code == libvirt.VIR_ERR_DOM_EXIST or "is already active" in message:
        return DomainExists(f"{doing}: {message}")
    return StartFault(f"{doing}: {message}", _shortage(code, message.lower(), short_of))


def _shortage(code: int, message: str, short_of: Shortage) -> Shortage:
    if code in _UNSUPPORTED_CODES or any(text in message for text in _UNSUPPORTED):
        return Shortage.UNSUPPORTED
    if any(text in message for text in _SHORT_OF_MEMORY):
        return short_of
    if code == libvirt.VIR_ERR_NO_NETWORK or _NO_NETWORK.search(message):
        return Shortage.NETWORK
    return Shortage.UNKNOWN
