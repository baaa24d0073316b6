"""The agent's Lease: a host that is new is not kept waiting until its second heartbeat."""

from kubernetes import client, watch

from numavm_agent.kube.api import KubeApi
from numavm_agent.kube.events import EventRecorder
from numavm_agent.kube.transport import Transport
from numavm_api.numahost import LEASE_NAMESPACE, LEASE_PREFIX
from numavm_lab.controlplane.accounts import ensure_node
from support.cluster import Callers

NODE = "lease-new-host"
CHANGES = 2


def test_a_new_lease_is_made_and_at_once_seen_to_change(callers: Callers) -> None:
    ensure_node(callers.admin(), NODE)
    leases = client.CoordinationV1Api(callers.admin())
    before = leases.list_namespaced_lease(LEASE_NAMESPACE).metadata.resource_version
    transport = Transport(callers.agent(NODE).configuration)

    KubeApi(transport, NODE, EventRecorder(transport, NODE)).renew_lease("7")

    follow = watch.Watch()
    seen = []
    for event in follow.stream(
        leases.list_namespaced_lease,
        LEASE_NAMESPACE,
        field_selector=f"metadata.name={LEASE_PREFIX}{NODE}",
        resource_version=before,
        timeout_seconds=10,
    ):
        seen.append((event["type"], event["object"].spec.renew_time))
        if len(seen) == CHANGES:
            follow.stop()
    assert [kind for kind, _ in seen] == ["ADDED", "MODIFIED"]
    assert seen[0][1] < seen[1][1]
