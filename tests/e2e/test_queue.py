"""Racing clients and priorities on the lab's hosts; read back from the API objects.

What is looked at is claims, not guests: nothing here boots, and few VMs start, since each takes its agent seconds.
What the operator decides alone (cards, a host kept for a large VM and let go) is in the integration suite,
`test_operator_queue.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kubernetes import client

from numavm_api.cpuset import CpuSet
from numavm_lab.hosts import LabHost
from numavm_lab.stack import Stack
from support.placement_checker import violations
from support.vms import Manifest, Vms, condition, vm_manifest
from support.wait import wait_for

pytestmark = pytest.mark.lab

POOL = "1,5"
"""One CPU in each of host-a's two cells."""
CPUS = 2
RACERS = 4
START_SECONDS = 180
"""A start takes a few seconds on an idle machine."""


@pytest.fixture
def small_host(vms: Vms, host_a: LabHost, host_b: LabHost) -> Iterator[str]:
    """host-a with a small pool, and nothing else to go to."""

    def pool() -> CpuSet:
        return CpuSet.parse(vms.host(host_a.name)["status"]["pools"]["dedicated"])

    before = pool()
    vms.patch_host(host_b.name, unschedulable=True)
    vms.patch_host(host_a.name, dedicatedCpus=POOL)
    wait_for(pool, until=lambda seen: seen == CpuSet.parse(POOL), describe="the small pool")
    yield host_a.name
    vms.delete_and_wait()
    vms.patch_host(host_a.name, dedicatedCpus=None)
    vms.patch_host(host_b.name, unschedulable=False)
    wait_for(pool, until=lambda seen: seen == before, describe="the pool as it was")


@pytest.fixture
def urgent(admin: client.ApiClient) -> Iterator[str]:
    """A priority class of the test's own."""
    api = client.SchedulingV1Api(admin)
    metadata = client.V1ObjectMeta(name="urgent-in-the-lab")
    api.create_priority_class(client.V1PriorityClass(metadata=metadata, value=1000))
    yield "urgent-in-the-lab"
    api.delete_priority_class("urgent-in-the-lab")


def claimed(vm: Manifest) -> bool:
    """Tell whether a VM holds a claim."""
    return "placement" in vm.get("status", {})


def domain_runs(vm: Manifest) -> bool:
    """Tell whether the host's agent has admitted the claim that is held, and started the VM under it."""
    status = vm.get("status", {})
    domain = status.get("domain", {})
    held = status.get("placement", {}).get("id")
    return held is not None and (domain.get("state"), domain.get("placementId")) == (
        "Running",
        held,
    )


def refused(vm: Manifest) -> bool:
    """Tell whether a VM waits for room."""
    return condition(vm, "Scheduled").get("reason") == "Unschedulable"


def small(name: str, **spec: Any) -> Manifest:
    """Return a VM of one vCPU that does not boot."""
    return vm_manifest(name, [(1, "32Mi")], spec={"terminationGracePeriodSeconds": 0, **spec})


def broken_rules(vms: Vms, host: str) -> list[str]:
    """Return what the independent reader finds wrong with the claims on a host."""
    placed = [vm for vm in vms.all() if claimed(vm)]
    claims = {vm["metadata"]["uid"]: vm["status"]["placement"] for vm in placed}
    found = []
    for vm in placed:
        uid = vm["metadata"]["uid"]
        others = [claim for other, claim in claims.items() if other != uid]
        found += violations(claims[uid], vm, vms.host(host), others)
    return found


def test_real_agents_admit_what_racers_won_and_an_urgent_one_goes_before_them(
    stack: Stack, vms: Vms, small_host: str, urgent: str
) -> None:
    def race(number: int) -> None:
        with stack.admin() as api:
            Vms(api, vms.namespace).create(small(f"racer-{number}"))

    with ThreadPoolExecutor(RACERS) as clients:
        list(clients.map(race, range(RACERS)))
    wait_for(
        lambda: [(claimed(vm), refused(vm)) for vm in vms.all()],
        until=lambda seen: (
            sum(got for got, _ in seen) == CPUS and sum(waits for _, waits in seen) == RACERS - CPUS
        ),
        deadline_seconds=30,
        describe="two claimed, two refused",
    )
    assert broken_rules(vms, small_host) == []
    winners = [vm["metadata"]["name"] for vm in vms.all() if claimed(vm)]
    for name in winners:
        vms.wait(name, domain_runs, START_SECONDS, "admitted by its agent")
    losers = [vm["metadata"]["name"] for vm in vms.all() if not claimed(vm)]

    vms.create(small("urgent", priorityClassName=urgent))
    vms.wait("urgent", refused, 10, "refused")
    vms.delete_and_wait(winners[0])
    vms.wait("urgent", domain_runs, START_SECONDS, "admitted before those that wait longer")
    assert not any(claimed(vms.get(name)) for name in losers)
    assert broken_rules(vms, small_host) == []
