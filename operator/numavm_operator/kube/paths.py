"""Where things are on the API server."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from numavm_api import numahost, numavm
from numavm_api.base import API_VERSION

NUMAVMS: Final = f"/apis/{API_VERSION}/{numavm.PLURAL}"
NUMAHOSTS: Final = f"/apis/{API_VERSION}/{numahost.PLURAL}"
NODES: Final = "/api/v1/nodes"
RESOURCE_QUOTAS: Final = "/api/v1/resourcequotas"
PRIORITY_CLASSES: Final = "/apis/scheduling.k8s.io/v1/priorityclasses"


def numavm_path(namespace: str, name: str) -> str:
    """Return the path of one NumaVM."""
    return f"/apis/{API_VERSION}/namespaces/{_part(namespace)}/{numavm.PLURAL}/{_part(name)}"


def numahost_path(name: str) -> str:
    """Return the path of one NumaHost."""
    return f"{NUMAHOSTS}/{_part(name)}"


def leases(namespace: str) -> str:
    """Return the path of a namespace's Leases."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{_part(namespace)}/leases"


def lease_path(namespace: str, name: str) -> str:
    """Return the path of one Lease."""
    return f"{leases(namespace)}/{_part(name)}"


def events(namespace: str) -> str:
    """Return the path of a namespace's events."""
    return f"/apis/events.k8s.io/v1/namespaces/{_part(namespace)}/events"


def _part(text: str) -> str:
    return quote(text, safe="")
