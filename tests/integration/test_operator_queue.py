"""The operator's queue on a real API server: priorities, a host kept for a large VM, racing clients, taints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kubernetes import client
from typer.testing import CliRunner

from numavm_api.base import GROUP, VERSION
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import PLURAL as HOSTS
from numavm_api.numahost import PciDevice
from numavm_cli.main import app
from numavm_lab.controlplane.plane import ControlPlane
from support.cluster import Callers
from support.fake_agent import FakeAgent, Machine
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
from support.placement_checker import violations
from support.wait import wait_for

pytestmark = pytest.mark.usefixtures("fleet_of_its_own")

CPUS_PER_CELL = 3
"""2 cells x 4 CPUs, the first of each left to the host."""
CARD = {"vendor": "8086", "device": "10d3"}
CARDS = tuple(
    PciDevice(
        address=f"0000:b1:0{at}.0",
        cell=0,
        vendor=CARD["vendor"],
        device=CARD["device"],
        class_code="0x020000",
        iommu_group=at,
    )
    for at in range(2)
)
"""Two network cards, both near host cell 0, which VMs would fill first."""
AFTER, HOLD = 1.0, 6.0
"""Seconds that a VM waits before a host is kept for it, and that it is kept."""


@pytest.fixture(scope="module")
def host(callers: Callers) -> Iterator[FakeAgent]:
    with fake_hosts(callers, "queue-a", machine=Machine(devices=CARDS)) as agents:
        yield agents[0]


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory, host: FakeAgent
) -> Iterator[OperatorProcess]:
    assert host
    with operators(control_plane, tmp_path_factory.mktemp("queue")) as start:
        limits = ("--reservation-after-seconds", str(AFTER), "--reservation-seconds", str(HOLD))
        process = start("operator", *limits)
        process.wait_logged("placing")
        yield process


@pytest.fixture
def vms(callers: Callers, namespace: str, operator: OperatorProcess) -> Iterator[Vms]:
    with vms_of(callers, namespace, operator) as made:
        yield made


@pytest.fixture
def urgent(callers: Callers) -> Iterator[str]:
    api = client.SchedulingV1Api(callers.admin())
    body = client.V1PriorityClass(metadata=client.V1ObjectMeta(name="urgent"), value=1000)
    api.create_priority_class(body)
    yield "urgent"
    api.delete_priority_class("urgent")


@pytest.fixture
def cards(callers: Callers) -> Iterator[tuple[PciDevice, ...]]:
    """The host's network cards, which its administrator permits for the test."""
    hosts = client.CustomObjectsApi(callers.admin())

    def permit(permitted: Json | None) -> None:
        place = (GROUP, VERSION, HOSTS, "queue-a")
        merge = "application/merge-patch+json"
        hosts.patch_cluster_custom_object(
            *place, {"spec": {"permitted": permitted}}, _content_type=merge
        )
        wait_for(
            lambda: hosts.get_cluster_custom_object(*place)["status"].get("permitted", {}),
            until=lambda seen: bool(seen.get("pciDevices")) == bool(permitted),
            describe="the host reports what is permitted",
        )

    permit({"pciDevices": [CARD]})
    yield CARDS
    permit(None)


def claimed(status: Json) -> bool:
    return "placement" in status


def refused(status: Json) -> bool:
    return condition(status, "Scheduled").get("reason") == "Unschedulable"


def message(status: Json) -> str:
    return str(condition(status, "Scheduled").get("message", ""))


def whole_cell(vms: Vms, name: str, **more: Any) -> None:
    vms.create(name, **small(cores=CPUS_PER_CELL), **more)


def broken_rules(
    vms: Vms, callers: Callers, earlier: Mapping[str, Json] | None = None
) -> list[str]:
    """Return what the independent reader finds wrong with the claims, as the API server has them.

    Args:
        vms: The VMs.
        callers: Of the API server.
        earlier: Specs by name, of VMs that still hold what they held before a change of spec.
    """
    hosts = client.CustomObjectsApi(callers.admin())
    (host,) = hosts.list_cluster_custom_object(GROUP, VERSION, HOSTS)["items"]
    claims = [(vm, vm["status"]["placement"]) for vm in vms.all() if claimed(vm["status"])]
    found = []
    for vm, claim in claims:
        others = [other for _, other in claims if other is not claim]
        spec = (earlier or {}).get(vm["metadata"]["name"], vm["spec"])
        found += violations(claim, {**vm, "spec": spec}, host, others)
    return found


def explained(vms: Vms, plane: ControlPlane, name: str) -> Json:
    options = ["-n", vms.namespace, "--kubeconfig", str(plane.admin_kubeconfig)]
    done = CliRunner().invoke(app, ["explain", name, *options, "-o", "json"])
    assert done.exit_code == 0, done.output
    told: Json = json.loads(done.stdout)
    return told


