"""The chart against a real API server: each combination by a server-side dry run, and what its roles do not allow."""

from collections.abc import Callable

import pytest
import yaml
from kubernetes import client

from numavm_lab.controlplane.credentials import kubeconfig_for_user
from numavm_lab.controlplane.manifests import kubectl
from numavm_lab.controlplane.plane import ControlPlane
from support.cluster import Callers, client_from
from support.custom_objects import NumaVMs, await_right, message_of
from support.helm import COMBINATIONS, rendered
from support.manifests import NO_CELLS
from support.wait import wait_for

FOREIGN = {"PodMonitor", "PrometheusRule", "ServiceMonitor"}
"""Kinds of the Prometheus operator, which is not here."""


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS.keys())
def test_the_api_server_takes_every_combination(
    values: list[str], control_plane: ControlPlane
) -> None:
    objects = [one for one in rendered(*values) if one["kind"] not in FOREIGN]
    for one in objects:
        one["metadata"].pop("annotations", None)  # hooks are ordinary objects to the server

    told = kubectl(
        control_plane,
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename=-"),
        "--field-manager=helm",
        manifest=yaml.safe_dump_all(objects),
    )
    assert len(told.splitlines()) == len(objects)


def allowed(api: client.ApiClient, **attributes: str) -> bool:
    body = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(
            resource_attributes=client.V1ResourceAttributes(**attributes)
        )
    )
    answer = client.AuthorizationV1Api(api).create_self_subject_access_review(body)
    return bool(answer.status.allowed)


@pytest.mark.parametrize(
    "attributes",
    [
        {"verb": "create", "resource": "serviceaccounts", "subresource": "token"},
        {"verb": "get", "resource": "secrets"},
        {"verb": "create", "resource": "pods"},
        {"verb": "create", "resource": "pods", "subresource": "exec"},
        {"verb": "get", "resource": "nodes", "subresource": "proxy"},
        {"verb": "patch", "resource": "nodes"},
        {"verb": "update", "resource": "numavms", "group": "numavm.io"},
        {"verb": "create", "resource": "numavms", "group": "numavm.io"},
        {"verb": "delete", "resource": "numavms", "group": "numavm.io"},
        {"verb": "update", "resource": "numahosts", "group": "numavm.io"},
        {"verb": "delete", "resource": "numahosts", "group": "numavm.io"},
        {"verb": "use", "resource": "hostpaths", "group": "numavm.io"},
        {"verb": "create", "resource": "clusterrolebindings", "group": "rbac.authorization.k8s.io"},
        {"verb": "escalate", "resource": "clusterroles", "group": "rbac.authorization.k8s.io"},
        {
            "verb": "update",
            "resource": "validatingadmissionpolicybindings",
            "group": "admissionregistration.k8s.io",
        },
        {
            "verb": "update",
            "resource": "customresourcedefinitions",
            "group": "apiextensions.k8s.io",
        },
        {"verb": "impersonate", "resource": "users"},
        {"verb": "get", "resource": "configmaps"},
        {"verb": "patch", "resource": "resourcequotas"},
        {"verb": "delete", "resource": "leases", "group": "coordination.k8s.io"},
        {"verb": "delete", "resource": "events", "group": "events.k8s.io"},
        {"verb": "create", "resource": "daemonsets", "group": "apps"},
        {"verb": "use", "resource": "hostdevices", "group": "numavm.io"},
        {"verb": "use", "resource": "forceddeletions", "group": "numavm.io"},
    ],
    ids=lambda one: f"{one['verb']}-{one['resource']}-{one.get('subresource', '')}",
)
def test_neither_operator_nor_agent_may(callers: Callers, attributes: dict[str, str]) -> None:
    for api in (callers.operator(), callers.agent("host-of-test")):
        assert not allowed(api, **attributes)
        assert not allowed(api, **attributes, namespace="kube-system")
        assert not allowed(api, **attributes, namespace="numavm-system")


