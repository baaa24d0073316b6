"""NumaVMs and NumaHosts on the API server: reads past the cache, and the operator's writes.

Owns the shape of what is sent. Two field managers, each always whole, because a server-side apply
that leaves a field out gives it up, and the field vanishes: `numavm-operator-claim` for what is
held, `numavm-operator-status` for what is said about it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from numavm_api.base import API_VERSION
from numavm_api.killpoints import KillPoint, KillSwitch
from numavm_api.numavm import FINALIZER, KIND
from numavm_api.placement import Placement
from numavm_api.vm_status import Refusal
from numavm_operator.kube.client import Json, KubeClient
from numavm_operator.kube.paths import numahost_path, numavm_path
from numavm_operator.objects import Host, Vm, VmKey, read_host, read_vm
from numavm_operator.reconcile.report import Report

CLAIM_MANAGER: Final = "numavm-operator-claim"
STATUS_MANAGER: Final = "numavm-operator-status"


@dataclass(frozen=True, slots=True)
class KubeReader:
    """Reads single objects."""

    client: KubeClient

    async def vm(self, key: VmKey) -> Vm:
        """Return a NumaVM as it is now."""
        return read_vm(await self.client.get(numavm_path(*key)))

    async def host(self, name: str) -> Host:
        """Return a NumaHost as it is now."""
        return read_host(await self.client.get(numahost_path(name)))


@dataclass(frozen=True, slots=True)
class KubeVmWriter:
    """Writes the operator's part of NumaVMs."""

    client: KubeClient
    kill_switch: KillSwitch

    async def claim(
        self,
        vm: Vm,
        *,
        node_name: str | None,
        placement: Placement | None,
        refusals: Iterable[Refusal],
    ) -> Vm:
        """Write node name, placement and refusals, if the VM is still as it was read."""
        status: Json = {}
        if node_name is not None and placement is not None:
            status["nodeName"] = node_name
            status["placement"] = placement.to_api()
        derived = derived_cells(vm, placement)
        if derived is not None:
            status["derivedCells"] = derived
        told = [refusal.to_api() for refusal in refusals]
        if told:
            status["refusals"] = told
        holds = placement is not None
        self.kill_switch.reach(KillPoint.BEFORE_CLAIM_WRITE if holds else KillPoint.BEFORE_RELEASE)
        body = _body(vm, status)
        body["metadata"]["resourceVersion"] = str(vm.resource_version)
        written = await self.client.apply(_status_path(vm), CLAIM_MANAGER, body)
        self.kill_switch.reach(KillPoint.AFTER_CLAIM_WRITE if holds else KillPoint.AFTER_RELEASE)
        return read_vm(written, vm)

    async def report(self, vm: Vm, report: Report) -> Vm:
        """Write the conditions and the summary."""
        status: Json = {
            "observedGeneration": report.observed_generation,
            "printableStatus": str(report.printable_status),
            "conditions": [condition.to_api() for condition in report.conditions],
        }
        if report.reserved_node_name is not None:
            status["reservedNodeName"] = report.reserved_node_name
        self.kill_switch.reach(KillPoint.BEFORE_STATUS_WRITE)
        written = await self.client.apply(_status_path(vm), STATUS_MANAGER, _body(vm, status))
        return read_vm(written, vm)

    async def add_finalizer(self, vm: Vm) -> Vm:
        """Put the finalizer on."""
        add: Json = {"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER}
        if not vm.finalizers:
            add = {"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}
        self.kill_switch.reach(KillPoint.BEFORE_FINALIZER)
        written = await self.client.json_patch(numavm_path(*vm.key), [_unchanged(vm), add])
        self.kill_switch.reach(KillPoint.AFTER_FINALIZER)
        return read_vm(written, vm)

    async def remove_finalizer(self, vm: Vm) -> Vm:
        """Take the finalizer off.

        With the last one the object goes, and is returned as it last was.
        """
        index = vm.finalizers.index(FINALIZER)
        remove: Json = {"op": "remove", "path": f"/metadata/finalizers/{index}"}
        self.kill_switch.reach(KillPoint.BEFORE_FINALIZER_REMOVAL)
        written = await self.client.json_patch(numavm_path(*vm.key), [_unchanged(vm), remove])
        return read_vm(written, vm)


def derived_cells(vm: Vm, placement: Placement | None) -> int | None:
    """Return how many guest cells a VM that derives them keeps from its first placement on; None: none."""
    numa = vm.spec.domain.cpu.numa if vm.spec else None
    if numa is None or numa.guest_mapping_passthrough is None:
        return None
    placed = len(placement.cells) if placement else None
    return numa.guest_mapping_passthrough.cells or vm.status.derived_cells or placed


def _unchanged(vm: Vm) -> Json:
    """Return the JSON patch test that the object is as it was read.

    A re-created one of the same name is not.
    """
    return {"op": "test", "path": "/metadata/resourceVersion", "value": str(vm.resource_version)}


def _body(vm: Vm, status: Json) -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"namespace": vm.key.namespace, "name": vm.key.name, "uid": vm.uid},
        "status": status,
    }


def _status_path(vm: Vm) -> str:
    return f"{numavm_path(*vm.key)}/status"