def test_racing_clients_share_out_a_host_and_no_claim_breaks_a_rule(
    vms: Vms, callers: Callers
) -> None:
    def create(number: int) -> None:
        Vms(callers.admin(), vms.namespace).create(f"vm-{number}")

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(create, range(10)))
    wait_for(
        vms.all,
        until=lambda all_: (
            sum(claimed(vm.get("status", {})) for vm in all_) == 2 * CPUS_PER_CELL
            and sum(refused(vm.get("status", {})) for vm in all_) == 10 - 2 * CPUS_PER_CELL
        ),
        describe="six placed and four refused",
    )

    assert broken_rules(vms, callers) == []


def test_cells_with_scarce_cards_are_spared_for_those_who_race_for_them(
    vms: Vms, callers: Callers, cards: tuple[PciDevice, ...]
) -> None:
    """VMs that want no card come first and could fill the cards' cell: they leave it to others."""
    wish = {"name": "card", "source": {"selector": CARD}, "numaAffinity": "Required"}
    with_card = small()
    with_card["domain"]["devices"] = {"hostDevices": [wish]}
    for at in range(CPUS_PER_CELL):
        vms.create(f"plain-{at}")
    for at in range(CPUS_PER_CELL):
        vms.wait(f"plain-{at}", claimed, "claimed")

    def create(number: int) -> None:
        Vms(callers.admin(), vms.namespace).create(f"card-{number}", **with_card)

    with ThreadPoolExecutor(4) as clients:
        list(clients.map(create, range(4)))
    wait_for(
        lambda: [vm.get("status", {}) for vm in vms.all()],
        until=lambda seen: (sum(map(claimed, seen)), sum(map(refused, seen))) == (5, 2),
        describe="five placed and two refused",
    )

    placed = {vm["metadata"]["name"]: vm["status"] for vm in vms.all() if claimed(vm["status"])}
    held = {
        name: [one["address"] for one in status["placement"].get("devices", [])]
        for name, status in placed.items()
    }
    assert sorted(held.values()) == [[], [], [], *([card.address] for card in cards)]
    near = [
        status["placement"]["cells"][0]["hostCells"]
        for name, status in placed.items()
        if held[name]
    ]
    assert near == ["0", "0"]
    waiting = [vm["status"] for vm in vms.all() if not claimed(vm["status"])]
    assert all("device" in message(status) for status in waiting)
    assert broken_rules(vms, callers) == []


def growing(sockets: int, host_cell: str) -> Json:
    """Return a VM on one host cell that can grow to two vCPUs while it runs."""
    binding = {"hostCells": host_cell}
    cell = {"id": 0, "cpus": "0-1", "memory": "256Mi", "hostBinding": binding}
    cpu = {
        "sockets": sockets,
        "maxSockets": 2,
        "dedicatedCpuPlacement": True,
        "numa": {"cells": [cell]},
    }
    return {"domain": {"cpu": cpu}}


def cpus_of(status: Json) -> CpuSet:
    return CpuSet.parse(status["placement"]["dedicatedCpus"])


def host_cells_of(status: Json) -> str:
    return str(status["placement"]["cells"][0]["hostCells"])


def test_running_vms_grow_while_others_race_for_the_cpus(
    vms: Vms, callers: Callers, host: FakeAgent
) -> None:
    """A claim is amended on its host cell or not at all, and as soon as capacity appears; nothing is restarted."""
    growers = {"grows-0": "0", "grows-1": "1"}
    for name, cell in growers.items():
        vms.create(name, **growing(1, cell))
    before = {
        name: vms.wait(name, lambda status: "domain" in status, "it runs") for name in growers
    }
    assert [len(cpus_of(status)) for status in before.values()] == [1, 1]

    def create(number: int) -> None:
        Vms(callers.admin(), vms.namespace).create(f"vm-{number}")

    def grow(name: str) -> None:
        Vms(callers.admin(), vms.namespace).patch(name, {"spec": growing(2, growers[name])})

    free = 2 * CPUS_PER_CELL - len(growers)
    newcomers = [f"vm-{number}" for number in range(free)]
    with ThreadPoolExecutor(2 * free) as clients:
        done = [clients.submit(create, number) for number in range(free)]
        done += [clients.submit(grow, name) for name in growers]
        for one in done:
            one.result()
    wait_for(
        lambda: [vm.get("status", {}) for vm in vms.all()],
        until=lambda seen: (
            sum(len(cpus_of(status)) for status in seen if claimed(status)) == 2 * CPUS_PER_CELL
            and not any("previous" in status.get("placement", {}) for status in seen)
        ),
        describe="every CPU is held, once",
    )
    held = {name: cpus_of((vms.get(name) or {})["status"]) for name in growers}
    small_still = {name: growing(1, growers[name]) for name, cpus in held.items() if len(cpus) == 1}
    assert broken_rules(vms, callers, small_still) == []

    for name in newcomers:
        vms.delete(name)
    for name, cell in growers.items():
        grown = vms.wait(
            name,
            lambda status: (
                len(cpus_of(status)) == 2
                and status["domain"]["placementId"] == status["placement"]["id"]
                and "previous" not in status["placement"]
            ),
            "it has grown, and holds nothing beside that",
        )
        assert host_cells_of(grown) == cell
        assert cpus_of(before[name]) <= cpus_of(grown)
        assert grown["domain"]["startedAt"] == before[name]["domain"]["startedAt"]
    for name in newcomers:
        vms.wait_gone(name)
    assert broken_rules(vms, callers) == []
    assert [error for error in host.errors if "amended" in error] == []


