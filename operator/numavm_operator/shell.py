"""kopf, as far as it is used: login and watches.

Handlers are `on.event` and only pass the object on: they are level-triggered, keep nothing, decide
nothing and write nothing. kopf's own finalizers, annotations, indices, daemons and events stay
unused (their pitfalls were measured).

Two kopf operators run side by side, because one has either all namespaces or some: NumaVMs,
NumaHosts, nodes, quotas and priority classes are followed in the whole cluster, Leases only in
NumaVM's own namespace, so that no wider permission is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import kopf

from numavm_api.base import GROUP, VERSION
from numavm_operator.kube.connection import kopf_connection
from numavm_operator.kube.lists import PAGE
from numavm_operator.picture import DELETED, Kind

Saw = Callable[[Kind, Mapping[str, Any], bool], None]


async def follow_cluster(
    kubeconfig: Path | None, saw: Saw, stop: asyncio.Event, ready: asyncio.Event
) -> None:
    """Follow NumaVMs, NumaHosts, nodes, quotas and priority classes until `stop`."""
    registry = _registry(kubeconfig)
    _on_event(registry, saw, Kind.VM, GROUP, VERSION)
    _on_event(registry, saw, Kind.HOST, GROUP, VERSION)
    _on_event(registry, saw, Kind.NODE, "", "v1")
    _on_event(registry, saw, Kind.QUOTA, "", "v1")
    _on_event(registry, saw, Kind.PRIORITY_CLASS, "scheduling.k8s.io", "v1")
    await kopf.operator(
        registry=registry,
        settings=_settings(),
        standalone=True,
        clusterwide=True,
        stop_flag=stop,
        ready_flag=ready,
    )


async def follow_leases(
    kubeconfig: Path | None, namespace: str, saw: Saw, stop: asyncio.Event, ready: asyncio.Event
) -> None:
    """Follow the Leases of one namespace until `stop`."""
    registry = _registry(kubeconfig)
    _on_event(registry, saw, Kind.LEASE, "coordination.k8s.io", "v1")
    await kopf.operator(
        registry=registry,
        settings=_settings(),
        standalone=True,
        namespaces=[namespace],
        stop_flag=stop,
        ready_flag=ready,
    )


def _registry(kubeconfig: Path | None) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: object) -> kopf.ConnectionInfo:
        return await kopf_connection(kubeconfig)

    return registry


def _on_event(
    registry: kopf.OperatorRegistry, saw: Saw, kind: Kind, group: str, version: str
) -> None:
    @kopf.on.event(group, version, str(kind), registry=registry, id=f"saw-{kind}")
    async def handler(event: Mapping[str, Any], **_: object) -> None:
        saw(kind, event["object"], event["type"] == DELETED)


class _NoDiffs(kopf.DiffBaseStorage):
    """Keeps no former state to compare with: nobody here asks what has changed.

    kopf's own copies each object whole at each event, status and managers included, to work that out.
    """

    def build(self, **_: object) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: object) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: object) -> None:
        """Write nothing into objects."""


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # One connection per object and half a gigabyte without a limit; ten objects a second with the
    # default idle time (measured with 2,000 objects).
    settings.queueing.worker_limit = 50
    settings.queueing.idle_timeout = 0.01
    # Without it a list of ten thousand objects is held in memory whole.
    settings.watching.chunk_size = PAGE
    # Against streams that fall silent.
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    return settings
