"""The Helm chart on a real cluster: kubelet, containerd, images built here, this machine's own libvirt.

One guest runs through install, upgrade, rollback, removal and a second install, in one and the same QEMU process.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from kubernetes import client

from numavm_api.cpuset import CpuSet
from numavm_lab.controlplane.credentials import kubeconfig_for_user
from numavm_lab.controlplane.manifests import kubectl
from numavm_lab.controlplane.node import WholeNode
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.whole_cluster import helm_values, start_node, stop_node
from support.cluster import Callers, callers_of, client_from
from support.custom_objects import await_right
from support.helm import CHART, NAMESPACE
from support.vms import Vms, condition, vm_manifest
from support.wait import wait_for

pytestmark = pytest.mark.long

_HELM_SECONDS = "240s"
_ROLLED = ["--set", "agent.podAnnotations.turn=two", "--set", "operator.podAnnotations.turn=two"]


@dataclass
class Cluster:
    """What the tests work with."""

    plane: ControlPlane
    node: WholeNode
    callers: Callers
    program: Path

    def helm(self, *words: str, fails: bool = False) -> str:
        """Run helm as administrator; return what it says."""
        done = subprocess.run(
            [self.program, *words, "--namespace", NAMESPACE],
            env={**os.environ, "KUBECONFIG": str(self.plane.admin_kubeconfig)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout + self.told()
        return done.stdout

    def install(self, *words: str) -> str:
        """Install or upgrade the chart as it fits here."""
        values = [word for value in helm_values(self.plane) for word in ("--set", value)]
        wait = ["--wait", "--timeout", _HELM_SECONDS, "--create-namespace"]
        return self.helm("upgrade", "--install", "numavm", str(CHART), *wait, *values, *words)

    def pods(self, component: str) -> list[dict[str, object]]:
        """Return the pods of a component."""
        selector = f"app.kubernetes.io/component={component}"
        words = ("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "json")
        return json.loads(kubectl(self.plane, *words))["items"]

    def told(self) -> str:
        """Return what pods and events say, for a failure's text."""
        words = ("get", "pods,events", "-n", NAMESPACE, "-o", "wide")
        return "\n" + kubectl(self.plane, *words)[-6000:]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    directory = Path("/tmp/numavm-whole-cluster")  # noqa: S108 - sockets want a short path
    plane = ControlPlane(directory / "cluster", unsafe_no_fsync=True, progress=print)
    try:
        plane.start()
        program = start_node(plane, print)
        with callers_of(plane) as callers:
            yield Cluster(plane, WholeNode(plane), callers, program)
    finally:
        stop_node(plane)
        plane.remove()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def vms(cluster: Cluster) -> Vms:
    """The NumaVMs of a cluster where the chart is installed and the administrator has named a CPU."""
    told = cluster.install()
    assert "kubectl get nhost" in told
    vms = Vms(cluster.callers.admin(), "default")
    wait_for(vms.hosts, deadline_seconds=60, describe="the agent has made its NumaHost")
    last = os.cpu_count() - 1
    vms.patch_host(cluster.node.name, allowEmulation=True, dedicatedCpus=str(last))
    wait_for(
        lambda: vms.host(cluster.node.name),
        until=lambda host: (
            condition(host, "Ready").get("status")
            == condition(host, "PoolsConfigured").get("status")
            == "True"
        ),
        deadline_seconds=180,
        describe="the NumaHost is Ready, with the pool that the administrator named",
    )
    return vms


def qemu(uid: str) -> tuple[int, float]:
    """Return pid and start time of the guest's process."""
    for process in psutil.process_iter(["cmdline", "create_time"]):
        words = process.info["cmdline"] or []
        if "-uuid" in words and uid in words:
            return process.pid, process.info["create_time"]
    raise AssertionError(f"no QEMU of {uid}")


def test_one_guest_through_the_whole_life_of_a_release(cluster: Cluster, vms: Vms) -> None:
    vms.create(vm_manifest("guest", [(1, "64Mi")]))
    uid = vms.wait_ready("guest", 180)["metadata"]["uid"]
    process = qemu(uid)

    cluster.helm("test", "numavm")
    first = {pod["metadata"]["uid"] for pod in cluster.pods("agent") + cluster.pods("operator")}
    cluster.install(*_ROLLED)
    second = {pod["metadata"]["uid"] for pod in cluster.pods("agent") + cluster.pods("operator")}
    assert not first & second, "the upgrade replaced every pod"
    assert qemu(uid) == process

    cluster.helm("rollback", "numavm", "1", "--wait", "--timeout", _HELM_SECONDS)
    assert qemu(uid) == process
    vms.wait_ready("guest", 120)

    told = cluster.helm("uninstall", "numavm", fails=True)
    assert cluster.pods("agent"), "a refused removal removes nothing"
    log = kubectl(cluster.plane, "logs", "-n", NAMESPACE, "job/numavm-uninstall-guard")
    assert "1 NumaVMs exist: default/guest. Delete them first" in log, told

    cluster.helm("uninstall", "numavm", "--no-hooks", "--wait")
    wait_for(lambda: not cluster.pods("agent"), deadline_seconds=60, describe="no agent is left")
    assert qemu(uid) == process
    assert vms.get("guest")["metadata"]["uid"] == uid

    cluster.install()
    vms.wait_ready("guest", 180)
    assert qemu(uid) == process

    vms.delete_and_wait("guest", deadline_seconds=120)
    cluster.helm("uninstall", "numavm", "--wait")
    crds = kubectl(cluster.plane, "get", "crds", "-o", "name")
    assert "numavms.numavm.io" in crds
    cluster.install()


