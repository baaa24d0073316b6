"""A node for tests: a libvirtd of its own, an agent as a process, and claims written by hand as the operator would."""

import json
import sys
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client

from numavm_api.cpuset import CpuSet
from numavm_api.effective import effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import CpuPlacement, PlacedCell, Placement
from numavm_api.quantity import MEBIBYTE, Bytes
from numavm_api.request_hash import request_hash
from numavm_lab.controlplane.accounts import AGENT
from numavm_lab.controlplane.credentials import write_renewable_kubeconfig
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.guest import witness_images
from support.cluster import Callers
from support.private_libvirt import PrivateLibvirt
from support.wait import wait_for

GROUP, VERSION = "numavm.io", "v1alpha1"
_APPLY = "application/apply-patch+yaml"
OVERHEAD = Bytes(64 * MEBIBYTE)

Document = dict[str, Any]
CPU_1 = CpuSet.of(1)
"""The only CPU of the dedicated pool where this machine has two."""


@dataclass
class AgentProcess:
    """The agent of one node, started and killed at will."""

    plane: ControlPlane
    libvirt: PrivateLibvirt
    node: str
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, **environment: str) -> None:
        """Start the agent; what it wrote before stays in its log."""
        credentials = self.libvirt.directory / "credentials"
        credentials.mkdir(exist_ok=True)
        kubeconfig = write_renewable_kubeconfig(self.plane, AGENT, credentials, node=self.node)
        argv = [sys.executable, "-m", "numavm_agent.main"]
        variables = {
            "NUMAVM_AGENT_NODE_NAME": self.node,
            "NUMAVM_AGENT_KUBECONFIG": str(kubeconfig),
            "NUMAVM_AGENT_PERIOD_SECONDS": "1",
            "NUMAVM_AGENT_LOG_FORMAT": "json",
            "NUMAVM_AGENT_KVM_PROBE_SECONDS": "5",
            **self.environment,
            **environment,
        }
        self.libvirt.spawn("agent", argv, variables)

    def stop(self) -> None:
        """End it by SIGTERM."""
        self.libvirt.processes.stop("agent", grace_seconds=15)

    def is_alive(self) -> bool:
        """Say whether it runs."""
        return self.libvirt.processes.is_alive("agent")

    def wait_dead(self) -> None:
        """Wait until it has killed itself."""
        wait_for(
            self.is_alive,
            until=lambda alive: not alive,
            deadline_seconds=60,
            describe=f"the agent dies; log:\n{self.log()}",
        )

    def log(self, lines: int = 40) -> str:
        """Return the end of its log."""
        return self.libvirt.processes.tail("agent", lines)


@dataclass
class Node:
    """What a test works with."""

    name: str
    plane: ControlPlane
    callers: Callers
    libvirt: PrivateLibvirt
    agent: AgentProcess

    def custom(self, api: client.ApiClient | None = None) -> client.CustomObjectsApi:
        """Return the API for NumaVMs, as administrator unless said otherwise."""
        return client.CustomObjectsApi(api or self.callers.admin())

    def host(self) -> Document:
        """Return the NumaHost; an empty one where there is none."""
        try:
            return self.custom().get_cluster_custom_object(GROUP, VERSION, "numahosts", self.name)
        except client.ApiException as error:
            if error.status == 404:
                return {}
            raise

    def host_status(self) -> Document:
        """Return the NumaHost's status."""
        return self.host().get("status", {})

    def patch_host_spec(self, spec: Document) -> None:
        """Change the NumaHost's spec as the administrator."""
        self.custom().patch_cluster_custom_object(
            GROUP,
            VERSION,
            "numahosts",
            self.name,
            {"spec": spec},
            _content_type="application/merge-patch+json",
        )

    def wait_ready(self, deadline_seconds: float = 240) -> Document:
        """Wait until the NumaHost says that it is ready."""
        return wait_for(
            self.host_status,
            until=lambda status: condition(status, "Ready").get("status") == "True",
            deadline_seconds=deadline_seconds,
            describe=f"NumaHost {self.name} is Ready; agent's log:\n{self.agent.log()}",
        )


