"""Wishes that only a real API server puts together: VMs kept apart, racers for few devices, a claim that grows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kubernetes import client

from numavm_api.cpuset import CpuSet
from numavm_api.numahost import PciDevice
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
)
from support.placement_checker import violations
from support.wait import wait_for

pytestmark = pytest.mark.usefixtures("fleet_of_its_own")

HOSTS = ("wish-a", "wish-b")
CARD = {"vendor": "8086", "device": "10d3"}
CARDS = {"0000:41:00.0": 0, "0000:81:00.0": 1}
"""On each host, one card per host cell."""
RACERS = 7


@pytest.fixture(scope="module")
def hosts(callers: Callers) -> Iterator[list[FakeAgent]]:
    cards = tuple(
        PciDevice.model_validate({"address": address, "cell": cell, "class": "020000", **CARD})
        for address, cell in CARDS.items()
    )
    with fake_hosts(callers, *HOSTS, machine=Machine(devices=cards)) as agents:
        custom = client.CustomObjectsApi(callers.admin())
        for name in HOSTS:
            body = {"spec": {"permitted": {"pciDevices": [CARD]}}}
            custom.patch_cluster_custom_object(
                "numavm.io",
                "v1alpha1",
                "numahosts",
                name,
                body,
                _content_type="application/merge-patch+json",
            )
        yield agents


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane,
    tmp_path_factory: pytest.TempPathFactory,
    hosts: list[FakeAgent],
) -> Iterator[OperatorProcess]:
    assert hosts
    with operators(control_plane, tmp_path_factory.mktemp("wishes")) as start:
        process = start("operator")
        process.wait_logged("placing")
        yield process


@pytest.fixture
def vms(callers: Callers, namespace: str, operator: OperatorProcess) -> Iterator[Vms]:
    made = Vms(callers.admin(), namespace)
    yield made
    made.delete_all()
    assert operator.logged("reconcile_broke") + operator.logged("placement_broke") == []


def claimed(status: Json) -> bool:
    return "placement" in status


def message(status: Json) -> str:
    return str(condition(status, "Scheduled").get("message", ""))


def broken_rules(vms: Vms, callers: Callers) -> list[str]:
    """Return what the independent reader finds wrong with the claims as the API server has them."""
    custom = client.CustomObjectsApi(callers.admin())
    listed = custom.list_cluster_custom_object("numavm.io", "v1alpha1", "numahosts")["items"]
    hosts = {host["metadata"]["name"]: host for host in listed}
    placed = [vm for vm in vms.all() if claimed(vm.get("status", {}))]
    found = []
    for vm in placed:
        where = vm["status"]["nodeName"]
        others = [
            one["status"]["placement"]
            for one in placed
            if one is not vm and one["status"]["nodeName"] == where
        ]
        found += violations(vm["status"]["placement"], vm, hosts[where], others)
    return found


def away_from_web(over: str = "Host") -> Json:
    return {"spread": [{"labelSelector": {"matchLabels": {"app": "web"}}, "over": over}]}


def web(vms: Vms, name: str, over: str = "Host") -> None:
    vms.create(name, labels={"app": "web"}, placement=away_from_web(over))


def test_vms_that_spread_share_no_host_and_one_too_many_waits_until_one_goes(vms: Vms) -> None:
    web(vms, "one")
    web(vms, "two")
    at = {vms.wait(name, claimed, "claimed")["nodeName"] for name in ("one", "two")}
    assert at == set(HOSTS)

    web(vms, "three")
    told = vms.wait("three", lambda status: bool(message(status)), "told")
    assert f"with {vms.namespace}/" in message(told)
    assert "which it is to be spread from" in message(told)
    vms.create("stranger")
    vms.wait("stranger", claimed, "claimed, since it spreads from nobody")
    assert not claimed(vms.get("three")["status"])  # type: ignore[index]

    vms.delete("one")

    vms.wait("three", claimed, "claimed once a host is free of its kind")
    vms.wait_gone("one")


def test_vms_that_spread_over_cells_share_no_host_cell(vms: Vms) -> None:
    names = [f"vm-{number}" for number in range(5)]
    for name in names:
        web(vms, name, over="Cell")

    seen = wait_for(
        lambda: [(vm.get("status", {}), message(vm.get("status", {}))) for vm in vms.all()],
        until=lambda all_: sum(claimed(one) for one, _ in all_) == 4 and any(m for _, m in all_),
        describe="four on the four cells of two hosts, the fifth told",
    )
    placed = [status for status, _ in seen if claimed(status)]
    cells = [
        (status["nodeName"], cell["hostCells"])
        for status in placed
        for cell in status["placement"]["cells"]
    ]
    assert len(set(cells)) == len(cells) == 4


def test_a_vm_whose_label_goes_is_no_longer_spread_from(vms: Vms) -> None:
    for name in ("one", "two"):
        web(vms, name)
        vms.wait(name, claimed, "claimed")
    web(vms, "three")
    vms.wait("three", lambda status: bool(message(status)), "told")

    vms.patch("one", {"metadata": {"labels": {"app": None}}})

    vms.wait("three", claimed, "claimed")


def test_racers_for_few_devices_each_get_one_near_them_or_wait(vms: Vms, callers: Callers) -> None:
    wish = {"name": "card", "cell": 0, "source": {"selector": CARD}, "numaAffinity": "Required"}

    def create(number: int) -> None:
        body: dict[str, Any] = {
            "cpu": {"cores": 1, "dedicatedCpuPlacement": True},
            "memory": {"guest": "256Mi"},
            "devices": {"hostDevices": [wish]},
        }
        Vms(callers.admin(), vms.namespace).create(f"racer-{number}", domain=body)

    with ThreadPoolExecutor(RACERS) as clients:
        list(clients.map(create, range(RACERS)))
    cards = len(HOSTS) * len(CARDS)
    found = wait_for(
        vms.all,
        until=lambda all_: (
            sum(claimed(vm.get("status", {})) for vm in all_) == cards
            and sum("free device" in message(vm.get("status", {})) for vm in all_) == RACERS - cards
        ),
        describe="a claim per card, the others refused for want of one",
    )

    given = []
    for vm in found:
        if claimed(vm["status"]):
            (device,) = vm["status"]["placement"]["devices"]
            (cell,) = vm["status"]["placement"]["cells"]
            assert cell["hostCells"] == str(CARDS[device["address"]])
            given.append((vm["status"]["nodeName"], device["address"]))
    assert len(set(given)) == cards
    assert broken_rules(vms, callers) == []


def test_the_claim_of_a_running_vm_grows_where_it_is(vms: Vms, callers: Callers) -> None:
    cpu = {"cores": 3, "onlineVcpus": "0", "dedicatedCpuPlacement": True}
    vms.create("vm", domain={"cpu": cpu, "memory": {"guest": "256Mi"}})
    first = vms.wait_ready("vm")["placement"]
    assert len(CpuSet.parse(first["dedicatedCpus"])) == 1

    vms.patch("vm", {"spec": {"domain": {"cpu": {"onlineVcpus": "0-1"}}}})

    def grown(status: Json) -> bool:
        claim = status.get("placement", first)
        return bool(claim["id"] != first["id"] and "previous" not in claim)

    second = vms.wait("vm", grown, "a larger claim, the former one let go")["placement"]
    assert CpuSet.parse(first["dedicatedCpus"]) <= CpuSet.parse(second["dedicatedCpus"])
    assert len(CpuSet.parse(second["dedicatedCpus"])) == 2
    assert [cell["hostCells"] for cell in second["cells"]] == [
        cell["hostCells"] for cell in first["cells"]
    ]
    assert broken_rules(vms, callers) == []
