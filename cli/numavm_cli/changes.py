"""What a new manifest would do to a NumaVM that is there: pure, from the objects as the API server has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numavm_agent.reconcile.changes import NO_CPUS, Effect, FieldChange, field_changes
from numavm_api.derived import settled
from numavm_api.effective import effective
from numavm_api.errors import RejectedError
from numavm_api.growth import as_it_runs
from numavm_api.movable import what_strays, why_unmovable
from numavm_api.numahost import NumaHostSpec, NumaHostStatus
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.powers import powers_asked
from numavm_api.reading import read_spec
from numavm_api.request_hash import request_hash
from numavm_api.rules_devices import host_paths
from numavm_api.vm_status import DomainState, NumaVMStatus
from numavm_operator.placement import (
    Fleet,
    Placed,
    Policy,
    Refusal,
    Request,
    Undecided,
    amend,
    host_from,
    memory_moves,
    moved_cells,
    place,
    request_for,
    summary,
)

_RUNS = (DomainState.RUNNING, DomainState.PAUSED)
_HOST_CELLS = ".hostCells"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the API server says of the hosts."""

    hosts: Sequence[Mapping[str, Any]]
    labels: Mapping[str, Mapping[str, str]]
    """Of each Kubernetes node."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a manifest changes of one NumaVM, and where that leads."""

    namespace: str
    name: str
    running: bool
    fields: tuple[FieldChange, ...]
    now: str | None
    """Where it is: `host-a: 0->0,1->1`."""
    live: str | None
    """Where it would be moved while it runs; None: it would not be moved."""
    restart: str | None
    """Where a restart with the new spec would put it, or why nowhere; None: no field waits for one."""

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            "running": self.running,
            "changes": [
                {
                    "path": one.path,
                    "old": one.old,
                    "new": one.new,
                    "effect": str(one.effect),
                    "why": one.why,
                }
                for one in self.fields
            ],
            "placement": {"now": self.now, "live": self.live, "restart": self.restart},
        }


def change_of(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], cluster: Cluster, refused: str | None
) -> Change:
    """Return what replacing the spec of `stored` by that of `wanted` would do.

    Args:
        stored: The NumaVM as the API server has it.
        wanted: The new manifest.
        cluster: The hosts, for where it would land.
        refused: Why the API server would not take the manifest; None: it would.

    Raises:
        RejectedError: one of the specs cannot be read.
    """
    metadata = stored["metadata"]
    status = NumaVMStatus.model_validate(stored.get("status") or {})
    old, new = _spec(stored), _spec(wanted)
    runs = status.domain is not None and status.domain.state in _RUNS
    running, removable = as_it_runs(old, status), NO_CPUS
    fixed = why_unmovable(running) or _why_fixed(status, cluster)
    if runs and status.current_cpu_topology is not None:
        removable = status.current_cpu_topology.removable_vcpus or NO_CPUS
    claim = status.placement
    was, will = settled(running, claim), settled(new, claim)
    fields = field_changes(was, will, why_fixed=fixed, removable=removable)
    live, no_room = _live(metadata, status, new, cluster, fixed) if runs else (None, None)
    fields = [_judged(one, refused, no_room, what_strays(running)) for one in fields]
    waits = not runs or any(one.effect is Effect.RESTART for one in fields)
    return Change(
        namespace=metadata["namespace"],
        name=metadata["name"],
        running=runs,
        fields=tuple(fields),
        now=_words(status.node_name, claim) if claim and status.node_name else None,
        live=live,
        restart=_landing(metadata, new, cluster) if waits and fields and not refused else None,
    )


def _judged(
    change: FieldChange, refused: str | None, no_room: str | None, strays: str | None
) -> FieldChange:
    if refused is not None:
        return replace(change, effect=Effect.REFUSED, why=refused)
    if change.effect is not Effect.LIVE or not change.path.endswith(_HOST_CELLS):
        return change
    if no_room is not None:
        return replace(change, effect=Effect.REFUSED, why=no_room)
    return replace(change, why=strays) if strays is not None else change


def _live(
    metadata: Mapping[str, Any],
    status: NumaVMStatus,
    new: NumaVMSpec,
    cluster: Cluster,
    fixed: str | None,
) -> tuple[str | None, str | None]:
    """Return where the running VM would be moved, and why it could not be."""
    claim, node = status.placement, status.node_name
    if claim is None or node is None:
        return None, None
    moves = moved_cells(claim, effective(new))
    is_fixed = memory_moves(claim, moves) and fixed is not None
    if not moves or is_fixed:
        return None, None
    request, fleet = _request(metadata, new), _fleet(cluster)
    match amend(request, fleet, node, claim.alone, moves, Policy()):
        case Placed() as found:
            return _words(node, found.placement), None
        case outcome:
            return None, summary(outcome)


def _landing(metadata: Mapping[str, Any], new: NumaVMSpec, cluster: Cluster) -> str:
    fleet = _fleet(cluster)
    for host in cluster.hosts:
        fleet = fleet.without_claim(host["metadata"]["name"], metadata["uid"])
    match place(_request(metadata, new), fleet):
        case Placed() as found:
            return _words(found.node_name, found.placement)
        case Refusal() | Undecided() as outcome:
            return summary(outcome)


def _request(metadata: Mapping[str, Any], spec: NumaVMSpec) -> Request:
    return request_for(
        effective(spec),
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        placement_id="diff",
        epoch=0,
        request_hash=request_hash(spec),
        domain_type=spec.domain.type,
        machine_type=spec.domain.machine.type,
        host_paths=tuple(path for _, path in host_paths(spec)),
        powers=powers_asked(spec),
        node_selector=spec.node_selector,
    )


def _fleet(cluster: Cluster) -> Fleet:
    fleet = Fleet.empty()
    for host in cluster.hosts:
        name = host["metadata"]["name"]
        spec = NumaHostSpec.model_validate(host.get("spec") or {})
        status = NumaHostStatus.model_validate(host.get("status") or {})
        fleet = fleet.with_host(host_from(name, spec, status, labels=cluster.labels.get(name, {})))
        for held in status.claims:
            fleet = fleet.with_claim(name, held.uid, held.placement.alone)
            before = held.placement.earlier
            if before is not None:
                fleet = fleet.with_claim(name, held.uid, before)
    return fleet


def _why_fixed(status: NumaVMStatus, cluster: Cluster) -> str | None:
    """Return why the running VM's memory cannot be moved, by the word of its host's agent."""
    claim = status.placement
    if claim is not None and claim.devices:
        return "host devices are assigned to it, and may write to any of its pages"
    host = next((one for one in cluster.hosts if one["metadata"]["name"] == status.node_name), None)
    able = NumaHostStatus.model_validate((host or {}).get("status") or {}).capabilities
    if able is None or able.memory_moves:
        return None
    return able.memory_moves_message or "its host's agent cannot move memory"


def _spec(manifest: Mapping[str, Any]) -> NumaVMSpec:
    spec = read_spec(manifest.get("spec") or {})
    if isinstance(spec, list):
        raise RejectedError("; ".join(map(str, spec)))
    return spec


def _words(node: str, claim: Placement) -> str:
    return f"{node}: {claim.summary}"
