"""Who may write what, asked of a real API server as every kind of caller."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from numavm_lab.controlplane.accounts import AGENT, OPERATOR, mint_token
from support.cluster import Callers
from support.custom_objects import NumaHosts, NumaVMs, await_right, message_of, owner_of
from support.manifests import NO_CELLS

CLAIM: Mapping[str, Any] = {
    "id": "c1",
    "epoch": 1,
    "requestHash": "0" * 32,
    "cpuPlacement": "Shared",
    "summary": "0->0",
    "cells": [{"id": 0, "hostCells": "0", "mode": "Preferred", "memory": "512Mi", "vcpus": "0-1"}],
    "overhead": "200Mi",
    "overheadCell": 0,
}
CLAIMED: Mapping[str, Any] = {"nodeName": "host-a", "placement": CLAIM}
DOMAIN: Mapping[str, Any] = {"nodeName": "host-a", "state": "Running", "placementId": "c1"}
REFUSAL: Mapping[str, Any] = {
    "nodeName": "host-a",
    "placementId": "c1",
    "reason": "CpuTaken",
    "message": "",
    "hostResourceVersion": "1",
    "time": "2026-01-01T00:00:00Z",
}
CLAIM_MANAGER = "numavm-operator-claim"
STATUS_MANAGER = "numavm-operator-status"
AGENT_MANAGER = "numavm-agent"


def condition(kind: str, status: str = "True", reason: str = "Running") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def forbidden(write: Callable[..., object], *arguments: Any, **named: Any) -> str:
    """Return what the API server says while it refuses a call."""
    with pytest.raises(ApiException) as refused:
        write(*arguments, **named)
    assert refused.value.status == 403, message_of(refused.value)
    return message_of(refused.value)


@pytest.fixture
def admin(callers: Callers, namespace: str) -> NumaVMs:
    """The administrator, and one VM nobody has placed."""
    vms = NumaVMs(callers.admin(), namespace)
    vms.create("vm", NO_CELLS)
    return vms


@pytest.fixture
def operator(callers: Callers, admin: NumaVMs) -> NumaVMs:
    return NumaVMs(callers.operator(), admin.namespace)


@pytest.fixture
def agent(callers: Callers, admin: NumaVMs) -> NumaVMs:
    """The agent of host-a."""
    return NumaVMs(callers.agent("host-a"), admin.namespace)


@pytest.fixture
def claimed(operator: NumaVMs) -> NumaVMs:
    """The VM has a claim on host-a."""
    operator.apply_status("vm", CLAIMED, CLAIM_MANAGER)
    return operator


def test_a_claim_goes_its_way(claimed: NumaVMs, agent: NumaVMs) -> None:
    agent.apply_status(
        "vm", {"domain": DOMAIN, "conditions": [condition("Running")]}, AGENT_MANAGER
    )
    claimed.apply_status(
        "vm",
        {
            "observedGeneration": 1,
            "printableStatus": "Running",
            "conditions": [condition("Ready"), condition("Scheduled")],
        },
        STATUS_MANAGER,
    )
    status = agent.get("vm")["status"]

    assert {"Running", "Ready", "Scheduled"} == {one["type"] for one in status["conditions"]}
    assert status["domain"] == DOMAIN
    assert status["placement"] == CLAIM


def test_conditions_of_two_managers_stay_apart(claimed: NumaVMs, agent: NumaVMs) -> None:
    agent.apply_status("vm", {"conditions": [condition("Running")]}, AGENT_MANAGER)
    claimed.apply_status("vm", {"conditions": [condition("Ready")]}, STATUS_MANAGER)
    changed = condition("Running", "False", "GuestShutdown")
    agent.apply_status("vm", {"conditions": [changed]}, AGENT_MANAGER)

    kept = {one["type"]: one for one in agent.get("vm")["status"]["conditions"]}
    assert kept == {"Running": changed, "Ready": condition("Ready")}


def test_an_apply_that_leaves_a_field_out_deletes_it(claimed: NumaVMs) -> None:
    assert "placement" in claimed.get("vm")["status"]
    claimed.apply_status("vm", {}, CLAIM_MANAGER)

    status = claimed.get("vm").get("status", {})
    assert not {"nodeName", "placement"} & status.keys()


def test_a_claim_is_replaced_whole(claimed: NumaVMs) -> None:
    """Two claims never melt into one, whoever applied the first."""
    other = {**CLAIM, "id": "c2", "summary": "0->1"}
    with_emulator = {**CLAIM, "emulatorCpus": "3"}
    claimed.apply_status("vm", {"nodeName": "host-a", "placement": with_emulator}, "another")
    claimed.apply_status("vm", {"nodeName": "host-a", "placement": other}, CLAIM_MANAGER)

    assert other == claimed.get("vm")["status"]["placement"]


def test_nobody_else_forges_a_claim(admin: NumaVMs, callers: Callers) -> None:
    owner = NumaVMs(owner_of(callers, admin.namespace), admin.namespace)
    for forger in (owner, admin):
        told = forbidden(forger.patch_status, "vm", CLAIMED)
        assert "status.nodeName, status.placement is written only by" in told
        told = forbidden(forger.apply_status, "vm", CLAIMED, CLAIM_MANAGER)
        assert "numavm-operator" in told

    assert "status" not in admin.get("vm")


@pytest.mark.parametrize(
    "status",
    [
        {"nodeName": "host-b"},
        {"placement": {**CLAIM, "id": "forged"}},
        {"placement": None},
        {"printableStatus": "Running"},
        {"observedGeneration": 7},
        {"refusals": []},
        {"reservedNodeName": "host-b"},
        {"domain": DOMAIN},
        {"numa": {"cells": [], "verifiedAt": "now"}},
        {"conditions": [condition("Ready")]},
        {"conditions": [condition("Running")]},
    ],
    ids="-".join,
)
def test_a_namespace_owner_changes_nothing_of_a_status(
    claimed: NumaVMs, callers: Callers, status: dict[str, Any]
) -> None:
    owner = NumaVMs(owner_of(callers, claimed.namespace), claimed.namespace)

    assert "written only by" in forbidden(owner.patch_status, "vm", status)


def test_a_status_in_a_creation_is_dropped(callers: Callers, namespace: str) -> None:
    custom = client.CustomObjectsApi(owner_of(callers, namespace))
    body = {
        "apiVersion": "numavm.io/v1alpha1",
        "kind": "NumaVM",
        "metadata": {"name": "born-claimed", "namespace": namespace},
        "spec": NO_CELLS,
        "status": CLAIMED,
    }
    made = custom.create_namespaced_custom_object(
        "numavm.io", "v1alpha1", namespace, "numavms", body
    )

    assert "status" not in made


def test_an_agent_reports_only_on_vms_of_its_node(claimed: NumaVMs, callers: Callers) -> None:
    report = {"domain": DOMAIN, "conditions": [condition("Running")]}
    for node in ("host-b", None):
        foreign = NumaVMs(callers.agent(node), claimed.namespace)
        told = forbidden(foreign.apply_status, "vm", report, AGENT_MANAGER)
        assert (
            f"status.nodeName is 'host-a', but your token is bound to node '{node or ''}'" in told
        )


def test_an_agent_reports_on_no_vm_without_a_node(agent: NumaVMs, callers: Callers) -> None:
    unbound = NumaVMs(callers.agent(None), agent.namespace)
    for one in (agent, unbound):
        forbidden(one.apply_status, "vm", {"domain": DOMAIN}, AGENT_MANAGER)


@pytest.mark.parametrize(
    "status",
    [
        {"nodeName": "host-b"},
        {"nodeName": None},
        {"placement": {**CLAIM, "dedicatedCpus": "0-7"}},
        {"printableStatus": "Running"},
        {"observedGeneration": 1},
        {"refusals": [REFUSAL]},
        {"conditions": [condition("Ready")]},
        {"conditions": [condition("HostReachable")]},
    ],
    ids="-".join,
)
@pytest.mark.usefixtures("claimed")
def test_an_agent_writes_nothing_of_the_operators_part(
    agent: NumaVMs, status: dict[str, Any]
) -> None:
    told = forbidden(agent.patch_status, "vm", status)

    assert "written only by system:serviceaccount:numavm-system:numavm-operator" in told


@pytest.mark.parametrize(
    "status",
    [
        {"domain": dict(DOMAIN)},
        {"memory": {"guestAtBoot": "1Gi", "guestRequested": "1Gi", "guestCurrent": "1Gi"}},
        {"conditions": [condition("NumaAligned")]},
    ],
    ids="-".join,
)
def test_the_operator_writes_nothing_of_the_agents_part(
    claimed: NumaVMs, status: dict[str, Any]
) -> None:
    told = forbidden(claimed.patch_status, "vm", status)

    assert "written only by system:serviceaccount:numavm-system:numavm-agent" in told


def test_the_operator_changes_only_its_finalizer(operator: NumaVMs) -> None:
    ours = ["numavm.io/teardown"]
    operator.patch("vm", {"metadata": {"finalizers": ours}})
    for change in (
        {"spec": {"runStrategy": "Halted"}},
        {"spec": {"domain": {"memory": {"guest": "1Gi"}}}},
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"annotations": {"a": "b"}}},
        {"metadata": {"finalizers": [*ours, "example.com/other"]}},
    ):
        told = forbidden(operator.patch, "vm", change)
        assert "may change the finalizer numavm.io/teardown, and nothing else" in told
    operator.patch("vm", {"metadata": {"finalizers": []}})

    assert "finalizers" not in operator.get("vm")["metadata"]


def test_an_agent_changes_no_vm(agent: NumaVMs) -> None:
    forbidden(agent.patch, "vm", {"spec": {"runStrategy": "Halted"}})
    forbidden(agent.patch, "vm", {"metadata": {"finalizers": ["numavm.io/teardown"]}})


def test_a_node_bound_token_of_another_account_is_no_agent(
    claimed: NumaVMs, callers: Callers
) -> None:
    """The binding is not enough: the operator's account on that node is still the operator."""
    token = mint_token(callers.admin(), OPERATOR, node="host-a")
    settings = client.Configuration()
    theirs = callers.operator().configuration
    settings.host, settings.ssl_ca_cert = theirs.host, theirs.ssl_ca_cert
    settings.api_key = {"authorization": f"Bearer {token}"}
    with client.ApiClient(settings) as api:
        bound = NumaVMs(api, claimed.namespace)
        told = forbidden(bound.patch_status, "vm", {"domain": DOMAIN})

    assert "status.domain is written only by" in told


