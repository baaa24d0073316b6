"""What the operator does with NumaVMs: a real API server, two hosts with agents by the contract."""

import json
import re
from collections.abc import Iterator

import pytest
from kubernetes import client

from numavm_api.base import GROUP, VERSION
from numavm_api.cpuset import CpuSet
from numavm_api.vm_status import ShutoffReason
from numavm_lab.controlplane.plane import ControlPlane
from support.cluster import Callers
from support.fake_agent import FakeAgent
from support.operator_process import (
    OperatorProcess,
    Vms,
    condition,
    fake_hosts,
    no_cpu_twice,
    operators,
    small,
    vms_of,
)
from support.wait import wait_for

pytestmark = pytest.mark.usefixtures("fleet_of_its_own")

CPUS_PER_HOST = 6
"""2 cells x 4 CPUs, the first of each left to the host."""


@pytest.fixture(scope="module")
def hosts(callers: Callers) -> Iterator[list[FakeAgent]]:
    with fake_hosts(callers, "main-a", "main-b") as agents:
        yield agents


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane,
    tmp_path_factory: pytest.TempPathFactory,
    hosts: list[FakeAgent],
) -> Iterator[OperatorProcess]:
    assert hosts
    with operators(control_plane, tmp_path_factory.mktemp("main")) as start:
        process = start()
        process.wait_logged("placing")
        yield process


@pytest.fixture
def vms(callers: Callers, namespace: str, operator: OperatorProcess) -> Iterator[Vms]:
    with vms_of(callers, namespace, operator) as made:
        yield made


def writes(operator: OperatorProcess) -> dict[str, float]:
    """Return how many writes the operator has sent, by resource."""
    found = re.findall(
        r'numavm_operator_api_writes_total\{resource="([^"]+)"\} ([0-9.]+)',
        operator.http("/metrics"),
    )
    return {resource: float(count) for resource, count in found}


def on_host(agents: list[FakeAgent], uid: str) -> list[str]:
    return [agent.name for agent in agents if uid in agent.running_uids()]


def test_a_vm_is_claimed_runs_and_goes(vms: Vms, hosts: list[FakeAgent]) -> None:
    uid = vms.create("vm")["metadata"]["uid"]

    status = vms.wait_ready("vm")

    assert [status["nodeName"]] == on_host(hosts, uid)
    assert status["printableStatus"] == "Running"
    assert status["observedGeneration"] == 1
    assert condition(status, "Accepted")["status"] == "True"
    assert condition(status, "Scheduled")["reason"] == "Placed"
    assert condition(status, "HostReachable")["status"] == "True"

    vms.delete("vm")
    vms.wait_gone("vm")

    assert on_host(hosts, uid) == []


def test_from_create_to_ready_the_operator_writes_no_more_than_needed(
    vms: Vms, operator: OperatorProcess
) -> None:
    before = writes(operator)
    created = int(vms.create("vm")["metadata"]["resourceVersion"])

    vms.wait_ready("vm")

    after = writes(operator)
    sent = {kind: after[kind] - before.get(kind, 0) for kind in after}
    assert {k: v for k, v in sent.items() if k == "numavms"} == {"numavms": 1.0}  # its finalizer
    # The claim and Ready; one more where the start took longer than a report is held back.
    assert sent["numavms/status"] in (2.0, 3.0)
    assert sent.get("events", 0.0) == 0.0
    assert created > 0


def test_many_at_once_share_no_cpu_and_one_too_many_waits_for_a_deletion(
    vms: Vms, hosts: list[FakeAgent]
) -> None:
    names = [f"vm-{number:02}" for number in range(2 * CPUS_PER_HOST)]
    for name in names:
        vms.create(name)
    for name in names:
        vms.wait_ready(name)
    no_cpu_twice(vms.all())
    for agent in hosts:
        assert agent.refused == []
        held = [domain.placement.dedicated_cpus for domain in agent.domains.values()]
        assert sum(len(cpus) for cpus in held) == len(CpuSet.union_of(held)) == CPUS_PER_HOST

    vms.create("late")
    status = vms.wait(
        "late", lambda status: status.get("printableStatus") == "ErrorUnschedulable", "waits"
    )
    assert condition(status, "Scheduled")["reason"] == "Unschedulable"
    assert condition(status, "Scheduled")["message"].startswith("0/2 hosts fit")

    vms.delete(names[0])

    vms.wait_ready("late")
    no_cpu_twice(vms.all())
    told = wait_for(lambda: vms.events("late"), describe="an event says that it does not fit")
    assert [event["reason"] for event in told] == ["Unschedulable"]


