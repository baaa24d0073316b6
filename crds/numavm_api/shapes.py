"""Shapes of the strings that people write: names, host paths, addresses. Nothing else gets past the API server."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
HOST_PATH_PATTERN: Final = r"^/[A-Za-z0-9._@:+,=-]+(/[A-Za-z0-9._@:+,=-]+)*$"
"""Absolute, without white space, quotes, control characters or a trailing slash; `..` is refused by a CEL rule and again by the agent."""
PCI_ADDRESS_PATTERN: Final = r"^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$"
PCI_ID_PATTERN: Final = r"^[0-9a-f]{4}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
HostPath = Annotated[str, Field(pattern=HOST_PATH_PATTERN, max_length=512)]
MacAddress = Annotated[
    str, Field(pattern=r"^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$", max_length=17)
]
BridgeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$", max_length=15)]
"""A network interface of the host: shorter than the kernel's IFNAMSIZ of 16."""
NetworkName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", max_length=63)]
"""A virtual network of the host's libvirt."""
PciAddress = Annotated[str, Field(pattern=PCI_ADDRESS_PATTERN, max_length=32)]
"""`domain:bus:slot.function` in hexadecimal, as the kernel writes it."""
PciId = Annotated[str, Field(pattern=PCI_ID_PATTERN, max_length=32)]
"""A vendor or product id, `8086`."""
