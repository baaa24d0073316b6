"""An agent without a host.

It keeps its side of the contract on the real API server, with domains that exist only in memory.

For tests of the operator. It admits, refuses, starts, stops and reports as the agent does, in the
same order: its NumaHost first, then the VM's status, then its Lease. Its host's CPUs, what others
took of them, and its failures are the test's to choose.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kubernetes import client

from numavm_api.base import API_VERSION, GROUP, VERSION
from numavm_api.conditions import (
    ClaimRefusalReason,
    Condition,
    ConditionStatus,
    HostConditionType,
    Reason,
)
from numavm_api.cpuset import CpuSet
from numavm_api.lifecycle import Wanted, wants_to_run
from numavm_api.numahost import (
    LEASE_HOST_VERSION_ANNOTATION,
    LEASE_NAMESPACE,
    LEASE_PREFIX,
    Capabilities,
    CellDistance,
    HeldClaim,
    HostCell,
    HostCpu,
    HostMemory,
    NumaHostSpec,
    NumaHostStatus,
    PciDevice,
)
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.pools import effective_pools
from numavm_api.quantity import GIBIBYTE, Bytes
from numavm_api.request_hash import request_hash
from numavm_api.vm_status import (
    DomainRefusal,
    DomainState,
    DomainStatus,
    NumaVMStatus,
    ShutoffReason,
)

MANAGER = "numavm-agent"
_APPLY = "application/apply-patch+yaml"


def stamp() -> str:
    """Return the time as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class FakeDomain:
    """A domain that runs, or has ended."""

    uid: str
    namespace: str
    name: str
    placement: Placement
    restart_token: str | None
    started_at: str
    state: DomainState = DomainState.RUNNING
    reason: ShutoffReason | None = None


@dataclass
class Machine:
    """What the host has: `cells` cells of `cpus_per_cell` CPUs without SMT."""

    cells: int = 2
    cpus_per_cell: int = 4
    memory_per_cell: Bytes = field(default_factory=lambda: Bytes(8 * GIBIBYTE))
    devices: tuple[PciDevice, ...] = ()

    def report(self) -> list[HostCell]:
        """Return its cells as NumaHost reports them."""
        return [self._cell(number) for number in range(self.cells)]

    def _cell(self, number: int) -> HostCell:
        first = number * self.cpus_per_cell
        cpus = [
            HostCpu(id=cpu, siblings=CpuSet.of(cpu), socket=number, last_level_cache=number)
            for cpu in range(first, first + self.cpus_per_cell)
        ]
        distances = [
            CellDistance(cell=other, value=10 if other == number else 20)
            for other in range(self.cells)
        ]
        memory = HostMemory(
            total=self.memory_per_cell, free=self.memory_per_cell, allocatable=self.memory_per_cell
        )
        return HostCell(id=number, cpus=cpus, memory=memory, distances=distances)


