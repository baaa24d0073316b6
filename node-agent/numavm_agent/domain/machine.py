"""Which versioned machine type a domain gets, and keeps over restarts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from numavm_agent.domain.model import CannotRender

_FAMILIES: Final = {"q35": "pc-q35-", "pc": "pc-i440fx-"}


def machine_type(
    wanted: str, *, kept: str | None, aliases: Mapping[str, str], offered: Collection[str]
) -> str:
    """Return the versioned machine type for a spec's machine type.

    An alias (`q35`, `pc`) keeps the version the VM had at its last start, so that an upgrade of
    QEMU changes no guest's hardware; where that is not offered any more, the newest is taken.

    Args:
        wanted: `spec.domain.machine.type`.
        kept: `status.domain.machine` of the last start, if any.
        aliases: QEMU's aliases: `q35` -> `pc-q35-7.2`.
        offered: Versioned machine types that QEMU has.

    Raises:
        CannotRender: QEMU on this host does not have the type.
    """
    family = _FAMILIES.get(wanted)
    if family is not None and kept is not None and kept.startswith(family) and kept in offered:
        return kept
    resolved = aliases.get(wanted, wanted)
    if resolved not in offered:
        raise CannotRender(
            f"spec.domain.machine.type is {wanted!r}, but QEMU on this host offers "
            f"{', '.join(sorted(offered)) or 'none'}"
        )
    return resolved