def test_an_agent_makes_the_host_of_its_node_and_no_other(callers: Callers) -> None:
    hosts = NumaHosts(callers.agent("host-own"))
    hosts.create("host-own")
    unbound = NumaHosts(callers.agent(None))

    assert "belongs to the agent of that node" in forbidden(hosts.create, "host-other")
    assert "belongs to the agent of that node" in forbidden(unbound.create, "host-unbound")


def test_an_agent_gives_itself_no_pools_at_creation(callers: Callers) -> None:
    hosts = NumaHosts(callers.agent("host-pools"))
    for spec in ({}, {"dedicatedCpus": "0-63"}, {"permitted": {"directories": ["/etc"]}}):
        told = forbidden(hosts.create, "host-pools", spec=spec)
        assert "spec is the administrator's: an agent leaves it out at creation" in told


@pytest.fixture
def agents_may_patch_hosts(callers: Callers) -> Iterator[None]:
    """More than their role gives, so that the policy is seen to hold by itself."""
    rbac = client.RbacAuthorizationV1Api(callers.admin())
    name = "test-agents-patch-hosts"
    metadata = client.V1ObjectMeta(name=name)
    rule = client.V1PolicyRule(api_groups=["numavm.io"], resources=["numahosts"], verbs=["patch"])
    subject = client.RbacV1Subject(
        kind="ServiceAccount", name=AGENT.name, namespace=AGENT.namespace
    )
    reference = client.V1RoleRef(
        api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=name
    )
    rbac.create_cluster_role(client.V1ClusterRole(metadata=metadata, rules=[rule]))
    rbac.create_cluster_role_binding(
        client.V1ClusterRoleBinding(metadata=metadata, subjects=[subject], role_ref=reference)
    )
    await_right(callers.agent("host-a"), verb="patch", resource="numahosts")
    yield
    rbac.delete_cluster_role_binding(name)
    rbac.delete_cluster_role(name)


