"""The fleet of a cluster, as its API server has it now: hosts, nodes, what NumaVMs hold, who is alive."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import typer

from numavm_api.numahost import LEASE_NAMESPACE, LEASE_PREFIX, LEASE_SECONDS
from numavm_cli.fleet_file import Cluster, cluster_of
from numavm_cli.kube import Cluster as Connection
from numavm_cli.kube import Document

_SECONDS: Final = (5, 30)
_FORBIDDEN: Final = 403


def read_cluster(connection: Connection) -> Cluster:
    """Return the fleet of a cluster. Every call may raise a `NumaVMError`.

    A host whose Lease is older than it may be, by this machine's clock, counts as unreachable. Who may not read nodes,
    Leases or priority classes is told without what these say.
    """
    from kubernetes import client

    core, coordination = client.CoreV1Api(connection.api), client.CoordinationV1Api(connection.api)
    scheduling = client.SchedulingV1Api(connection.api)
    objects = [
        *({**one, "kind": "NumaHost"} for one in connection.hosts()),
        *({**one, "kind": "NumaVM"} for one in connection.vms(everywhere=True)),
    ]
    nodes = _items(connection, "nodes", lambda: core.list_node(_request_timeout=_SECONDS))
    objects += [{**one, "kind": "Node"} for one in nodes or ()]
    classes = _items(
        connection,
        "priority classes",
        lambda: scheduling.list_priority_class(_request_timeout=_SECONDS),
    )
    objects += [{**one, "kind": "PriorityClass"} for one in classes or ()]
    leases = _items(
        connection,
        "the hosts' Leases",
        lambda: coordination.list_namespaced_lease(LEASE_NAMESPACE, _request_timeout=_SECONDS),
    )
    if leases is None:
        return cluster_of(objects)
    names = {one["metadata"]["name"] for one in objects if one["kind"] == "NumaHost"}
    alive = {
        lease["metadata"]["name"].removeprefix(LEASE_PREFIX)
        for lease in leases
        if _is_fresh(lease.get("spec") or {})
    }
    return cluster_of(objects, frozenset(names - alive))


def _items(connection: Connection, what: str, call: Callable[[], Any]) -> list[Document] | None:
    """Return the objects of a list; None, with a word on standard error, where this user may not read them."""
    from kubernetes.client import ApiException

    try:
        listed = call()
    except ApiException as error:
        if error.status != _FORBIDDEN:
            raise
        typer.echo(f"You may not read {what}: told without what they say.", err=True)
        return None
    found: list[Document] = connection.api.sanitize_for_serialization(listed)["items"]
    return found


def _is_fresh(spec: Document) -> bool:
    renewed = spec.get("renewTime")
    if not renewed:
        return False
    age = datetime.now(tz=UTC) - datetime.fromisoformat(renewed)
    return age.total_seconds() < float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)
