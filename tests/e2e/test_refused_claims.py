"""What was promised but taken behind the agent's back: refused with a reason, tried elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from numavm_api.quantity import MEBIBYTE
from numavm_lab.hosts import LabHost
from numavm_lab.stack import AGENT_SERVICE
from support.vms import Manifest, Vms, condition, vm_manifest
from support.wait import wait_for

pytestmark = pytest.mark.lab

POOL = "/sys/devices/system/node/node{cell}/hugepages/hugepages-2048kB/nr_hugepages"


@contextmanager
def frozen_agent(host: LabHost) -> Iterator[None]:
    """Stop the agent of a host for a while, so that its report grows old."""
    host.signal_service(AGENT_SERVICE, signal.SIGSTOP)
    try:
        yield
    finally:
        host.signal_service(AGENT_SERVICE, signal.SIGCONT)


def wait_reported(vms: Vms, host: LabHost) -> None:
    """Wait until the host's report offers every 2 MiB page of its pools: nothing of an earlier test is left."""
    wanted = [cell.hugepages.get(2 * MEBIBYTE, 0) for cell in host.spec.cells]

    def free() -> list[int]:
        cells = vms.host(host.name)["status"]["cells"]
        pools = [{pool["pageSize"]: pool["free"] for pool in cell["hugepages"]} for cell in cells]
        return [pool.get("2Mi", 0) for pool in pools]

    wait_for(
        free,
        until=lambda seen: seen == wanted,
        deadline_seconds=120,
        describe=f"{host.name} reports its free pages of 2Mi as {wanted}",
    )


@contextmanager
def without_huge_pages(host: LabHost) -> Iterator[Callable[[], None]]:
    """Take the 2 MiB pools of a host away; gives a function that puts them back, called at the end too."""
    paths = [POOL.format(cell=cell) for cell in range(len(host.spec.cells))]
    before = {path: host.exec(["cat", path]).stdout for path in paths}

    def put_back() -> None:
        for path, pages in before.items():
            host.exec(["tee", path], input=pages)

    for path in paths:
        host.exec(["tee", path], input="0\n")
    try:
        yield put_back
    finally:
        put_back()


def on_host(vm: Manifest, host: LabHost) -> bool:
    """Tell whether the operator has claimed this host for a VM."""
    return bool(vm.get("status", {}).get("nodeName") == host.name)


def test_huge_pages_taken_behind_its_back_are_refused_and_another_host_is_found(
    vms: Vms, host_a: LabHost, host_b: LabHost
) -> None:
    wait_reported(vms, host_a)
    vms.patch_host(host_b.name, unschedulable=True)
    with frozen_agent(host_a), without_huge_pages(host_a):
        vms.create(vm_manifest("taken", [(1, "64Mi")], hugepages="2Mi"))
        vms.wait("taken", lambda vm: on_host(vm, host_a), 15, "claimed on host-a")
        vms.patch_host(host_b.name, unschedulable=False)
        host_a.signal_service(AGENT_SERVICE, signal.SIGCONT)
        moved = vms.wait_ready("taken", 240)

    assert moved["status"]["nodeName"] == host_b.name
    (refusal,) = moved["status"]["refusals"]
    assert refusal["nodeName"] == host_a.name
    assert refusal["reason"] == "HugePagesTaken"
    assert "2Mi" in refusal["message"]
    assert "taken" not in host_a.exec(["virsh", "list", "--all", "--name"]).stdout


def test_the_only_host_is_tried_again_once_its_report_has_changed(
    vms: Vms, host_a: LabHost, host_b: LabHost
) -> None:
    wait_reported(vms, host_a)
    vms.patch_host(host_b.name, unschedulable=True)
    try:
        with frozen_agent(host_a), without_huge_pages(host_a) as put_back:
            vms.create(vm_manifest("only", [(1, "64Mi")], hugepages="2Mi"))
            vms.wait("only", lambda vm: on_host(vm, host_a), 15, "claimed")
            host_a.signal_service(AGENT_SERVICE, signal.SIGCONT)
            waiting = vms.wait(
                "only",
                lambda vm: condition(vm, "Scheduled").get("reason") == "Unschedulable",
                90,
                "Unschedulable after the refusal",
            )
            assert "placement" not in waiting["status"]

            put_back()
            assert vms.wait_ready("only", 240)["status"]["nodeName"] == host_a.name
    finally:
        vms.patch_host(host_b.name, unschedulable=False)