@pytest.mark.usefixtures("agents_may_patch_hosts")
def test_an_agent_gives_itself_no_pools_later(callers: Callers) -> None:
    hosts = NumaHosts(callers.agent("host-later"))
    hosts.create("host-later")
    NumaHosts(callers.admin()).patch("host-later", {"spec": {"dedicatedCpus": "2-3"}})
    hosts.patch("host-later", {"metadata": {"annotations": {"a": "b"}}})
    for change, says in (
        ({"spec": {"dedicatedCpus": "0-63"}}, "spec is the administrator's"),
        ({"spec": None}, "spec is the administrator's"),
        ({"metadata": {"finalizers": ["example.com/keep"]}}, "metadata.finalizers"),
    ):
        assert says in forbidden(hosts.patch, "host-later", change)
    foreign = NumaHosts(callers.agent("host-a"))
    told = forbidden(foreign.patch, "host-later", {"metadata": {"annotations": {"a": "c"}}})

    assert "belongs to the agent" in told


def test_a_host_is_reported_on_by_its_own_agent_alone(callers: Callers) -> None:
    own = NumaHosts(callers.agent("host-report"))
    own.create("host-report")
    own.apply_status("host-report", {"bootId": "b1", "highestEpoch": 3})

    for api in (callers.agent("host-a"), callers.agent(None), callers.operator(), callers.admin()):
        foreign = NumaHosts(api)
        told = forbidden(foreign.apply_status, "host-report", {"bootId": "forged"})
        assert "host-report" in told


