"""A host that loses its power: its VMs show it, run again when it is back, never on two hosts."""

from __future__ import annotations

import pytest

from numavm_lab.hosts import LabHost
from numavm_lab.kernel_view import kernel_view
from numavm_lab.stack import Stack
from support.vms import Vms, condition, vm_manifest

pytestmark = pytest.mark.lab


def test_vms_of_a_power_cycled_host_show_it_and_run_again(
    stack: Stack, vms: Vms, host_a: LabHost, host_b: LabHost
) -> None:
    on_a = {"nodeSelector": {"kubernetes.io/hostname": host_a.name}}
    vms.create(vm_manifest("always", [(1, "64Mi")], spec=on_a))
    vms.create(vm_manifest("once", [(1, "64Mi")], spec={**on_a, "runStrategy": "Once"}))
    before = vms.wait_ready("always")
    vms.wait_ready("once")

    host_a.kill()
    for name in ("always", "once"):
        lost = vms.wait(
            name,
            lambda vm: condition(vm, "HostReachable").get("status") == "False",
            60,
            "the lost host shown",
        )
        assert lost["status"]["printableStatus"] == "Unknown"
        assert condition(lost, "Ready")["status"] == "Unknown"
        assert lost["status"]["nodeName"] == host_a.name

    host_a.start()
    host_a.wait_ready()
    stack.start_agent(host_a)
    again = vms.wait_ready("always", 240)
    assert again["status"]["nodeName"] == host_a.name
    assert again["status"]["domain"]["bootId"] != before["status"]["domain"]["bootId"]
    assert kernel_view(host_a, again["metadata"]["uid"]) is not None
    assert kernel_view(host_b, again["metadata"]["uid"]) is None

    finished = vms.wait(
        "once",
        lambda vm: condition(vm, "Ready").get("reason") == "Finished",
        120,
        "not started a second time",
    )
    assert "placement" not in finished["status"]
    assert kernel_view(host_a, finished["metadata"]["uid"]) is None
