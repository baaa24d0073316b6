"""Names that a domain derives from its NumaVM: its own, its log's, its disks' and its cards'."""

from __future__ import annotations

import hashlib
import string
from typing import Final

MAX_DOMAIN_NAME: Final = 200
"""File names have at most 255 bytes (NAME_MAX); libvirt appends to the domain's to make its own."""
_UID_DIGITS: Final = 8


def domain_name(namespace: str, name: str, uid: str) -> str:
    """Return `<namespace>_<name>_<first 8 of uid>`, shortened where a file name needs that.

    Kubernetes names have no underscore, so no two VMs of one namespace and uid collide; identity is
    the UUID anyway.
    """
    tail = f"_{uid[:_UID_DIGITS]}"
    head = f"{namespace}_{name}"
    return head[: MAX_DOMAIN_NAME - len(tail)] + tail


def serial_log_path(log_directory: str, domain: str) -> str:
    """Return the file that the serial console of a domain is logged to."""
    return f"{log_directory.rstrip('/')}/{domain}-serial.log"


def mac_address(uid: str, interface: str) -> str:
    """Return the MAC address of an interface that names none: the same at every start.

    Locally administered and unicast (IEEE 802: second-lowest bit of the first octet set, lowest
    clear), 40 bits of digest.
    """
    digest = hashlib.sha256(f"{uid}/{interface}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


def disk_target(prefix: str, index: int) -> str:
    """Return the target of the index-th disk of a bus, counted as Linux does: vda … vdz, vdaa …."""
    letters = ""
    rest = index + 1
    while rest:
        rest, letter = divmod(rest - 1, len(string.ascii_lowercase))
        letters = string.ascii_lowercase[letter] + letters
    return prefix + letters