def lease(name: str) -> client.V1Lease:
    return client.V1Lease(
        metadata=client.V1ObjectMeta(name=name),
        spec=client.V1LeaseSpec(holder_identity="test", lease_duration_seconds=20),
    )


def test_leases_belong_to_their_holders(callers: Callers) -> None:
    def create(api: client.ApiClient, name: str) -> object:
        leases = client.CoordinationV1Api(api)
        return leases.create_namespaced_lease("numavm-system", lease(name))

    create(callers.agent("host-lease"), "numavm-host-host-lease")
    create(callers.operator(), "numavm-operator")
    for api, name in (
        (callers.agent("host-lease"), "numavm-host-host-a"),
        (callers.agent("host-lease"), "numavm-operator"),
        (callers.agent(None), "numavm-host-host-a"),
        (callers.operator(), "numavm-host-host-a"),
    ):
        told = forbidden(create, api, name)
        assert f"Lease {name} is not yours" in told


def test_a_lease_is_not_renewed_by_another(callers: Callers) -> None:
    name = "numavm-host-host-renew"
    own = client.CoordinationV1Api(callers.agent("host-renew"))
    held = own.create_namespaced_lease("numavm-system", lease(name))
    held = own.replace_namespaced_lease(name, "numavm-system", held)
    other = client.CoordinationV1Api(callers.agent("host-a"))
    told = forbidden(other.replace_namespaced_lease, name, "numavm-system", held)

    assert "yours is 'numavm-host-host-a'" in told