def test_halted_holds_nothing_and_always_runs_again(vms: Vms, hosts: list[FakeAgent]) -> None:
    uid = vms.create("vm")["metadata"]["uid"]
    vms.wait_ready("vm")

    vms.patch("vm", {"spec": {"runStrategy": "Halted"}})
    status = vms.wait("vm", lambda status: status.get("printableStatus") == "Stopped", "stopped")

    assert condition(status, "Ready") | {"status": "True", "reason": "Halted"} == condition(
        vms.wait_ready("vm"), "Ready"
    )
    assert "placement" not in status
    assert "nodeName" not in status
    assert on_host(hosts, uid) == []

    vms.patch("vm", {"spec": {"runStrategy": "Always"}})
    vms.wait("vm", lambda status: status.get("printableStatus") == "Running", "runs again")
    assert len(on_host(hosts, uid)) == 1


def test_a_vm_created_halted_is_never_claimed_and_goes_at_once(vms: Vms) -> None:
    vms.create("vm", runStrategy="Halted")
    vms.wait_ready("vm")

    made = vms.get("vm")
    assert made is not None
    assert "finalizers" not in made["metadata"]
    vms.delete("vm")

    assert vms.get("vm") is None


def test_a_new_restart_token_with_another_shape_is_placed_anew(
    vms: Vms, hosts: list[FakeAgent]
) -> None:
    vms.create("vm")
    first = vms.wait_ready("vm")["placement"]["id"]

    vms.patch("vm", {"spec": {"restartToken": "2", "domain": {"cpu": {"cores": 2}}}})
    status = vms.wait(
        "vm",
        lambda status: len(CpuSet.parse(status.get("placement", {}).get("dedicatedCpus", ""))) == 2,
        "holds two CPUs",
    )

    assert status["placement"]["id"] != first
    vms.wait_ready("vm")
    assert sum(len(agent.running_uids()) for agent in hosts) == 1


def test_a_finished_vm_holds_nothing_until_its_restart_token_changes(
    vms: Vms, hosts: list[FakeAgent]
) -> None:
    uid = vms.create("vm", runStrategy="RerunOnFailure")["metadata"]["uid"]
    vms.wait_ready("vm")

    for agent in hosts:
        agent.end_domain("vm", ShutoffReason.GUEST_SHUTDOWN)
    status = vms.wait(
        "vm", lambda status: condition(status, "Ready").get("reason") == "Finished", "finished"
    )
    assert "placement" not in status
    assert status["printableStatus"] == "Stopped"

    vms.patch("vm", {"spec": {"restartToken": "again"}})
    vms.wait("vm", lambda status: status.get("printableStatus") == "Running", "runs again")
    assert len(on_host(hosts, uid)) == 1


def test_a_spec_that_only_the_operator_can_refuse_is_not_accepted_and_can_be_mended(
    vms: Vms,
) -> None:
    cells = [
        {"id": 0, "cpus": "0-1,^1", "memory": "128Mi"},
        {"id": 1, "cpus": "0", "memory": "128Mi"},
    ]
    domain = {"cpu": {"cores": 2, "dedicatedCpuPlacement": True, "numa": {"cells": cells}}}
    vms.create("vm", domain=domain)

    status = vms.wait(
        "vm", lambda status: condition(status, "Accepted").get("status") == "False", "refused"
    )
    assert condition(status, "Accepted")["reason"] == "InvalidSpec"
    assert "spec.domain.cpu.numa.cells" in condition(status, "Accepted")["message"]
    assert status["printableStatus"] == "ErrorInvalid"
    assert "placement" not in status

    cells[1]["cpus"] = "1"
    vms.patch("vm", {"spec": {"domain": domain}})
    vms.wait_ready("vm")


def test_a_refused_claim_is_tried_on_the_other_host(vms: Vms, hosts: list[FakeAgent]) -> None:
    for agent in hosts:
        agent.reports_taken = False
    uid = vms.create("probe")["metadata"]["uid"]
    first = vms.wait_ready("probe")["nodeName"]
    vms.delete("probe")
    vms.wait_gone("probe")
    refusing = next(agent for agent in hosts if agent.name == first)
    refusing.taken = CpuSet(frozenset(range(64)))
    try:
        vms.create("vm")
        status = vms.wait_ready("vm")
    finally:
        refusing.taken = CpuSet()
        for agent in hosts:
            agent.reports_taken = True

    assert status["nodeName"] != first
    assert [(one["nodeName"], one["reason"]) for one in status["refusals"]] == [(first, "CpuTaken")]
    assert uid not in refusing.running_uids()
    assert refusing.running_uids() == set()
    told = wait_for(lambda: vms.events("vm"), describe="an event tells of the refusal")
    assert [event["reason"] for event in told] == ["ClaimRefused"]