def test_only_the_operator_may_touch_the_main_resource(callers: Callers) -> None:
    patch = {"verb": "patch", "resource": "numavms", "group": "numavm.io"}

    assert allowed(callers.operator(), **patch)
    assert not allowed(callers.agent("host-of-test"), **patch)


def test_the_operator_reads_hosts_and_quotas_and_writes_neither(callers: Callers) -> None:
    hosts = {"resource": "numahosts", "group": "numavm.io"}
    for one in (hosts, {"resource": "resourcequotas"}, {"resource": "nodes"}):
        assert allowed(callers.operator(), verb="list", **one)
        for verb in ("create", "update", "patch", "delete"):
            assert not allowed(callers.operator(), verb=verb, **one)
    assert not allowed(callers.operator(), verb="patch", subresource="status", **hosts)


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("numavm-view", ["get", "list", "watch"], ["create", "update", "patch", "delete"]),
        ("numavm-edit", ["create", "update", "patch", "delete"], ["use"]),
    ],
)
def test_people_may_what_their_role_says(
    role: str,
    may: list[str],
    may_not: list[str],
    control_plane: ControlPlane,
    callers: Callers,
    namespace: str,
) -> None:
    """The built-in view, edit and admin get these by aggregation, which is a controller's work."""
    user = f"{role}-of-{namespace}"
    rbac = client.RbacAuthorizationV1Api(callers.admin())
    rbac.create_namespaced_role_binding(
        namespace,
        client.V1RoleBinding(
            metadata=client.V1ObjectMeta(name=role),
            subjects=[client.RbacV1Subject(kind="User", name=user)],
            role_ref=client.V1RoleRef(
                api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=role
            ),
        ),
    )
    with client_from(kubeconfig_for_user(control_plane, user)) as api:
        for verb in may:
            await_right(api, verb=verb, resource="numavms", namespace=namespace)
        for verb in may_not:
            attributes = {"verb": verb, "resource": "numavms", "group": "numavm.io"}
            assert not allowed(api, **attributes, namespace=namespace)
        for subresource in ("status", "finalizers"):
            forged = {"resource": "numavms", "group": "numavm.io", "subresource": subresource}
            assert not allowed(api, verb="patch", **forged, namespace=namespace)


def test_powers_are_bound_cluster_wide_and_then_hold(
    control_plane: ControlPlane, callers: Callers, new_namespace: Callable[[], str]
) -> None:
    namespace, user = new_namespace(), "holder-of-powers"
    rbac = client.RbacAuthorizationV1Api(callers.admin())
    subjects = [client.RbacV1Subject(kind="User", name=user)]
    for role in ("numavm-host-powers", "numavm-edit"):
        reference = client.V1RoleRef(
            api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=role
        )
        rbac.create_cluster_role_binding(
            client.V1ClusterRoleBinding(
                metadata=client.V1ObjectMeta(name=f"{role}-{user}"),
                subjects=subjects,
                role_ref=reference,
            )
        )
    with client_from(kubeconfig_for_user(control_plane, user)) as api:
        await_right(api, verb="use", resource="hostpaths", name=namespace)
        vm = NumaVMs(api, namespace).create("vm", NO_CELLS)
        assert vm["metadata"]["name"] == "vm"


def test_an_agent_may_not_touch_what_is_another_hosts(callers: Callers, namespace: str) -> None:
    NumaVMs(callers.admin(), namespace).create("vm", NO_CELLS)
    operator = NumaVMs(callers.operator(), namespace)
    operator.apply_status("vm", {"nodeName": "host-a"}, "numavm-operator-claim")
    forged = {"domain": {"nodeName": "host-a", "state": "Running"}}

    with pytest.raises(client.ApiException) as refused:
        NumaVMs(callers.agent("host-b"), namespace).apply_status("vm", forged, "numavm-agent")
    assert refused.value.status == 403
    assert "host-b" in message_of(refused.value) or "node" in message_of(refused.value)
    written = NumaVMs(callers.agent("host-a"), namespace).apply_status("vm", forged, "numavm-agent")
    wait_for(
        lambda: written["status"]["domain"]["state"] == "Running", describe="the own agent may"
    )
