"""NumaVMs, NumaHosts and their status on a real API server, as any caller."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from support.cluster import Callers
from support.manifests import Spec, numavm
from support.wait import wait_for

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
_GROUP = ("numavm.io", "v1alpha1")


@dataclass(frozen=True)
class NumaVMs:
    """NumaVMs of one namespace, as one caller."""

    api: client.ApiClient
    namespace: str

    def create(self, name: str, spec: Spec, *, dry_run: bool = False) -> dict[str, Any]:
        """Create a NumaVM; unknown fields are refused, as by kubectl."""
        more = {"dry_run": "All"} if dry_run else {}
        return self._custom.create_namespaced_custom_object(
            *_GROUP,
            self.namespace,
            "numavms",
            numavm(name, spec, self.namespace),
            field_validation="Strict",
            **more,
        )

    def get(self, name: str) -> dict[str, Any]:
        """Return a NumaVM."""
        return self._custom.get_namespaced_custom_object(*_GROUP, self.namespace, "numavms", name)

    def patch(self, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Merge a change into a NumaVM."""
        return self._custom.patch_namespaced_custom_object(
            *_GROUP, self.namespace, "numavms", name, change, _content_type=MERGE
        )

    def patch_status(self, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """Merge a change into a status."""
        return self._custom.patch_namespaced_custom_object_status(
            *_GROUP, self.namespace, "numavms", name, {"status": status}, _content_type=MERGE
        )

    def apply_status(self, name: str, status: Mapping[str, Any], manager: str) -> dict[str, Any]:
        """Apply a status, forced, as a field manager; an empty one takes all of its fields away.

        An empty one is left out: from the only manager it would become null, which is refused.
        """
        body = {
            "apiVersion": "/".join(_GROUP),
            "kind": "NumaVM",
            "metadata": {"name": name, "namespace": self.namespace},
        } | ({"status": status} if status else {})
        return self._custom.patch_namespaced_custom_object_status(
            *_GROUP,
            self.namespace,
            "numavms",
            name,
            body,
            field_manager=manager,
            force=True,
            _content_type=APPLY,
        )

    @property
    def _custom(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self.api)


@dataclass(frozen=True)
class NumaHosts:
    """NumaHosts, as one caller."""

    api: client.ApiClient

    def create(self, name: str, **more: Any) -> dict[str, Any]:
        """Create a NumaHost, without a spec unless one is given."""
        body = {
            "apiVersion": "/".join(_GROUP),
            "kind": "NumaHost",
            "metadata": {"name": name},
            **more,
        }
        return self._custom.create_cluster_custom_object(
            *_GROUP, "numahosts", body, field_validation="Strict"
        )

    def patch(self, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Merge a change into a NumaHost."""
        return self._custom.patch_cluster_custom_object(
            *_GROUP, "numahosts", name, change, _content_type=MERGE
        )

    def apply_status(self, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """Apply a status as the agents' field manager."""
        body = {
            "apiVersion": "/".join(_GROUP),
            "kind": "NumaHost",
            "metadata": {"name": name},
            "status": status,
        }
        return self._custom.patch_cluster_custom_object_status(
            *_GROUP,
            "numahosts",
            name,
            body,
            field_manager="numavm-agent",
            force=True,
            _content_type=APPLY,
        )

    @property
    def _custom(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self.api)


def owner_of(callers: Callers, namespace: str) -> client.ApiClient:
    """Return a client of a user with every right in a namespace, once RBAC knows of them."""
    api = callers.namespace_owner(namespace)
    await_right(api, verb="create", resource="numavms", namespace=namespace)
    return api


def await_right(api: client.ApiClient, **attributes: str) -> None:
    """Wait until the API server's authorizer has taken up a grant."""
    body = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(
            resource_attributes=client.V1ResourceAttributes(group="numavm.io", **attributes)
        )
    )
    asker = client.AuthorizationV1Api(api)
    wait_for(
        lambda: asker.create_self_subject_access_review(body).status.allowed,
        describe=f"RBAC allows {attributes}",
    )


def message_of(error: ApiException) -> str:
    """Return the API server's own words."""
    return str(json.loads(error.body)["message"])
