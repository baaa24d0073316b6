"""Reads hosts, nodes and NumaVMs of the cluster that KUBECONFIG names."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from numavm_api.base import GROUP, VERSION
from numavm_api.errors import TransientError
from numavm_api.numahost import LEASE_NAMESPACE, LEASE_PREFIX, LEASE_SECONDS
from numavm_cli.fleet_file import Cluster, cluster_of

_PATHS = {
    "NumaHost": f"/apis/{GROUP}/{VERSION}/numahosts",
    "NumaVM": f"/apis/{GROUP}/{VERSION}/numavms",
    "Node": "/api/v1/nodes",
}
_LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases"


def read_cluster() -> Cluster:
    """Return the fleet of the cluster.

    A host whose Lease is older than it may be, by this machine's clock, counts as unreachable.

    Raises:
        TransientError: there is no cluster to be reached, or it does not let us read.
    """
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException
    from urllib3.exceptions import HTTPError

    try:
        config.load_config()
        api: Any = client.ApiClient()  # the stubs do not know its calls
        objects = [
            {**item, "kind": kind} for kind, path in _PATHS.items() for item in _items(api, path)
        ]
        leases = _items(api, _LEASES)
    except ConfigException as error:
        raise TransientError(f"no cluster: {error}; set KUBECONFIG") from error
    except HTTPError as error:
        raise TransientError(f"the API server cannot be reached: {error}") from error
    names = {one["metadata"]["name"] for one in objects if one["kind"] == "NumaHost"}
    alive = {
        lease["metadata"]["name"].removeprefix(LEASE_PREFIX)
        for lease in leases
        if _is_fresh(lease.get("spec") or {})
    }
    return cluster_of(objects, frozenset(names - alive))


def _items(api: Any, path: str) -> list[dict[str, Any]]:  # noqa: ANN401 - the stubs do not know its calls
    wanted = api.param_serialize(
        "GET", path, header_params={"Accept": "application/json"}, auth_settings=["BearerToken"]
    )
    answer = api.call_api(*wanted)
    body = answer.read()
    if answer.status != HTTPStatus.OK:
        raise TransientError(f"GET {path}: {answer.status} {answer.reason}")
    found: list[dict[str, Any]] = json.loads(body)["items"]
    return found


def _is_fresh(spec: dict[str, Any]) -> bool:
    renewed = spec.get("renewTime")
    if not renewed:
        return False
    age = datetime.now(tz=UTC) - datetime.fromisoformat(renewed)
    return age.total_seconds() < float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)
