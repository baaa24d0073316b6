"""The API server goes back in time, as from a backup.

What runs is the truth, and nothing is promised twice.
"""

from pathlib import Path

from kubernetes import client

from numavm_api.cpuset import CpuSet
from numavm_lab.controlplane.manifests import install_manifests
from numavm_lab.controlplane.plane import ControlPlane
from support.cluster import callers_of
from support.fake_agent import FakeAgent
from support.operator_process import (
    OperatorProcess,
    Vms,
    condition,
    fake_hosts,
    no_cpu_twice,
    operators,
    small,
)


def test_a_restored_api_server_stops_no_guest_and_promises_no_cpu_twice(
    own_control_plane: ControlPlane, tmp_path: Path
) -> None:
    plane = own_control_plane
    plane.start()
    install_manifests(plane)
    with (
        callers_of(plane) as callers,
        fake_hosts(callers, "rewind-a") as hosts,
        operators(plane, tmp_path) as start,
    ):
        host, vms = hosts[0], Vms(callers.admin(), "default")
        operator = start()
        operator.wait_logged("placing")
        # Six CPUs: five are held, two more are waited for.
        for name in ("f1", "f2", "f3", "f4", "f5"):
            vms.create(name)
            vms.wait_ready(name)
        waiting = vms.create("waiting", **small(cores=2))["metadata"]["uid"]
        vms.wait("waiting", lambda status: "printableStatus" in status, "is looked at")
        plane.snapshot(tmp_path / "etcd.snapshot")
        for name in ("f1", "f2"):
            vms.delete(name)
            vms.wait_gone(name)
        before = vms.wait_ready("waiting")["placement"]
        new = vms.create("new")["metadata"]["uid"]
        vms.wait_ready("new")
        running = host.running_uids()
        started = list(host.ever_started)

        plane.restore(tmp_path / "etcd.snapshot")

        after = vms.wait_ready("waiting", deadline_seconds=120)["placement"]
        assert after == before
        for name in ("f1", "f2"):
            vms.wait(name, unschedulable, "finds no room", deadline_seconds=120)
        assert host.running_uids() == running
        assert waiting in running
        assert vms.get("new") is None
        assert {new} == orphans(vms)
        assert host.ever_started == started
        no_cpu_twice(vms.all())
        held = [domain.placement.dedicated_cpus for domain in host.domains.values()]
        assert sum(len(cpus) for cpus in held) == len(CpuSet.union_of(held))
        assert_started_over(operator)
        end_orphans(host, new)
        vms.wait_ready("f1")
        vms.delete_all()


def unschedulable(status: dict[str, object]) -> bool:
    return (
        status.get("printableStatus") == "ErrorUnschedulable"
        and condition(status, "Scheduled").get("reason") == "Unschedulable"
    )


def orphans(vms: Vms) -> set[str]:
    found = client.CustomObjectsApi(vms.api_client).get_cluster_custom_object(
        "numavm.io", "v1alpha1", "numahosts", "rewind-a"
    )
    return {claim["uid"] for claim in found["status"]["claims"] if claim["orphan"]}


def end_orphans(host: FakeAgent, uid: str) -> None:
    """As `kubectl numavm destroy` would."""
    del host.domains[uid]


def assert_started_over(operator: OperatorProcess) -> None:
    reasons = {line["reason"] for line in operator.logged("starting_over")}
    assert reasons
    assert reasons <= {"Expired", "Rewound"}
