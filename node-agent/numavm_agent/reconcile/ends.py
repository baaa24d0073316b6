"""Why a domain is no longer there. Pure."""

from __future__ import annotations

import re
from typing import Final

from numavm_api.vm_status import DomainStatus, ShutoffReason

_LOG_LINE: Final = re.compile(r".*: shutting down, reason=(?P<reason>[a-z ]+)")
_LOG_REASONS: Final = {
    "shutdown": ShutoffReason.GUEST_SHUTDOWN,
    "destroyed": ShutoffReason.DESTROYED,
    "crashed": ShutoffReason.CRASHED,
    "failed": ShutoffReason.CRASHED,
}
"""virDomainShutoffReason as libvirt logs it (qemuProcessStop)."""


def end_reason(
    before: DomainStatus,
    *,
    stopped_by_us: bool,
    event: ShutoffReason | None,
    last_log_line: str | None,
    boot_id: str,
) -> ShutoffReason:
    """Return why a domain ended: NumaVM's own doing, then the host's, then libvirt's event, then its log."""
    if before.boot_id is not None and before.boot_id != boot_id:
        return ShutoffReason.HOST_LOST
    if stopped_by_us or before.shutoff_reason is ShutoffReason.STOPPED:
        return ShutoffReason.STOPPED
    if event is not None:
        return event
    found = _LOG_LINE.fullmatch(last_log_line or "")
    return (
        _LOG_REASONS.get(found["reason"], ShutoffReason.UNKNOWN) if found else ShutoffReason.UNKNOWN
    )