def test_of_waiting_vms_the_one_of_higher_priority_goes_first(vms: Vms, urgent: str) -> None:
    for name in ("first", "second"):
        whole_cell(vms, name)
        vms.wait(name, claimed, "claimed")
    whole_cell(vms, "old")
    vms.wait("old", refused, "refused")
    whole_cell(vms, "late", priorityClassName=urgent)
    vms.wait("late", refused, "refused")

    vms.delete("first")

    vms.wait("late", claimed, "claimed")
    vms.wait_gone("first")
    assert not claimed(vms.get("old")["status"])  # type: ignore[index]


def test_a_host_is_kept_for_a_large_vm_until_it_fits(vms: Vms, control_plane: ControlPlane) -> None:
    for name in ("one", "two", "three", "four"):
        vms.create(name)
        vms.wait(name, claimed, "claimed")
    whole_cell(vms, "large")
    vms.wait("large", lambda status: "is kept for it" in message(status), "a host is kept")

    vms.create("small")

    vms.wait("small", lambda status: "kept for" in message(status), "kept away")
    kept = vms.wait("large", lambda status: "reservedNodeName" in status, "said in its status")
    assert kept["reservedNodeName"] == "queue-a"
    told = explained(vms, control_plane, "small")["hosts"][0]
    assert (told["cause"], told["message"]) == ("Kept", f"kept for {vms.namespace}/large")
    assert explained(vms, control_plane, "large")["hosts"][0]["cause"] != "Kept"
    for name in ("one", "two", "three", "four"):
        vms.delete(name)
    vms.wait("large", claimed, "claimed")
    vms.wait("small", claimed, "claimed once the large one is")
    vms.wait("large", lambda status: "reservedNodeName" not in status, "nothing is kept any more")
    for name in ("one", "two", "three", "four"):
        vms.wait_gone(name)


def test_what_is_kept_in_vain_is_let_go_after_its_time(vms: Vms, operator: OperatorProcess) -> None:
    for name in ("one", "two", "three", "four"):
        vms.create(name)
        vms.wait(name, claimed, "claimed")
    whole_cell(vms, "large")
    vms.wait("large", lambda status: "is kept for it" in message(status), "a host is kept")
    vms.create("small")
    vms.wait("small", lambda status: "kept for" in message(status), "kept away")

    status = vms.wait("small", claimed, "claimed after the time limit", HOLD + 20)

    assert status["nodeName"] == "queue-a"
    large = vms.wait("large", lambda status: "reservedNodeName" not in status, "let go")
    assert not claimed(large)
    assert operator.logged("host_let_go")


def test_a_taint_keeps_away_until_it_is_tolerated_or_gone(vms: Vms, callers: Callers) -> None:
    core = client.CoreV1Api(callers.admin())
    taints = [{"key": "maintenance", "effect": "NoSchedule"}]
    core.patch_node("queue-a", {"spec": {"taints": taints}})
    try:
        vms.create("intolerant")
        vms.wait("intolerant", lambda status: "tainted maintenance" in message(status), "refused")
        vms.create("tolerant", tolerations=[{"key": "maintenance", "operator": "Exists"}])
        vms.wait("tolerant", claimed, "claimed")
    finally:
        core.patch_node("queue-a", {"spec": {"taints": None}})
    vms.wait("intolerant", claimed, "claimed once the taint is gone")


def test_a_cordon_and_a_required_node_affinity_keep_away(vms: Vms, callers: Callers) -> None:
    core = client.CoreV1Api(callers.admin())
    core.patch_node("queue-a", {"spec": {"unschedulable": True}})
    vms.create("vm")
    vms.wait("vm", lambda status: "unschedulable:NoSchedule" in message(status), "refused")
    core.patch_node("queue-a", {"spec": {"unschedulable": None}})
    vms.wait("vm", claimed, "claimed")

    term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["fast"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    vms.create("choosy", affinity={"nodeAffinity": required})
    vms.wait("choosy", lambda status: "nodeAffinity" in message(status), "refused")
    core.patch_node("queue-a", {"metadata": {"labels": {"disk": "fast"}}})
    vms.wait("choosy", claimed, "claimed")


def test_explain_reads_the_cluster(vms: Vms, control_plane: ControlPlane) -> None:
    vms.create("vm")
    vms.wait("vm", claimed, "claimed")
    whole_cell(vms, "wide", nodeSelector={"no": "node"})

    placed = explained(vms, control_plane, "vm")
    assert (placed["chosen"], placed["held"]) == ("queue-a", ["queue-a"])
    host = next(
        one for one in explained(vms, control_plane, "wide")["hosts"] if one["node"] == "queue-a"
    )
    assert host["cause"] == "NodeSelector"
