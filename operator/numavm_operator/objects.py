"""What the operator knows of the API server's objects: small frozen values, read from their JSON.

Pure. `metadata.managedFields`, the greater part of many objects, is not kept. An object that cannot
be read does not vanish: a spec that makes no sense becomes violations, a status that cannot be read
says so, since it may hide a claim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from numavm_api.numahost import (
    LEASE_HOST_VERSION_ANNOTATION,
    LEASE_SECONDS,
    NumaHostSpec,
    NumaHostStatus,
)
from numavm_api.numavm import NumaVMSpec
from numavm_api.validation import validate
from numavm_api.vm_status import NumaVMStatus
from numavm_operator.frugal import frugal
from numavm_operator.placement import Taint

_SPECS_KEPT: Final = 2048
_LONGEST = 3.0 * LEASE_SECONDS
_DISPLAY_ONLY = (
    "printableStatus",
    "conditions",
    "numa",
    "memory",
    "currentCPUTopology",
    "operation",
)


class VmKey(NamedTuple):
    """Names a NumaVM."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Vm:
    """One NumaVM."""

    key: VmKey
    uid: str
    resource_version: int
    generation: int
    created: str
    deleting: bool
    finalizers: tuple[str, ...]
    spec: NumaVMSpec | None
    """None where it cannot be read; then there are violations."""
    violations: tuple[str, ...]
    """What is wrong with the spec, one sentence each."""
    status: NumaVMStatus
    unreadable: str | None = None
    """Why the status cannot be read; it may hide a claim."""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def accepted(self) -> NumaVMSpec | None:
        """The spec, if nothing is wrong with it."""
        return None if self.violations else self.spec


@dataclass(frozen=True, slots=True)
class Host:
    """One NumaHost."""

    name: str
    resource_version: int
    spec: NumaHostSpec
    status: NumaHostStatus
    unreadable: str | None = None
    """Why it cannot be read; nothing is placed on such a host."""


@dataclass(frozen=True, slots=True)
class Node:
    """One Kubernetes node."""

    name: str
    resource_version: int
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    cordoned: bool = False


@dataclass(frozen=True, slots=True)
class PriorityClass:
    """One class of scheduling.k8s.io/v1."""

    name: str
    resource_version: int
    value: int
    global_default: bool


@dataclass(frozen=True, slots=True)
class HostLease:
    """The Lease of one host."""

    name: str
    """Of the Lease."""
    resource_version: int
    beat: str
    """Differs after each renewal."""
    host_version: int | None
    """The NumaHost's resourceVersion that its agent found true before it renewed."""
    seconds: float = LEASE_SECONDS
    """How long it counts without a change: its own `leaseDurationSeconds`, within bounds."""


def read_vm(raw: Mapping[str, Any], known: Vm | None = None) -> Vm:
    """Return the NumaVM in `raw`.

    What `known`, an earlier reading, says of the same generation's spec is not worked out again.
    """
    metadata = raw["metadata"]
    generation = int(metadata.get("generation", 0))
    if known is not None and (known.uid, known.generation) == (metadata["uid"], generation):
        spec, violations = known.spec, known.violations
    else:
        spec, violations = _read_spec(raw.get("spec") or {})
    status, unreadable = _read_status(raw.get("status") or {})
    return Vm(
        key=VmKey(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        generation=generation,
        created=metadata.get("creationTimestamp", ""),
        deleting="deletionTimestamp" in metadata,
        finalizers=tuple(metadata.get("finalizers") or ()),
        spec=spec,
        violations=violations,
        status=status,
        unreadable=unreadable,
        labels=dict(metadata.get("labels") or {}),
    )


def read_host(raw: Mapping[str, Any]) -> Host:
    """Return the NumaHost in `raw`."""
    metadata = raw["metadata"]
    name, version = metadata["name"], int(metadata["resourceVersion"])
    try:
        spec = frugal(NumaHostSpec.model_validate(raw.get("spec") or {}))
        status = frugal(NumaHostStatus.model_validate(raw.get("status") or {}))
    except ValidationError as error:
        problems = "; ".join(_sentences(error, "numahost"))
        return Host(name, version, NumaHostSpec(unschedulable=True), NumaHostStatus(), problems)
    return Host(name, version, spec, status)


def read_node(raw: Mapping[str, Any]) -> Node:
    """Return the node in `raw`."""
    metadata, spec = raw["metadata"], raw.get("spec") or {}
    return Node(
        name=metadata["name"],
        resource_version=int(metadata["resourceVersion"]),
        labels=dict(metadata.get("labels") or {}),
        taints=tuple(
            Taint(taint["key"], taint.get("value", ""), taint["effect"])
            for taint in spec.get("taints") or ()
        ),
        cordoned=bool(spec.get("unschedulable", False)),
    )


def read_priority_class(raw: Mapping[str, Any]) -> PriorityClass:
    """Return the priority class in `raw`."""
    metadata = raw["metadata"]
    return PriorityClass(
        name=metadata["name"],
        resource_version=int(metadata["resourceVersion"]),
        value=int(raw["value"]),
        global_default=bool(raw.get("globalDefault", False)),
    )


def read_lease(raw: Mapping[str, Any]) -> HostLease:
    """Return the host Lease in `raw`."""
    metadata, spec = raw["metadata"], raw.get("spec") or {}
    version = (metadata.get("annotations") or {}).get(LEASE_HOST_VERSION_ANNOTATION, "")
    return HostLease(
        name=metadata["name"],
        resource_version=int(metadata["resourceVersion"]),
        beat=f"{spec.get('holderIdentity')} {spec.get('renewTime')}",
        host_version=int(version) if version.isdecimal() else None,
        seconds=min(max(float(spec.get("leaseDurationSeconds") or LEASE_SECONDS), 1.0), _LONGEST),
    )


def _read_spec(raw: Mapping[str, Any]) -> tuple[NumaVMSpec | None, tuple[str, ...]]:
    return _spec_of(json.dumps(raw, sort_keys=True))


@lru_cache(maxsize=_SPECS_KEPT)
def _spec_of(text: str) -> tuple[NumaVMSpec | None, tuple[str, ...]]:
    """Read a spec; of VMs that came from one template it is read once, and kept once."""
    try:
        spec = NumaVMSpec.model_validate(json.loads(text))
    except ValidationError as error:
        return None, tuple(_sentences(error, "spec"))
    return frugal(spec), tuple(str(violation) for violation in validate(spec))


def _read_status(raw: Mapping[str, Any]) -> tuple[NumaVMStatus, str | None]:
    """Read a status.

    One written by a newer version may hold words this one does not know, which must not hide its
    claim.
    """
    try:
        return frugal(NumaVMStatus.model_validate(raw)), None
    except ValidationError:
        pass
    needed = {name: value for name, value in raw.items() if name not in _DISPLAY_ONLY}
    try:
        return frugal(NumaVMStatus.model_validate(needed)), None
    except ValidationError as error:
        node_name = raw.get("nodeName")
        status = NumaVMStatus(node_name=node_name if isinstance(node_name, str) else None)
        return status, "; ".join(_sentences(error, "status"))


def _sentences(error: ValidationError, root: str) -> list[str]:
    found = []
    for problem in error.errors(include_url=False, include_context=False):
        path = root
        for part in problem["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
        message = problem["msg"].removeprefix("Value error, ")
        found.append(f"{path} is {_short(problem['input'])}, but {message}.")
    return found


def _short(value: object) -> str:
    text = repr(value)
    longest = 100
    return text if len(text) <= longest else f"{text[:longest]}…"