@dataclass
class Vm:
    """A NumaVM of a test."""

    node: Node
    namespace: str
    name: str

    def create(self, spec: Document) -> None:
        """Create it."""
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "NumaVM",
            "metadata": {"name": self.name, "finalizers": ["numavm.io/teardown"]},
            "spec": spec,
        }
        self._api().create_namespaced_custom_object(GROUP, VERSION, self.namespace, "numavms", body)

    def patch(self, spec: Document) -> None:
        """Change its spec."""
        self._api().patch_namespaced_custom_object(
            GROUP,
            VERSION,
            self.namespace,
            "numavms",
            self.name,
            {"spec": spec},
            _content_type="application/merge-patch+json",
        )

    def delete(self) -> None:
        """Delete it; the finalizer holds it."""
        self._api().delete_namespaced_custom_object(
            GROUP, VERSION, self.namespace, "numavms", self.name
        )

    def drop_finalizer(self) -> None:
        """Let it go, as the operator does once nothing is held."""
        body = [{"op": "remove", "path": "/metadata/finalizers"}]
        self.node.custom(self.node.callers.operator()).patch_namespaced_custom_object(
            GROUP,
            VERSION,
            self.namespace,
            "numavms",
            self.name,
            body,
            _content_type="application/json-patch+json",
        )

    def start(self, pcpus: CpuSet = CPU_1, **claim: Any) -> Placement:
        """Write a claim for it and wait until it runs, verified."""
        placement = place(self.spec(), pcpus=pcpus, **claim)
        self.claim(placement)
        self.wait("NumaAligned", "True")
        return placement

    def remove(self) -> None:
        """Delete it, and play the operator until it is gone; harmless where it is gone already."""
        try:
            self.delete()
            status = self.status()
        except client.ApiException as error:
            if error.status == 404:
                return
            raise
        claim = status.get("placement")
        if claim is not None and status.get("nodeName") == self.node.name:
            self.wait_domain("released", released=claim["id"])
        self.claim(None)
        self.drop_finalizer()

    def qemu(self) -> int | None:
        """Return its QEMU process; None: there is none."""
        prefix = f"{self.namespace}_{self.name}_"
        found = self.node.libvirt.qemu_pids().items()
        return next((pid for name, pid in found if name.startswith(prefix)), None)

    def get(self) -> Document:
        """Return it."""
        return self._api().get_namespaced_custom_object(
            GROUP, VERSION, self.namespace, "numavms", self.name
        )

    def status(self) -> Document:
        """Return its status."""
        return self.get().get("status", {})

    def domain(self) -> Document:
        """Return what the agent says of its domain."""
        return self.status().get("domain", {})

    def condition(self, kind: str) -> Document:
        """Return one of its conditions."""
        return condition(self.status(), kind)

    def uid(self) -> str:
        """Return its uid."""
        return str(self.get()["metadata"]["uid"])

    def spec(self) -> NumaVMSpec:
        """Return its spec as the API server stored it."""
        return NumaVMSpec.model_validate(self.get()["spec"])

    def claim(self, placement: Placement | None, node: str | None = None) -> None:
        """Write nodeName and placement, or clear both, as the operator."""
        status: Document = {}
        if placement is not None:
            status = {"nodeName": node or self.node.name, "placement": placement.to_api()}
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "NumaVM",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "status": status,
        }
        api = self.node.custom(self.node.callers.operator())
        api.patch_namespaced_custom_object_status(
            GROUP,
            VERSION,
            self.namespace,
            "numavms",
            self.name,
            body,
            field_manager="numavm-operator-claim",
            force=True,
            _content_type=_APPLY,
        )

    def wait(
        self, kind: str, status: str, reason: str | None = None, deadline_seconds: float = 60
    ) -> Document:
        """Wait for a condition."""
        return wait_for(
            self.status,
            until=lambda seen: _is(condition(seen, kind), status, reason),
            deadline_seconds=deadline_seconds,
            describe=f"{kind}={status} {reason or ''}; agent's log:\n{self.node.agent.log()}\n",
        )

    def wait_domain(self, describe: str, deadline_seconds: float = 60, **fields: str) -> Document:
        """Wait for fields of `status.domain`."""
        return wait_for(
            self.domain,
            until=lambda seen: all(seen.get(key) == value for key, value in fields.items()),
            deadline_seconds=deadline_seconds,
            describe=f"{describe} {fields}; agent's log:\n{self.node.agent.log()}\n",
        )

    def events(self) -> list[str]:
        """Return the reasons of its events, oldest first."""
        events = client.EventsV1Api(self.node.callers.admin())
        found = events.list_namespaced_event(self.namespace).items
        mine = [one for one in found if one.regarding.name == self.name]
        return [one.reason for one in sorted(mine, key=lambda one: one.event_time)]

    def _api(self) -> client.CustomObjectsApi:
        return self.node.custom()


def condition(status: Document, kind: str) -> Document:
    """Return a condition of a status; an empty one where there is none."""
    found = [one for one in status.get("conditions", ()) if one["type"] == kind]
    return found[0] if found else {}


def _is(found: Document, status: str, reason: str | None) -> bool:
    return found.get("status") == status and (reason is None or found.get("reason") == reason)


def place(
    spec: NumaVMSpec,
    *,
    claim_id: str = "claim-1",
    epoch: int = 1,
    pcpus: CpuSet = CPU_1,
    host_cell: int = 0,
) -> Placement:
    """Return a claim on one host cell: every guest cell there, dedicated vCPUs on `pcpus` in order."""
    vm = effective(spec)
    free = iter(pcpus)
    cells = [
        PlacedCell(
            id=cell.id,
            host_cells=CpuSet.of(host_cell),
            mode=cell.mode,
            memory=cell.memory,
            page_size=cell.page_size,
            vcpus=cell.vcpus,
            pcpus=[CpuSet.of(next(free)) for _ in cell.vcpus] if vm.dedicated else [],
        )
        for cell in vm.cells
    ]
    return Placement(
        id=claim_id,
        epoch=epoch,
        request_hash=request_hash(spec),
        cpu_placement=CpuPlacement.DEDICATED if vm.dedicated else CpuPlacement.SHARED,
        summary=",".join(f"{cell.id}->{host_cell}" for cell in vm.cells),
        cells=cells,
        dedicated_cpus=pcpus,
        overhead=OVERHEAD,
        overhead_cell=host_cell,
    )


def small_spec(libvirt: PrivateLibvirt, **changes: Any) -> Document:
    """Return the spec of a small guest with dedicated CPUs that boots the witness images."""
    kernel, initrd = (libvirt.add_image(image) for image in witness_images())
    spec: Document = {
        "terminationGracePeriodSeconds": 1,
        "domain": {
            "type": "TCG",
            "firmware": {
                "kernelBoot": {
                    "kernel": kernel,
                    "initrd": initrd,
                    "args": "console=ttyS0 numavm.report=5",
                }
            },
            "cpu": {"dedicatedCpuPlacement": True},
            "memory": {"guest": "128Mi"},
        },
    }
    return {**spec, **json.loads(json.dumps(changes))}
