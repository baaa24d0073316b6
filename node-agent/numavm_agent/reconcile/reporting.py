"""What the loop says to the API server at the end of a turn: the NumaHost, then the Lease, then the VMs.

This order matters. A refusal must come after the report that shows its cause, a release after the report that no longer
holds the claim, and a Lease only after the report was found true.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from numavm_agent.errors import ApiConflict, ApiDenied
from numavm_agent.ports import HostObject, VmObject
from numavm_agent.reconcile.host_report import HostView, host_status, status_without_libvirt
from numavm_agent.reconcile.tools import Tools
from numavm_agent.reconcile.vm_report import VmView, own_part, vm_status
from numavm_api.killpoints import KillPoint
from numavm_api.numahost import NumaHostStatus

_LEASE_MARGIN_SECONDS: Final = 0.5

_Document = Mapping[str, Any]


class Reporter:
    """Writes what changed, and nothing else."""

    def __init__(self, tools: Tools, lease_seconds: float) -> None:
        self._tools = tools
        self._lease_seconds = lease_seconds
        self._renewed_at: float | None = None
        self._host_sent: tuple[_Document, _Document] | None = None
        self._sent: dict[str, tuple[_Document, _Document]] = {}

    def host(self, view: HostView, on_server: HostObject) -> HostObject:
        """Make the NumaHost's status true; return what the server then has."""
        status = host_status(view, on_server.status, now=self._tools.timestamp())
        return self._write_host(status, on_server)

    def host_without_libvirt(self, on_server: HostObject, error: str) -> HostObject:
        """Say that libvirt does not answer; what was held stays held."""
        status = status_without_libvirt(
            on_server.status,
            error,
            generation=on_server.generation,
            boot_id=self._tools.reader.boot_id(),
            now=self._tools.timestamp(),
        )
        return self._write_host(status, on_server)

    def lease(self, host: HostObject) -> None:
        """Renew the Lease, if it is time; `host` was just found true."""
        now = self._tools.clock.boottime()
        due = self._renewed_at is None or (
            now >= self._renewed_at + self._lease_seconds - _LEASE_MARGIN_SECONDS
        )
        if due:
            self._tools.api.renew_lease(host.resource_version)
            self._renewed_at = now

    def vm(self, vm: VmObject, view: VmView) -> None:
        """Make the agent's part of a NumaVM's status true."""
        status = vm_status(view, now=self._tools.timestamp())
        if _is_there(status, own_part(vm.raw_status), self._sent.get(vm.uid)):
            return
        self._tools.kill.reach(KillPoint.BEFORE_REPORT)
        try:
            answer = self._tools.api.apply_vm_status(vm, status)
        except (ApiConflict, ApiDenied) as error:
            # Moved away, replaced or denied since it was listed: the next list says what holds.
            self._tools.log.warning("status_not_written", uid=vm.uid, error=str(error))
            return
        self._sent[vm.uid] = (status, own_part(answer))

    def forget_all_but(self, uids: set[str]) -> None:
        """Let go of what was sent for VMs that are no longer here."""
        self._sent = {uid: sent for uid, sent in self._sent.items() if uid in uids}

    def _write_host(self, status: NumaHostStatus, on_server: HostObject) -> HostObject:
        document = status.to_api()
        if _is_there(document, on_server.raw_status, self._host_sent):
            return on_server
        written = self._tools.api.apply_host_status(document)
        self._host_sent = (document, written.raw_status)
        return written


def _is_there(
    wanted: _Document, on_server: _Document, sent: tuple[_Document, _Document] | None
) -> bool:
    """Tell whether the server has what is wanted: literally, or as it stored just that when it was sent."""
    return wanted == on_server or (sent is not None and sent == (wanted, on_server))
