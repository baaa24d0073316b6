"""Many VMs at once on two hosts: nothing is promised twice, and the one too many waits its turn."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from numavm_api.cpuset import CpuSet
from numavm_lab.hosts import LabHost
from numavm_lab.kernel_view import kernel_view
from numavm_lab.stack import AGENT_SERVICE, Stack
from support.vms import Manifest, Vms, condition, is_ready, vm_manifest
from support.wait import wait_for

pytestmark = pytest.mark.lab

CLAIMED_WITHIN_SECONDS = 2.0
STARTED_WITHIN_SECONDS = 5.0


def promised_cpus(vms: list[Manifest]) -> list[tuple[str, int]]:
    """Return every (node, pCPU) that some claim keeps to itself, once per claim."""
    return [
        (vm["status"]["nodeName"], cpu)
        for vm in vms
        if "placement" in vm.get("status", {})
        for cpu in CpuSet.parse(vm["status"]["placement"]["dedicatedCpus"])
    ]


def log_of(host: LabHost) -> str:
    """Return the agent's lines about starts."""
    lines = host.service_log(AGENT_SERVICE).read_text().splitlines()
    return "\n".join(line for line in lines if " start " in line)


def offered_cpus(vms: Vms) -> int:
    """Return how many CPUs the hosts offer to VMs with dedicated CPUs, held ones included."""
    return sum(len(CpuSet.parse(host["status"]["pools"]["dedicated"])) for host in vms.hosts())


@pytest.fixture
def small_pools(vms: Vms) -> Iterator[None]:
    """Three CPUs of host-a and of host-b each: more VMs would only take longer to emulate."""
    for host, cpus in (("host-a", "1-2,5"), ("host-b", "2,6,10")):
        vms.patch_host(host, dedicatedCpus=cpus)
    wait_for(
        lambda: offered_cpus(vms), until=lambda offered: offered == 6, describe="pools in force"
    )
    yield
    vms.delete_and_wait()
    for host in ("host-a", "host-b"):
        vms.patch_host(host, dedicatedCpus=None)
    wait_for(
        lambda: offered_cpus(vms), until=lambda offered: offered > 6, describe="pools as before"
    )


@pytest.mark.usefixtures("small_pools")
def test_no_cpu_and_no_page_is_promised_twice(stack: Stack, vms: Vms) -> None:
    offered = offered_cpus(vms)
    names = [f"vm-{number}" for number in range(offered)]
    for name in names:
        vms.create(vm_manifest(name, [(1, "32Mi")], hugepages="2Mi"))

    wait_for(
        lambda: [vm["metadata"]["name"] for vm in vms.all() if not is_ready(vm)],
        until=lambda waiting: not waiting,
        deadline_seconds=300,
        poll_seconds=1,
        describe=f"{offered} VMs Ready",
    )
    running = vms.all()
    promised = promised_cpus(running)
    assert len(promised) == len(set(promised)) == offered

    # The independent reader: the kernels' own word, not the objects'.
    found: list[tuple[str, int]] = []
    for vm in running:
        view = kernel_view(stack.lab.host(vm["status"]["nodeName"]), vm["metadata"]["uid"])
        assert view is not None
        found += [
            (vm["status"]["nodeName"], cpu)
            for cpus in view.vcpu_affinity().values()
            for cpu in cpus
        ]
        assert sum(view.resident_bytes().values()) == 32 * 1024**2
        assert all(mapping.huge for mapping in view.mappings)
    assert sorted(found) == sorted(promised)

    one_too_many = vms.create(vm_manifest("one-too-many", [(1, "32Mi")], hugepages="2Mi"))
    refused = vms.wait(
        "one-too-many",
        lambda vm: condition(vm, "Scheduled").get("reason") == "Unschedulable",
        10,
        "Unschedulable",
    )
    message = condition(refused, "Scheduled")["message"]
    assert "0/2 hosts" in message
    assert "CPU" in message

    vms.delete("vm-0")
    vms.wait("vm-0", lambda vm: not vm, 60, "gone")
    gone = time.monotonic()
    claimed = vms.wait(
        "one-too-many",
        lambda vm: "placement" in vm.get("status", {}),
        CLAIMED_WITHIN_SECONDS,
        "claimed after a deletion",
    )
    assert claimed["metadata"]["uid"] == one_too_many["metadata"]["uid"]
    host = stack.lab.host(claimed["status"]["nodeName"])
    wait_for(
        lambda: log_of(host),
        until=lambda log: one_too_many["metadata"]["uid"] in log,
        deadline_seconds=STARTED_WITHIN_SECONDS - (time.monotonic() - gone),
        describe="its start issued by the agent",
    )
    vms.wait_ready("one-too-many", 240)
    everyone = promised_cpus(vms.all())
    assert len(everyone) == len(set(everyone))
