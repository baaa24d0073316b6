"""VMs kept apart by the labels that the API server has of them: over hosts, over host cells, until a label goes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from numavm_lab.controlplane.plane import ControlPlane
from support.cluster import Callers
from support.fake_agent import FakeAgent
from support.operator_process import (
    Json,
    OperatorProcess,
    Vms,
    condition,
    fake_hosts,
    operators,
    vms_of,
)
from support.wait import wait_for

pytestmark = pytest.mark.usefixtures("fleet_of_its_own")

HOSTS = ("wish-a", "wish-b")


@pytest.fixture(scope="module")
def hosts(callers: Callers) -> Iterator[list[FakeAgent]]:
    with fake_hosts(callers, *HOSTS) as agents:
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
    with vms_of(callers, namespace, operator) as made:
        yield made


def claimed(status: Json) -> bool:
    return "placement" in status


def message(status: Json) -> str:
    return str(condition(status, "Scheduled").get("message", ""))


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
    waiting = vms.get("three")
    assert waiting is not None
    assert not claimed(waiting["status"])

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
