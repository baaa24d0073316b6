"""Operators that die, freeze, and stand by for each other: no VM is lost, none is started twice."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from numavm_api.killpoints import KILL_POINT_VARIABLE, OPERATOR_POINTS
from numavm_lab.controlplane.plane import ControlPlane
from support.cluster import Callers
from support.fake_agent import FakeAgent, Machine
from support.operator_process import (
    OperatorProcess,
    Vms,
    condition,
    fake_hosts,
    no_cpu_twice,
    operators,
)
from support.wait import wait_for

pytestmark = pytest.mark.usefixtures("fleet_of_its_own")

SHORT_LEASE = ("--lease-seconds", "6", "--lease-renew-seconds", "1")


@pytest.fixture(scope="module")
def host(callers: Callers) -> Iterator[FakeAgent]:
    with fake_hosts(callers, "lead-a", machine=Machine(cpus_per_cell=8)) as agents:
        yield agents[0]


@pytest.fixture
def vms(callers: Callers, namespace: str) -> Vms:
    return Vms(callers.admin(), namespace)


def lease_holder(callers: Callers) -> str:
    api = client.CoordinationV1Api(callers.admin())
    lease = api.read_namespaced_lease("numavm-operator", "numavm-system")
    holder: str = lease.spec.holder_identity
    return holder


def test_a_standby_takes_over_when_the_leader_ends_and_when_it_is_killed(
    control_plane: ControlPlane, tmp_path: Path, callers: Callers, vms: Vms, host: FakeAgent
) -> None:
    with operators(control_plane, tmp_path) as start:
        one = start("one", *SHORT_LEASE, "--identity", "one")
        one.wait_logged("leading")
        two = start("two", *SHORT_LEASE, "--identity", "two")
        two.wait_logged("standing_by")
        vms.create("first")
        vms.wait_ready("first")
        assert two.http("/readyz") == "ok\n"
        assert two.logged("leading") == []

        one.stop()
        two.wait_logged("leading")
        assert lease_holder(callers) == "two"
        vms.create("second")
        vms.wait_ready("second")

        one.start()
        one.wait_logged("standing_by", times=2)
        two.kill()
        one.wait_logged("leading", times=2)
        vms.create("third")
        vms.wait_ready("third")

        epochs = [line["epoch"] for line in one.logged("leading") + two.logged("leading")]
        assert len(epochs) == len(set(epochs)) == 3
        assert len(host.ever_started) == len({uid for uid, _ in host.ever_started})
        no_cpu_twice(vms.all())
        vms.delete_all()


def test_a_leader_that_was_frozen_past_its_lease_writes_nothing_when_it_goes_on(
    control_plane: ControlPlane, tmp_path: Path, vms: Vms, host: FakeAgent
) -> None:
    with operators(control_plane, tmp_path) as start:
        frozen = start("frozen", *SHORT_LEASE, "--identity", "frozen")
        frozen.wait_logged("placing")
        frozen.signal(signal.SIGSTOP)
        other = start("other", *SHORT_LEASE, "--identity", "other")
        other.wait_logged("placing")
        # Seen by both: events wait in the frozen leader's sockets.
        for name in ("a", "b", "c"):
            vms.create(name)
            vms.wait_ready(name)
        written = {vm["metadata"]["name"]: vm["status"]["placement"] for vm in vms.all()}

        frozen.signal(signal.SIGCONT)

        frozen.wait_logged("starting_over")
        frozen.wait_logged("standing_by", times=2)
        assert frozen.is_alive()
        assert frozen.logged("placed") == []
        assert written == {vm["metadata"]["name"]: vm["status"]["placement"] for vm in vms.all()}
        assert {other.logged("leading")[0]["epoch"]} == {one["epoch"] for one in written.values()}
        assert host.refused == []
        vms.delete_all()


@pytest.mark.parametrize("what", ["taken", "deleted"])
def test_a_lease_that_is_not_as_the_leader_wrote_it_makes_it_start_over(
    control_plane: ControlPlane, tmp_path: Path, callers: Callers, what: str
) -> None:
    leases = client.CoordinationV1Api(callers.admin())
    path = ("numavm-operator", "numavm-system")
    with operators(control_plane, tmp_path) as start:
        operator = start("robbed", *SHORT_LEASE, "--identity", "robbed")
        operator.wait_logged("placing")
        if what == "taken":
            leases.patch_namespaced_lease(*path, {"spec": {"holderIdentity": "robber"}})
        else:
            leases.delete_namespaced_lease(*path)

        (lost, *_) = operator.wait_logged("starting_over")
        assert lost["reason"] == ("Stolen" if what == "taken" else "Rewound")
        # The robber never renews, so that the Lease is free after its length.
        operator.wait_logged("leading", times=2)
        before, after = (line["epoch"] for line in operator.logged("leading"))
        assert before < after or what == "deleted"


def test_operators_killed_at_every_point_one_after_the_other_lose_nothing(
    control_plane: ControlPlane, tmp_path: Path, vms: Vms, host: FakeAgent
) -> None:
    """Each heir finds what its forerunner left half-done, and dies at the next point."""
    # One identity: what is dead for certain need not be waited for.
    options = (*SHORT_LEASE, "--identity", "mortal")
    started = len(host.ever_started)
    uids = set()
    with operators(control_plane, tmp_path) as start:
        for point in OPERATOR_POINTS:
            armed = start(point, *options, environment={KILL_POINT_VARIABLE: point})
            uids.add(vms.create(point)["metadata"]["uid"])
            ready_or_dead(vms, point, armed)
            if armed.is_alive():
                vms.delete(point)
            wait_for(
                lambda armed=armed: not armed.is_alive(),
                describe=f"dies at {armed.name}",
                deadline_seconds=60,
            )

        last = start("last", *options)
        last.wait_logged("placing")
        for vm in vms.all():
            if "deletionTimestamp" in vm["metadata"]:
                vms.wait_gone(vm["metadata"]["name"])
            else:
                vms.wait_ready(vm["metadata"]["name"])
        no_cpu_twice(vms.all())
        vms.delete_all()

        starts = [uid for uid, _ in host.ever_started[started:]]
        assert len(starts) == len(set(starts))
        assert set(starts) <= uids
        assert host.running_uids() == set()
        assert last.logged("reconcile_broke") + last.logged("placement_broke") == []


def ready_or_dead(vms: Vms, name: str, operator: OperatorProcess) -> None:
    wait_for(
        lambda: (
            condition((vms.get(name) or {}).get("status", {}), "Ready").get("status") == "True"
            or not operator.is_alive()
        ),
        describe=f"{name} is ready, or the operator is dead",
        deadline_seconds=60,
    )