class FakeAgent:
    """The agent of one host. `start` and `stop` its loop; the rest may be called while it runs."""

    def __init__(
        self,
        api_client: client.ApiClient,
        name: str,
        *,
        machine: Machine | None = None,
        beat_seconds: float = 0.5,
        lease_seconds: int = 8,
    ) -> None:
        """Make the agent of host `name`.

        `api_client` has its credentials and is used by nobody else meanwhile.
        """
        self.name = name
        self.machine = machine or Machine()
        self.domains: dict[str, FakeDomain] = {}
        self.taken = CpuSet()
        """CPUs that someone took behind NumaVM's back, not yet reported."""
        self.reports_taken = True
        """Whether they show up in the report."""
        self.ever_started: list[tuple[str, str]] = []
        """(uid, placement id) of every start."""
        self.refused: list[DomainRefusal] = []
        self.boot_id = str(uuid.uuid4())
        self._began = stamp()
        self.highest_epoch = 0
        self.errors: list[str] = []
        """What went wrong, to print when a test fails."""
        self._custom = client.CustomObjectsApi(api_client)
        self._beat_seconds = beat_seconds
        self._lease_seconds = lease_seconds
        self._lock = threading.RLock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen_taken = CpuSet()

    def start(self) -> None:
        """Begin, or go on after `stop`, with the domains that are there."""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._end,), name=self.name)
        self._thread.start()

    def stop(self) -> None:
        """Die. Domains go on."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeAgent]:
        """Run while the context is open."""
        self.start()
        try:
            yield self
        finally:
            self.stop()
            print(f"{self.name}: {len(self.errors)} errors, the last: {self.errors[-1:]}")  # noqa: T201 - pytest shows it where the test failed

    def power_cycle(self) -> None:
        """Lose every domain, and come up with another boot id. Only while stopped."""
        self.domains.clear()
        self.boot_id = str(uuid.uuid4())

    def end_domain(self, name: str, reason: ShutoffReason) -> None:
        """Have the domain of the VM of this name end by itself."""
        with self._lock:
            for domain in self.domains.values():
                if domain.name == name:
                    domain.state, domain.reason = DomainState.SHUTOFF, reason

    def running_uids(self) -> set[str]:
        """Return the uids of the domains that run."""
        with self._lock:
            return {
                uid for uid, domain in self.domains.items() if domain.state is DomainState.RUNNING
            }

    def _run(self, end: threading.Event) -> None:
        while not end.is_set():
            try:
                with self._lock:
                    self.step()
            except client.ApiException as error:
                self.errors.append(f"{error.status} {error.body}")
            except Exception as error:  # noqa: BLE001 - an API server that is down, in any of urllib3's words
                self.errors.append(repr(error))
            end.wait(self._beat_seconds / 5)

    def step(self) -> None:
        """Look once at everything, act, and report: host, then VMs, then Lease."""
        listed = self._custom.list_cluster_custom_object(
            GROUP, VERSION, "numavms", field_selector=f"status.nodeName={self.name}"
        )["items"]
        vms = {vm["metadata"]["uid"]: vm for vm in listed}
        after: list[Callable[[], None]] = []
        for vm in vms.values():
            self._look_at(vm, after)
        version = self._report_host({uid for uid in self.domains if uid not in vms})
        for write in after:
            write()
        self._renew(version)

    def _look_at(self, vm: dict[str, Any], after: list[Callable[[], None]]) -> None:
        status = NumaVMStatus.model_validate(vm.get("status") or {})
        spec = NumaVMSpec.model_validate(vm["spec"])
        if status.placement is None:
            return
        deleting = "deletionTimestamp" in vm["metadata"]
        wanted = wants_to_run(spec, self._domain_status(vm, status), deleting=deleting)
        self.highest_epoch = max(self.highest_epoch, status.placement.epoch)
        domain = self.domains.get(vm["metadata"]["uid"])
        if not wanted.runs:
            self._release(vm, status, wanted, after)
        elif domain is not None and self._amends(status.placement, domain):
            self._change(vm, status.placement, domain, after)
        elif domain is None or domain.placement.id != status.placement.id:
            self._admit(vm, spec, status, after)
        elif domain.state is not DomainState.RUNNING or domain.restart_token != spec.restart_token:
            self._restart(vm, spec, status, domain, after)
        else:
            after.append(lambda: self._tell_running(vm, domain))

    def _domain_status(self, vm: dict[str, Any], status: NumaVMStatus) -> DomainStatus | None:
        """Return what this agent would report now: its own domain goes before the last report."""
        domain = self.domains.get(vm["metadata"]["uid"])
        if domain is None:
            return status.domain
        return DomainStatus(
            node_name=self.name,
            state=domain.state,
            shutoff_reason=domain.reason,
            restart_token=domain.restart_token,
            placement_id=domain.placement.id,
        )

    def _release(
        self,
        vm: dict[str, Any],
        status: NumaVMStatus,
        wanted: Wanted,
        after: list[Callable[[], None]],
    ) -> None:
        domain = self.domains.pop(vm["metadata"]["uid"], None)
        ended = domain.reason if domain is not None else None
        reason = ended if wanted is Wanted.FINISHED and ended else ShutoffReason.STOPPED
        self._release_with(vm, status, domain, reason, after)

    def _release_with(
        self,
        vm: dict[str, Any],
        status: NumaVMStatus,
        domain: FakeDomain | None,
        reason: ShutoffReason,
        after: list[Callable[[], None]],
    ) -> None:
        if status.placement is None:
            return
        told = DomainStatus(
            node_name=self.name,
            state=DomainState.SHUTOFF,
            shutoff_reason=reason,
            released=status.placement.id,
            observed_generation=vm["metadata"]["generation"],
            started_at=domain.started_at if domain is not None else None,
            restart_token=domain.restart_token if domain is not None else None,
        )
        after.append(lambda: self._tell(vm, told, ("False", Reason.NOT_RUNNING)))

    def _admit(
        self,
        vm: dict[str, Any],
        spec: NumaVMSpec,
        status: NumaVMStatus,
        after: list[Callable[[], None]],
    ) -> None:
        placement = status.placement
        if placement is None:
            return
        refusal = self._judge(placement, spec, vm["metadata"]["uid"])
        if refusal is not None:
            reason, message = refusal
            self._seen_taken = self.taken if self.reports_taken else CpuSet()
            refused = DomainRefusal(
                placement_id=placement.id, reason=reason, message=message, time=stamp()
            )
            self.refused.append(refused)
            told = DomainStatus(
                node_name=self.name,
                state=DomainState.SHUTOFF,
                refused=refused,
                released=placement.id,
                observed_generation=vm["metadata"]["generation"],
            )
            after.append(lambda: self._tell(vm, told, ("False", Reason.CLAIM_REFUSED)))
            return
        domain = FakeDomain(
            uid=vm["metadata"]["uid"],
            namespace=vm["metadata"]["namespace"],
            name=vm["metadata"]["name"],
            placement=placement,
            restart_token=spec.restart_token,
            started_at=stamp(),
        )
        self.domains[domain.uid] = domain
        self.ever_started.append((domain.uid, placement.id))
        after.append(lambda: self._tell_running(vm, domain))

    def _amends(self, placement: Placement, domain: FakeDomain) -> bool:
        return placement.previous is not None and placement.previous.id == domain.placement.id

    def _change(
        self,
        vm: dict[str, Any],
        placement: Placement,
        domain: FakeDomain,
        after: list[Callable[[], None]],
    ) -> None:
        """Take over the claim that amends the domain's, which goes on; not where a CPU of it is another's."""
        overlap = self._overlap(placement, domain.uid)
        if overlap:
            self.errors.append(f"{domain.name}: CPU {overlap} of an amended claim is taken")
        else:
            domain.placement = placement.alone
        after.append(lambda: self._tell_running(vm, domain))

    def _overlap(self, placement: Placement, uid: str) -> CpuSet:
        held = CpuSet.union_of(
            domain.placement.dedicated_cpus for domain in self.domains.values() if domain.uid != uid
        )
        return placement.dedicated_cpus & (held | self.taken)

    def _judge(
        self, placement: Placement, spec: NumaVMSpec, uid: str
    ) -> tuple[ClaimRefusalReason, str] | None:
        if placement.epoch < self.highest_epoch:
            return ClaimRefusalReason.STALE_EPOCH, f"epoch {placement.epoch} < {self.highest_epoch}"
        if placement.request_hash != request_hash(spec):
            return ClaimRefusalReason.SPEC_CHANGED, "the spec has changed since"
        overlap = self._overlap(placement, uid)
        if overlap:
            return ClaimRefusalReason.CPU_TAKEN, f"CPU {overlap} of {self.name} is taken"
        return None

    def _restart(
        self,
        vm: dict[str, Any],
        spec: NumaVMSpec,
        status: NumaVMStatus,
        domain: FakeDomain,
        after: list[Callable[[], None]],
    ) -> None:
        if domain.placement.request_hash != request_hash(spec):
            del self.domains[domain.uid]
            self._release_with(vm, status, domain, ShutoffReason.STOPPED, after)
            return
        domain.state, domain.reason = DomainState.RUNNING, None
        domain.restart_token, domain.started_at = spec.restart_token, stamp()
        self.ever_started.append((domain.uid, domain.placement.id))
        after.append(lambda: self._tell_running(vm, domain))

    def _tell_running(self, vm: dict[str, Any], domain: FakeDomain) -> None:
        told = DomainStatus(
            node_name=self.name,
            uuid=domain.uid,
            state=domain.state,
            type="KVM",
            machine="pc-q35-7.2",
            placement_id=domain.placement.id,
            observed_generation=vm["metadata"]["generation"],
            restart_token=domain.restart_token,
            started_at=domain.started_at,
            boot_id=self.boot_id,
        )
        self._tell(vm, told, ("True", Reason.RUNNING))

    def _tell(
        self, vm: dict[str, Any], told: DomainStatus, running: tuple[ConditionStatus, Reason]
    ) -> None:
        metadata = vm["metadata"]
        status, reason = running
        condition = Condition(
            type="Running",
            status=status,
            reason=reason,
            message="",
            last_transition_time=told.started_at or stamp(),
            observed_generation=metadata["generation"],
        )
        part = {"domain": told.to_api(), "conditions": [condition.to_api()]}
        stated = vm.get("status") or {}
        mine = [one for one in stated.get("conditions", []) if one["type"] == condition.type]
        if {"domain": stated.get("domain"), "conditions": mine} == part:
            return
        body = {
            "apiVersion": API_VERSION,
            "kind": "NumaVM",
            "metadata": {
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "status": part,
        }
        self._custom.patch_namespaced_custom_object_status(
            GROUP,
            VERSION,
            metadata["namespace"],
            "numavms",
            metadata["name"],
            body,
            field_manager=MANAGER,
            force=True,
            _content_type=_APPLY,
        )

    def _report_host(self, unlisted: set[str]) -> str:
        """Bring the NumaHost up to date where it is not; return its resourceVersion."""
        known = self._get_host()
        status = self._host_status(
            NumaHostSpec.model_validate(known.get("spec") or {}), self._orphans(unlisted)
        ).to_api()
        if known.get("status") == status:
            return str(known["metadata"]["resourceVersion"])
        body = {
            "apiVersion": API_VERSION,
            "kind": "NumaHost",
            "metadata": {"name": self.name},
            "status": status,
        }
        written = self._custom.patch_cluster_custom_object_status(
            GROUP,
            VERSION,
            "numahosts",
            self.name,
            body,
            field_manager=MANAGER,
            force=True,
            _content_type=_APPLY,
        )
        return str(written["metadata"]["resourceVersion"])

    def _get_host(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._custom.get_cluster_custom_object(
                GROUP, VERSION, "numahosts", self.name
            )
        except client.ApiException as error:
            if error.status != 404:
                raise
            body = {"apiVersion": API_VERSION, "kind": "NumaHost", "metadata": {"name": self.name}}
            found = self._custom.create_cluster_custom_object(GROUP, VERSION, "numahosts", body)
        return found

    def _orphans(self, unlisted: set[str]) -> set[str]:
        """Return which domains, of those whose VMs are not listed as ours, have no VM at all."""
        return {uid for uid in unlisted if not self._exists(self.domains[uid])}

    def _exists(self, domain: FakeDomain) -> bool:
        try:
            found = self._custom.get_namespaced_custom_object(
                GROUP, VERSION, domain.namespace, "numavms", domain.name
            )
        except client.ApiException as error:
            if error.status != 404:
                raise
            return False
        return bool(found["metadata"]["uid"] == domain.uid)

    def _host_status(self, spec: NumaHostSpec, orphans: set[str]) -> NumaHostStatus:
        cells = self.machine.report()
        claims = [
            HeldClaim(
                uid=domain.uid,
                namespace=domain.namespace,
                name=domain.name,
                orphan=domain.uid in orphans,
                placement=domain.placement,
            )
            for domain in sorted(self.domains.values(), key=lambda one: one.uid)
        ]
        pools = effective_pools(spec, cells, [claim.placement for claim in claims])
        if self._seen_taken:
            pools = pools.model_copy(
                update={
                    "foreign": self._seen_taken,
                    "dedicated": pools.dedicated - self._seen_taken,
                    "shared": pools.shared - self._seen_taken,
                }
            )
        capabilities = Capabilities(
            kvm=True,
            emulation_allowed=False,
            libvirt_version="9.0.0",
            qemu_version="7.2.0",
            machine_types=["pc-q35-7.2"],
            max_vcpus=255,
        )
        ready = Condition(
            type=HostConditionType.READY,
            status="True",
            reason=Reason.AGENT_READY,
            message="",
            last_transition_time=self._began,
        )
        return NumaHostStatus(
            conditions=[ready],
            observed_generation=1,
            boot_id=self.boot_id,
            highest_epoch=self.highest_epoch,
            capabilities=capabilities,
            cells=cells,
            pools=pools,
            claims=claims,
            pci_devices=list(self.machine.devices),
            permitted=spec.permitted,
        )

    def _renew(self, host_version: str) -> None:
        path = (LEASE_NAMESPACE, "leases")
        name = f"{LEASE_PREFIX}{self.name}"
        group = ("coordination.k8s.io", "v1")
        now = datetime.now(UTC)
        spec = {
            "holderIdentity": self.name,
            "leaseDurationSeconds": self._lease_seconds,
            "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        try:
            lease = self._custom.get_namespaced_custom_object(*group, *path, name)
        except client.ApiException as error:
            if error.status != 404:
                raise
            lease = None
        metadata = {
            "name": name,
            "namespace": LEASE_NAMESPACE,
            "annotations": {LEASE_HOST_VERSION_ANNOTATION: host_version},
        }
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": spec,
        }
        if lease is None:
            self._custom.create_namespaced_custom_object(*group, *path, body)
            return
        last = datetime.fromisoformat(lease["spec"]["renewTime"])
        stale = lease["metadata"].get("annotations", {}).get(LEASE_HOST_VERSION_ANNOTATION)
        if (now - last).total_seconds() < self._beat_seconds and stale == host_version:
            return
        metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
        self._custom.replace_namespaced_custom_object(*group, *path, name, body)
