"""The port `Api` on the real API server: documents to values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from numavm_agent.errors import ApiConflict
from numavm_agent.kube.events import EventRecorder
from numavm_agent.kube.transport import ContentType, Document, NotFound, Transport
from numavm_agent.ports import EventType, HostObject, Regarding, UnreadableVm, VmObject
from numavm_api.base import API_VERSION
from numavm_api.numahost import (
    KIND as HOST_KIND,
)
from numavm_api.numahost import (
    LEASE_HOST_VERSION_ANNOTATION,
    LEASE_NAMESPACE,
    LEASE_PREFIX,
    LEASE_SECONDS,
    NumaHostSpec,
    NumaHostStatus,
)
from numavm_api.numahost import PLURAL as HOSTS
from numavm_api.numavm import KIND as VM_KIND
from numavm_api.numavm import PLURAL as VMS
from numavm_api.numavm import NumaVMSpec
from numavm_api.vm_status import NumaVMStatus

FIELD_MANAGER: Final = "numavm-agent"
_GROUP_PATH: Final = f"/apis/{API_VERSION}"
_LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases"
_APPLY: Final = {"fieldManager": FIELD_MANAGER, "force": "true"}


class KubeApi:
    """The API server as one node's agent uses it."""

    def __init__(self, transport: Transport, node: str, events: EventRecorder) -> None:
        self._transport = transport
        self._node = node
        self._events = events
        self._lease: Document | None = None
        self._read: dict[str, VmObject | UnreadableVm] = {}

    def list_vms(self) -> tuple[VmObject | UnreadableVm, ...]:
        """Return every NumaVM whose `status.nodeName` is this node, by the server's own word."""
        answer = self._transport.request(
            "GET",
            f"{_GROUP_PATH}/{VMS}",
            query={"fieldSelector": f"status.nodeName={self._node}"},
        )
        before = self._read
        self._read = {
            _key(item): before.get(_key(item)) or read_vm(item) for item in answer["items"]
        }
        return tuple(self._read.values())

    def get_vm(self, namespace: str, name: str) -> VmObject | UnreadableVm | None:
        """Return a NumaVM wherever it is placed; None: the server knows none of that name."""
        try:
            return read_vm(self._transport.request("GET", _vm_path(namespace, name)))
        except NotFound:
            return None

    def apply_vm_status(self, vm: VmObject, status: Mapping[str, Any]) -> Mapping[str, Any]:
        """Apply the agent's whole part of a NumaVM's status; the uid makes sure that it is still this VM.

        Raises:
            ApiConflict: the VM is no longer this node's, or another VM has its name.
        """
        body = {
            "apiVersion": API_VERSION,
            "kind": VM_KIND,
            "metadata": {"namespace": vm.namespace, "name": vm.name, "uid": vm.uid},
            "status": dict(status),
        }
        path = f"{_vm_path(vm.namespace, vm.name)}/status"
        try:
            answer = self._apply(path, body)
        except NotFound as error:
            raise ApiConflict(str(error)) from error
        stored: Mapping[str, Any] = answer.get("status", {})
        return stored

    def get_host(self) -> HostObject:
        """Return this node's NumaHost; create it where there is none."""
        path = f"{_GROUP_PATH}/{HOSTS}"
        try:
            return read_host(self._transport.request("GET", f"{path}/{self._node}"))
        except NotFound:
            body = {
                "apiVersion": API_VERSION,
                "kind": HOST_KIND,
                "metadata": {"name": self._node},
            }
            return read_host(self._transport.request("POST", path, body=body))

    def apply_host_status(self, status: Mapping[str, Any]) -> HostObject:
        """Apply the whole status of this node's NumaHost, and return what the server then has."""
        body = {
            "apiVersion": API_VERSION,
            "kind": HOST_KIND,
            "metadata": {"name": self._node},
            "status": dict(status),
        }
        return read_host(self._apply(f"{_GROUP_PATH}/{HOSTS}/{self._node}/status", body))

    def renew_lease(self, host_resource_version: str) -> None:
        """Say that this node's agent lives, and which NumaHost version it has just found true.

        A Lease that was not there yet is made and renewed at once: the operator counts a host only after it saw its
        Lease change, and a new host need not wait for the next renewal.
        A conflict is read and tried once more: after a restore the Lease on the server is an older one.
        """
        try:
            self._write_lease(host_resource_version)
        except (ApiConflict, NotFound):
            self._lease = None
            self._write_lease(host_resource_version)

    def post_event(
        self, regarding: Regarding, kind: EventType, reason: str, action: str, note: str
    ) -> None:
        """Tell people; returns at once."""
        self._events.post(regarding, kind, reason, action, note)

    def _write_lease(self, host_resource_version: str) -> None:
        name = f"{LEASE_PREFIX}{self._node}"
        if self._lease is None:
            try:
                self._lease = self._transport.request("GET", f"{_LEASES}/{name}")
            except NotFound:
                body = self._lease_body({"name": name}, host_resource_version)
                self._lease = self._transport.request("POST", _LEASES, body=body)
        metadata = {
            "name": name,
            "resourceVersion": self._lease["metadata"]["resourceVersion"],
        }
        body = self._lease_body(metadata, host_resource_version)
        self._lease = self._transport.request("PUT", f"{_LEASES}/{name}", body=body)

    def _lease_body(self, metadata: Document, host_resource_version: str) -> Document:
        renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        annotations = {LEASE_HOST_VERSION_ANNOTATION: host_resource_version}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {**metadata, "annotations": annotations},
            "spec": {
                "holderIdentity": self._node,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": renewed,
            },
        }

    def _apply(self, path: str, body: Document) -> Document:
        return self._transport.request(
            "PATCH", path, query=_APPLY, body=body, content_type=ContentType.APPLY_PATCH
        )