def test_pods_have_the_privileges_that_the_chart_names(vms: Vms) -> None:
    wait_for(vms.hosts, describe="the chart is installed")
    programs = {"numavm-operator": (65532, 0), "numavm-agent": (0, 1 << 19 | 1 << 23)}
    seen = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        name = next((Path(word).name for word in words[:2] if Path(word).name in programs), None)
        if name is None or "/opt/numavm" not in " ".join(words[:2]):
            continue
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
        seen[name] = (int(fields["Uid"].split()[0]), int(fields["CapEff"], 16))
        assert fields["NoNewPrivs"] == "1"
    assert seen == programs


@pytest.mark.parametrize(
    ("role", "may", "may_not"), [("view", "list", "create"), ("edit", "create", "escalate")]
)
def test_the_built_in_roles_know_numavms(
    cluster: Cluster, vms: Vms, role: str, may: str, may_not: str
) -> None:
    assert vms.namespace == "default"
    rbac = client.RbacAuthorizationV1Api(cluster.callers.admin())
    reference = client.V1RoleRef(
        api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=role
    )
    rbac.create_namespaced_role_binding(
        "default",
        client.V1RoleBinding(
            metadata=client.V1ObjectMeta(name=f"built-in-{role}"),
            subjects=[client.RbacV1Subject(kind="User", name=f"built-in-{role}")],
            role_ref=reference,
        ),
    )
    with client_from(kubeconfig_for_user(cluster.plane, f"built-in-{role}")) as api:
        await_right(api, verb=may, resource="numavms", namespace="default")
        body = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(
                resource_attributes=client.V1ResourceAttributes(
                    group="numavm.io", resource="numavms", namespace="default", verb=may_not
                )
            )
        )
        answer = client.AuthorizationV1Api(api).create_self_subject_access_review(body)
        assert not answer.status.allowed


def test_the_kubelet_says_what_it_may_give_to_pods_and_an_overlap_is_a_condition(
    cluster: Cluster, vms: Vms
) -> None:
    name, last = cluster.node.name, os.cpu_count() - 1
    others = vms.host(name)["status"]["others"]
    rest = CpuSet(frozenset(range(last)))
    assert others["kubelet"]["allocatableCpus"] == str(rest), "all but its reservedSystemCPUs"
    found = condition(vms.host(name), "PoolsExclusive")
    assert (found["status"], found["reason"]) == ("True", "Exclusive"), found

    vms.patch_host(name, dedicatedCpus=f"0,{last}")
    overlap = wait_for(
        lambda: condition(vms.host(name), "PoolsExclusive"),
        until=lambda one: one["status"] == "False",
        describe="the overlap is said",
    )
    assert "the kubelet may give CPU 0 of NumaVM's pools to a pod" in overlap["message"]
    assert f"reservedSystemCPUs hold '{CpuSet.of(0, last)}'" in overlap["message"]
    vms.patch_host(name, dedicatedCpus=str(last))
    wait_for(
        lambda: condition(vms.host(name), "PoolsExclusive")["status"] == "True",
        describe="the overlap is over",
    )


def test_neither_image_carries_the_others_libraries(cluster: Cluster, vms: Vms) -> None:
    wait_for(vms.hosts, describe="the chart is installed")
    for component, absent in (("operator", "libvirt"), ("agent", "kopf")):
        pod = cluster.pods(component)[0]["metadata"]["name"]
        code = f"import importlib.util as u; print(u.find_spec('{absent}'), u.find_spec('pydantic') is not None)"
        words = ("exec", "-n", NAMESPACE, str(pod), "--", "python", "-c", code)
        assert kubectl(cluster.plane, *words).split() == ["None", "True"]


def test_a_person_describes_what_runs(cluster: Cluster, vms: Vms) -> None:
    program = Path(sys.executable).parent / "kubectl-numavm"
    done = subprocess.run(
        [program, "topology"],
        env={**os.environ, "KUBECONFIG": str(cluster.plane.admin_kubeconfig)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert vms.hosts()[0]["metadata"]["name"] in done.stdout
