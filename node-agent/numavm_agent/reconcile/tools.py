"""What every part of the loop is given: the ports, the workers, the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numavm_agent.ports import Api, Clock, EventType, HostReader, Hypervisor, Kubelet, Regarding
from numavm_agent.reconcile.jobs import JobOutcome, Jobs
from numavm_agent.reconcile.live_jobs import LiveJobs
from numavm_agent.reconcile.rehome_jobs import RehomeJobs
from numavm_agent.reconcile.transitions import timestamp
from numavm_agent.reconcile.workers import Workers
from numavm_api.killpoints import KillSwitch
from numavm_api.numavm import KIND


@dataclass(frozen=True, slots=True)
class Tools:
    """The agent's means."""

    node: str
    version: str
    """The agent's own."""
    hypervisor: Hypervisor
    api: Api
    reader: HostReader
    kubelet: Kubelet
    clock: Clock
    kill: KillSwitch
    jobs: Jobs
    live: LiveJobs
    rehome: RehomeJobs
    workers: Workers[JobOutcome]
    guest_log_directory: str
    log: Any
    """A structlog logger; its types are its own affair."""

    def timestamp(self) -> str:
        """Return the time now as Kubernetes writes it."""
        return timestamp(self.clock.now())

    def tell(
        self, vm: tuple[str, str, str], kind: EventType, reason: str, action: str, note: str
    ) -> None:
        """Post an event about a NumaVM, given as namespace, name and uid, and log it."""
        namespace, name, uid = vm
        self.log.info("told", numavm=f"{namespace}/{name}", uid=uid, reason=reason, note=note)
        self.api.post_event(Regarding(KIND, namespace, name, uid), kind, reason, action, note)