def read_vm(document: Document) -> VmObject | UnreadableVm:
    """Return a NumaVM's document as a value; what this version cannot read is said to be so."""
    metadata = document["metadata"]
    raw_status = document.get("status") or {}
    try:
        spec = NumaVMSpec.model_validate(document.get("spec"))
        status = NumaVMStatus.model_validate(raw_status)
    except ValidationError as error:
        return UnreadableVm(metadata["namespace"], metadata["name"], metadata["uid"], _short(error))
    return VmObject(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata.get("generation", 0)),
        resource_version=metadata["resourceVersion"],
        deleting="deletionTimestamp" in metadata,
        spec=spec,
        status=status,
        raw_status=raw_status,
    )


def read_host(document: Document) -> HostObject:
    """Return a NumaHost's document as a value; a spec this version cannot read hands out nothing new.

    A status that cannot be read is a neighbouring version's, or none: the agent writes it anew.
    """
    metadata = document["metadata"]
    raw_status = document.get("status") or {}
    return HostObject(
        uid=metadata["uid"],
        generation=int(metadata.get("generation", 0)),
        resource_version=metadata["resourceVersion"],
        spec=_host_spec(document.get("spec") or {}),
        status=_host_status(raw_status),
        raw_status=raw_status,
    )


def _host_spec(raw: Document) -> NumaHostSpec:
    try:
        return NumaHostSpec.model_validate(raw)
    except ValidationError:
        return NumaHostSpec(unschedulable=True, fenced=bool(raw.get("fenced", False)))


def _host_status(raw: Document) -> NumaHostStatus:
    try:
        return NumaHostStatus.model_validate(raw)
    except ValidationError:
        return NumaHostStatus()


def _vm_path(namespace: str, name: str) -> str:
    return f"{_GROUP_PATH}/namespaces/{namespace}/{VMS}/{name}"


def _key(document: Document) -> str:
    metadata = document["metadata"]
    return f"{metadata['uid']}/{metadata['resourceVersion']}"


def _short(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