def test_the_only_host_is_tried_again_when_its_report_has_changed(
    vms: Vms, hosts: list[FakeAgent]
) -> None:
    only = hosts[0]
    only.reports_taken = False
    only.taken = CpuSet(frozenset(range(64)))
    labels = {"metadata": {"labels": {"only": "this"}}}
    core = client.CoreV1Api(vms.api_client)
    core.patch_node(only.name, labels)
    try:
        vms.create("vm", nodeSelector={"only": "this"})
        status = vms.wait("vm", lambda status: "refusals" in status, "was refused")
        assert condition(status, "Ready").get("status") != "True"
        refused = vms.wait(
            "vm", lambda status: status.get("printableStatus") == "ErrorUnschedulable", "waits"
        )
        assert "CpuTaken" in condition(refused, "Scheduled")["message"]
        only.taken = CpuSet()
        only.machine.memory_per_cell = only.machine.memory_per_cell.__class__(
            only.machine.memory_per_cell * 2
        )  # whatever changes its report

        vms.wait_ready("vm")
    finally:
        only.taken = CpuSet()
        only.reports_taken = True
        core.patch_node(only.name, {"metadata": {"labels": {"only": None}}})


def test_a_deletion_waits_for_an_agent_that_is_down_and_says_so(
    vms: Vms, hosts: list[FakeAgent]
) -> None:
    uid = vms.create("vm")["metadata"]["uid"]
    name = vms.wait_ready("vm")["nodeName"]
    agent = next(agent for agent in hosts if agent.name == name)
    agent.stop()
    try:
        vms.delete("vm")
        status = vms.wait(
            "vm",
            lambda status: condition(status, "HostReachable").get("status") == "False",
            "says that the host does not answer",
        )
        assert status["printableStatus"] == "Terminating"
        assert condition(status, "Ready")["reason"] == "WaitingForAgent"
        assert name in condition(status, "Ready")["message"]
        assert uid in agent.running_uids()
    finally:
        agent.start()
    vms.wait_gone("vm")

    assert uid not in agent.running_uids()


def test_a_lost_host_is_shown_gets_nothing_new_and_comes_back(
    vms: Vms, hosts: list[FakeAgent]
) -> None:
    uid = vms.create("stays")["metadata"]["uid"]
    name = vms.wait_ready("stays")["nodeName"]
    agent = next(agent for agent in hosts if agent.name == name)
    agent.stop()
    try:
        status = vms.wait(
            "stays",
            lambda status: condition(status, "HostReachable").get("status") == "False",
            "says that the host does not answer",
        )
        assert condition(status, "Ready")["status"] == "Unknown"
        assert status["printableStatus"] == "Unknown"
        assert status["nodeName"] == name
        for number in range(CPUS_PER_HOST):
            vms.create(f"new-{number}")
            assert vms.wait_ready(f"new-{number}")["nodeName"] != name
        told = wait_for(lambda: vms.events("stays"), describe="an event tells of the lost host")
        assert [event["reason"] for event in told] == ["LeaseExpired"]
    finally:
        agent.start()

    vms.wait_ready("stays")
    assert [started for started, _ in agent.ever_started].count(uid) == 1


def test_a_fenced_hosts_claims_and_finalizers_are_let_go(vms: Vms, hosts: list[FakeAgent]) -> None:
    vms.create("goes")
    vms.create("moves")
    name = vms.wait_ready("moves")["nodeName"]
    vms.wait_ready("goes")
    agent = next(agent for agent in hosts if agent.name == name)
    custom = client.CustomObjectsApi(vms.api_client)
    agent.stop()
    try:
        fence(custom, name, fenced=True)
        vms.delete("goes")
        vms.wait_gone("goes")
        status = vms.wait(
            "moves",
            lambda status: (
                status.get("nodeName") not in (None, name)
                and status.get("printableStatus") == "Running"
            ),
            "runs on the other host",
        )
        assert status["nodeName"] != name
    finally:
        agent.power_cycle()
        fence(custom, name, fenced=False)
        agent.start()


def fence(custom: client.CustomObjectsApi, name: str, *, fenced: bool) -> None:
    custom.patch_cluster_custom_object(
        GROUP,
        VERSION,
        "numahosts",
        name,
        {"spec": {"fenced": fenced}},
        _content_type="application/merge-patch+json",
    )


def test_of_two_vms_of_one_name_the_uid_decides(vms: Vms, hosts: list[FakeAgent]) -> None:
    first = vms.create("vm")["metadata"]["uid"]
    vms.wait_ready("vm")
    vms.delete("vm")
    vms.wait_gone("vm")
    second = vms.create("vm")["metadata"]["uid"]

    vms.wait_ready("vm")

    assert first != second
    assert on_host(hosts, first) == []
    assert len(on_host(hosts, second)) == 1


def test_shared_vms_hold_no_cpu(vms: Vms) -> None:
    vms.create("vm", **small(dedicated=False))

    status = vms.wait_ready("vm")

    assert status["placement"]["cpuPlacement"] == "Shared"
    assert status["placement"]["dedicatedCpus"] == ""


def test_the_operator_says_that_it_is_ready_and_counts(operator: OperatorProcess) -> None:
    assert operator.http("/healthz") == "ok\n"
    assert operator.http("/readyz") == "ok\n"
    assert 'numavm_operator_placements_total{result="placed"}' in operator.http("/metrics")
    assert json.dumps(operator.logged("leading")[0]["epoch"]).isdecimal()
