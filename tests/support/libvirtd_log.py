"""What libvirtd was asked to do to a domain, in its own words and order: each call of its API, by its debug log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LOG_ENVIRONMENT: Final = {
    "LIBVIRT_LOG_FILTERS": "1:libvirt.domain",
    "LIBVIRT_LOG_OUTPUTS": "1:stderr",
}
"""Has a libvirtd log each call's entry, with its arguments."""
_CHANGES: Final = {
    "virDomainAttachDeviceFlags": "Plug",
    "virDomainUpdateDeviceFlags": "Plug",
    "virDomainDetachDeviceAlias": "Unplug",
    "virDomainSetMemoryFlags": "Balloon",
    "virDomainSetMemoryStatsPeriod": "Balloon",
    "virDomainSetVcpu": "",
}
"""Calls that change what a guest has -> the kind of operation that they are part of; of vCPUs the state says it."""
_CALL: Final = re.compile(
    r"^\S+ \S+ \d+: debug : (?P<name>virDomain\w+):\d+ : dom=\S+ \(VM: name=\S+, uuid=(?P<uuid>[0-9a-f-]+)\),? ?"
    r"(?P<arguments>.*)$",
    re.MULTILINE,
)
_KIND: Final = re.compile(r'<operation>\{.*?"kind":"(\w+)"')
_STATE: Final = re.compile(r"\bstate=(\d)")


@dataclass(frozen=True)
class Change:
    """A call that changes what a guest has."""

    call: str
    kind: str
    """Of the operation that it is part of."""
    recorded: str | None
    """The operation that stood in the domain's metadata then; None: none did."""


def changes(log: str, uuid: str) -> Iterator[Change]:
    """Yield the changes of a domain, each with the record under which it came."""
    recorded: str | None = None
    for found in _CALL.finditer(log):
        name, arguments = found["name"], found["arguments"]
        if found["uuid"] != uuid:
            continue
        if name == "virDomainSetMetadata":
            kind = _KIND.search(arguments.replace("&quot;", '"'))
            recorded = kind[1] if kind is not None else None
        elif name in _CHANGES:
            state = _STATE.search(arguments)
            switched = "Plug" if state is not None and state[1] == "1" else "Unplug"
            yield Change(name, _CHANGES[name] or switched, recorded)
