"""ResourceQuotas with NumaVM's resource names, on a real API server: kept, and let go when raised."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kubernetes import client

from numavm_lab.controlplane.plane import ControlPlane
from support.cluster import Callers
from support.operator_process import (
    Json,
    OperatorProcess,
    Vms,
    condition,
    fake_hosts,
    operators,
    small,
    vms_of,
)

pytestmark = pytest.mark.usefixtures("fleet_of_its_own")


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane, callers: Callers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    with (
        fake_hosts(callers, "quota-a"),
        operators(control_plane, tmp_path_factory.mktemp("quota")) as start,
    ):
        process = start("operator")
        process.wait_logged("placing")
        yield process


@pytest.fixture
def vms(callers: Callers, namespace: str, operator: OperatorProcess) -> Iterator[Vms]:
    with vms_of(callers, namespace, operator) as made:
        yield made


def over_quota(status: Json) -> bool:
    return condition(status, "Scheduled").get("reason") == "QuotaExceeded"


def test_a_namespace_holds_no_more_than_its_quota_and_more_once_that_is_raised(
    vms: Vms, callers: Callers, namespace: str
) -> None:
    api = client.CoreV1Api(callers.admin())
    hard = {"numavm.io/dedicated-cpus": "2", "numavm.io/memory": "4Gi"}
    quota = client.V1ResourceQuota(
        metadata=client.V1ObjectMeta(name="team"), spec=client.V1ResourceQuotaSpec(hard=hard)
    )
    api.create_namespaced_resource_quota(namespace, quota)
    vms.create("first", **small(cores=2))
    vms.wait_ready("first")

    vms.create("second", **small(cores=1))
    told = vms.wait("second", over_quota, "is over the quota")
    message = condition(told, "Scheduled")["message"]
    assert "ResourceQuota team has numavm.io/dedicated-cpus 2" in message
    assert "wants 1 more: raise the quota to 3, or halt VMs that hold 1" in message
    assert "placement" not in told

    hard["numavm.io/dedicated-cpus"] = "3"
    api.patch_namespaced_resource_quota("team", namespace, {"spec": {"hard": hard}})
    vms.wait_ready("second")

    vms.create("third", **small(cores=1))
    vms.wait("third", over_quota, "is over the quota")
    vms.patch("first", {"spec": {"runStrategy": "Halted"}})
    vms.wait_ready("third")
