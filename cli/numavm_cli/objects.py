"""NumaVMs and NumaHosts on the cluster that kubectl would talk to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from numavm_api.base import GROUP, VERSION
from numavm_api.errors import NumaVMError, RejectedError, TransientError
from numavm_api.numahost import PLURAL as HOSTS
from numavm_api.numavm import PLURAL

_TIMEOUT_SECONDS = 30


class Objects:
    """The API server as the current context of the kubeconfig names it."""

    def __init__(self, namespace: str | None, kubeconfig: str | None) -> None:
        """Open it.

        Raises:
            RejectedError: there is no usable kubeconfig.
        """
        try:
            _, current = config.list_kube_config_contexts(config_file=kubeconfig)
            self._api = config.new_client_from_config(config_file=kubeconfig)
        except ConfigException as error:
            raise RejectedError(f"kubeconfig: {error}: set KUBECONFIG or --kubeconfig") from error
        self.namespace = namespace or current["context"].get("namespace") or "default"

    def vm(self, name: str, namespace: str | None = None) -> dict[str, Any]:
        """Return a NumaVM.

        Raises:
            RejectedError: the server does not give it.
        """
        where = namespace or self.namespace
        found: dict[str, Any] = self._call("get_namespaced_custom_object", where, PLURAL, name)
        return found

    def hosts(self) -> list[dict[str, Any]]:
        """Return every NumaHost."""
        found: list[dict[str, Any]] = self._call("list_cluster_custom_object", HOSTS)["items"]
        return found

    def node_labels(self) -> dict[str, dict[str, str]]:
        """Return the labels of each Kubernetes node; nothing where one may not read nodes."""
        try:
            nodes = client.CoreV1Api(self._api).list_node(_request_timeout=_TIMEOUT_SECONDS).items
        except (ApiException, HTTPError):
            return {}
        found = [node.metadata for node in nodes if node.metadata is not None]
        return {one.name: dict(one.labels or {}) for one in found if one.name is not None}

    def why_refused(self, vm: Mapping[str, Any], spec: Mapping[str, Any]) -> str | None:
        """Return why the server would not take another spec for a NumaVM; None: it would. Nothing is changed."""
        body = {**vm, "spec": spec}
        metadata = vm["metadata"]
        try:
            self._call(
                "replace_namespaced_custom_object",
                metadata["namespace"],
                PLURAL,
                metadata["name"],
                body,
                dry_run="All",
            )
        except RejectedError as error:
            return str(error)
        return None

    def patch_vm(self, vm: Mapping[str, Any], operations: Sequence[Mapping[str, Any]]) -> None:
        """Change a NumaVM as it was read by a JSON patch.

        Raises:
            RejectedError: the server refuses, or the NumaVM was changed since.
        """
        metadata = vm["metadata"]
        version = metadata["resourceVersion"]
        unchanged = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
        self._call(
            "patch_namespaced_custom_object",
            metadata["namespace"],
            PLURAL,
            metadata["name"],
            [unchanged, *operations],
            _content_type="application/json-patch+json",
        )

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - JSON
        objects = client.CustomObjectsApi(self._api)
        try:
            return getattr(objects, method)(
                GROUP, VERSION, *arguments, _request_timeout=_TIMEOUT_SECONDS, **options
            )
        except ApiException as error:
            raise _rejected(error) from error
        except HTTPError as error:
            raise TransientError(f"the API server does not answer: {error}") from error


def _rejected(error: ApiException) -> NumaVMError:
    try:
        message = json.loads(error.body or "{}").get("message")
    except ValueError:
        message = None
    return RejectedError(message or f"{error.status} {error.reason}")
