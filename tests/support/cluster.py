"""API clients of everyone who talks to the API server, for tests."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import yaml
from kubernetes import client, config

from numavm_lab.controlplane.accounts import AGENT, OPERATOR
from numavm_lab.controlplane.credentials import (
    kubeconfig_for_service_account,
    kubeconfig_for_user,
)
from numavm_lab.controlplane.manifests import kubectl
from numavm_lab.controlplane.plane import ControlPlane


def client_from(kubeconfig: str) -> client.ApiClient:
    """Return an API client for a kubeconfig document; the caller closes it (``with``)."""
    return config.new_client_from_config_dict(yaml.safe_load(kubeconfig))


@dataclass
class Callers:
    """Makes API clients per identity, once each; all are closed together."""

    plane: ControlPlane
    _stack: ExitStack
    _clients: dict[str, client.ApiClient] = field(default_factory=dict)

    def admin(self) -> client.ApiClient:
        """Return a client in ``system:masters``, whom admission policies judge like everyone."""
        return self._client("admin", self.plane.admin_kubeconfig.read_text())

    def operator(self) -> client.ApiClient:
        """Return a client with the operator's service account."""
        key = "operator"
        return self._clients.get(key) or self._client(
            key, kubeconfig_for_service_account(self.plane, OPERATOR)
        )

    def agent(self, node: str | None) -> client.ApiClient:
        """Return a client with the agents' account, its token bound to ``node`` if given."""
        key = f"agent {node}"
        return self._clients.get(key) or self._client(
            key, kubeconfig_for_service_account(self.plane, AGENT, node=node)
        )

    def namespace_owner(self, namespace: str) -> client.ApiClient:
        """Return a client of a user who may do everything RBAC can grant within one namespace."""
        key = f"owner {namespace}"
        if key not in self._clients:
            user = f"owner-of-{namespace}"
            kubectl(self.plane, "apply", "--filename=-", manifest=_owner_role(namespace, user))
            document = kubeconfig_for_user(self.plane, user, namespace=namespace)
            self._client(key, document)
        return self._clients[key]

    def _client(self, key: str, kubeconfig: str) -> client.ApiClient:
        if key not in self._clients:
            self._clients[key] = self._stack.enter_context(client_from(kubeconfig))
        return self._clients[key]


@contextmanager
def callers_of(plane: ControlPlane) -> Iterator[Callers]:
    """Give the callers of a control plane, and close their clients at the end."""
    with ExitStack() as stack:
        yield Callers(plane, stack)


def _owner_role(namespace: str, user: str) -> str:
    group = "rbac.authorization.k8s.io"
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    role = {
        "apiVersion": f"{group}/v1",
        "kind": "Role",
        "metadata": {"name": "owner", "namespace": namespace},
        "rules": [everything],
    }
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "owner", "namespace": namespace},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "owner"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }
    return yaml.safe_dump_all([role, binding])
