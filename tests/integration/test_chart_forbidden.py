"""What each party would like to do and may not: every action is tried on a real API server, not only asked about."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from numavm_api.base import GROUP, VERSION
from numavm_api.numahost import PLURAL as HOSTS
from numavm_api.numavm import PLURAL as VMS
from numavm_lab.controlplane.accounts import AGENT, OPERATOR
from support.cluster import Callers
from support.custom_objects import owner_of

SYSTEM = "numavm-system"
MERGE = "application/merge-patch+json"
FORBIDDEN, NOT_FOUND = 403, 404

Action = Callable[[client.ApiClient], Any]


def mint(account: str) -> Action:
    """Return the request for a token of a service account."""
    body = client.AuthenticationV1TokenRequest(
        spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600)
    )
    return lambda api: client.CoreV1Api(api).create_namespaced_service_account_token(
        account, SYSTEM, body, dry_run="All"
    )


def patch_host(spec: dict[str, Any]) -> Action:
    """Return a change of what the administrator said of a host."""
    return lambda api: client.CustomObjectsApi(api).patch_cluster_custom_object(
        GROUP, VERSION, HOSTS, "host-b", {"spec": spec}, dry_run="All", _content_type=MERGE
    )


def bind(role: str) -> Action:
    """Return the wish of an account to have a role in the whole cluster."""
    body = client.V1ClusterRoleBinding(
        metadata=client.V1ObjectMeta(name=f"more-{role}"),
        subjects=[client.RbacV1Subject(kind="ServiceAccount", name=AGENT.name, namespace=SYSTEM)],
        role_ref=client.V1RoleRef(
            api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=role
        ),
    )
    return lambda api: client.RbacAuthorizationV1Api(api).create_cluster_role_binding(
        body, dry_run="All"
    )


def run_pod(api: client.ApiClient) -> object:
    """Start a pod that would see the host."""
    container = client.V1Container(name="c", image="busybox")
    spec = client.V1PodSpec(
        containers=[container], host_pid=True, service_account_name=OPERATOR.name
    )
    body = client.V1Pod(metadata=client.V1ObjectMeta(name="p"), spec=spec)
    return client.CoreV1Api(api).create_namespaced_pod(SYSTEM, body, dry_run="All")


def delete_policy_binding(api: client.ApiClient) -> object:
    """Switch off what checks who writes a status."""
    return client.AdmissionregistrationV1Api(api).delete_validating_admission_policy_binding(
        "numavm-host-paths", dry_run="All"
    )


COMMON: dict[str, Action] = {
    "mint-a-token-of-agents": mint(AGENT.name),
    "mint-a-token-of-the-operator": mint(OPERATOR.name),
    "become-cluster-admin": bind("cluster-admin"),
    "take-the-powers": bind("numavm-host-powers"),
    "run-a-pod": run_pod,
    "read-secrets": lambda api: client.CoreV1Api(api).list_secret_for_all_namespaces(),
    "fence-a-host": patch_host({"fenced": True}),
    "permit-devices": patch_host({"permitted": {"pciDevices": [{"address": "0000:65:00.0"}]}}),
    "widen-a-pool": patch_host({"dedicatedCpus": "0-63"}),
    "delete-a-host": lambda api: client.CustomObjectsApi(api).delete_cluster_custom_object(
        GROUP, VERSION, HOSTS, "host-b", dry_run="All"
    ),
    "delete-a-policy-binding": delete_policy_binding,
    "change-a-crd": lambda api: client.ApiextensionsV1Api(api).delete_custom_resource_definition(
        f"{VMS}.{GROUP}", dry_run="All"
    ),
}
"""Neither agents nor the operator nor the owner of a namespace may do these. All that write are dry runs, which are
authorized, validated and admitted alike."""


@pytest.fixture(scope="module", autouse=True)
def host_b(callers: Callers) -> Iterator[None]:
    """A NumaHost, made by its own agent, so that a refusal is about the caller and not a 404."""
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "NumaHost", "metadata": {"name": "host-b"}}
    administrator = client.CustomObjectsApi(callers.admin())
    try:
        administrator.delete_cluster_custom_object(GROUP, VERSION, HOSTS, "host-b")
    except ApiException as error:
        if error.status != NOT_FOUND:
            raise
    agent = client.CustomObjectsApi(callers.agent("host-b"))
    agent.create_cluster_custom_object(GROUP, VERSION, HOSTS, body)
    yield
    administrator.delete_cluster_custom_object(GROUP, VERSION, HOSTS, "host-b")


def assert_forbidden(action: Action, api: client.ApiClient) -> None:
    """Try it; any answer but 403 is a hole, or a test that tries nothing."""
    with pytest.raises(ApiException) as refused:
        action(api)
    assert refused.value.status == FORBIDDEN, refused.value.body


@pytest.mark.parametrize("action", COMMON.values(), ids=COMMON.keys())
def test_neither_an_agent_nor_the_operator_may(action: Action, callers: Callers) -> None:
    assert_forbidden(action, callers.agent("host-a"))
    assert_forbidden(action, callers.agent("host-b"))
    assert_forbidden(action, callers.operator())


@pytest.mark.parametrize("action", COMMON.values(), ids=COMMON.keys())
def test_whoever_owns_a_namespace_may_not(action: Action, callers: Callers, namespace: str) -> None:
    assert_forbidden(action, owner_of(callers, namespace))


@pytest.mark.parametrize("action", COMMON.values(), ids=COMMON.keys())
def test_an_administrator_may_so_that_no_refusal_is_everybodys(
    action: Action, callers: Callers
) -> None:
    action(callers.admin())
