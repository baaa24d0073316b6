"""A VM's life with operator, agent and libvirt together: flips, restarts, deletion, faults by hand."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from support.agents import Node
from support.vms import Manifest, Vms, condition, vm_manifest
from support.wait import wait_for
from support.whole import Whole, whole

SMALL = ((1, "32Mi"),)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole(tmp_path_factory.mktemp("life"), "host-1") as made:
        yield made


@pytest.fixture(scope="module")
def vms(running: Whole) -> Vms:
    return running.vms("life")


@pytest.fixture
def node(running: Whole) -> Node:
    return running.nodes["host-1"]


@pytest.fixture
def vm(vms: Vms, request: pytest.FixtureRequest) -> Iterator[Manifest]:
    """A ready VM of the test's own."""
    name = request.node.name.replace("test_", "").replace("_", "-")[:40].strip("-")
    vms.create(vm_manifest(name, SMALL))
    yield vms.wait_ready(name)
    vms.delete_and_wait(name)


def virsh(node: Node, *arguments: str) -> None:
    subprocess.run(
        ["virsh", "--connect", node.libvirt.uri, *arguments], check=True, capture_output=True
    )


def name_of(vm: Manifest) -> str:
    return str(vm["metadata"]["name"])


def pid_of(node: Node, vm: Manifest) -> int | None:
    return next(
        (
            pid
            for domain, pid in node.libvirt.qemu_pids().items()
            if domain.endswith(vm["metadata"]["uid"][:8])
        ),
        None,
    )


def test_halted_holds_nothing_and_always_brings_it_back(vms: Vms, node: Node, vm: Manifest) -> None:
    for _ in range(2):
        vms.patch(name_of(vm), runStrategy="Halted")
        halted = vms.wait(
            name_of(vm),
            lambda seen: (
                condition(seen, "Ready").get("reason") == "Halted"
                and condition(seen, "Ready").get("status") == "True"
            ),
            60,
            "Halted and Ready",
        )
        assert "placement" not in halted["status"]
        assert "nodeName" not in halted["status"]
        assert halted["status"]["printableStatus"] == "Stopped"
        assert node.libvirt.qemu_pids() == {}
        assert node.host_status()["claims"] == []

        vms.patch(name_of(vm), runStrategy="Always")
        vms.wait_ready(name_of(vm))
        assert pid_of(node, vm) is not None


def test_a_changed_restart_token_restarts_under_the_same_claim(
    vms: Vms, node: Node, vm: Manifest
) -> None:
    before = pid_of(node, vm)
    vms.patch(name_of(vm), restartToken="again")
    again = vms.wait(
        name_of(vm),
        lambda seen: seen["status"].get("domain", {}).get("restartToken") == "again",
        60,
        "started with the new token",
    )
    vms.wait_ready(name_of(vm))
    assert pid_of(node, vm) not in {None, before}
    assert again["status"]["placement"]["id"] == vm["status"]["placement"]["id"]


def test_what_cannot_change_live_is_listed_until_taken_back(
    vms: Vms, node: Node, vm: Manifest
) -> None:
    before = pid_of(node, vm)
    machine = vm["spec"]["domain"]["machine"]["type"]
    vms.patch(name_of(vm), domain={"machine": {"type": "pc"}})
    pending = vms.wait(
        name_of(vm),
        lambda seen: condition(seen, "RestartRequired").get("status") == "True",
        30,
        "RestartRequired",
    )
    message = condition(pending, "RestartRequired")["message"]
    assert "spec.domain.machine.type" in message
    assert "q35" in message
    assert "pc" in message
    vms.patch(name_of(vm), domain={"machine": {"type": machine}})
    vms.wait(
        name_of(vm),
        lambda seen: condition(seen, "RestartRequired").get("status") == "False",
        30,
        "taken back",
    )
    assert pid_of(node, vm) == before


def test_a_deletion_waits_for_the_agent_and_says_so(vms: Vms, node: Node) -> None:
    vms.create(vm_manifest("held", SMALL))
    created = vms.wait_ready("held")
    before = pid_of(node, created)
    node.agent.stop()
    try:
        vms.delete("held")
        waiting = vms.wait(
            "held",
            lambda seen: condition(seen, "HostReachable").get("status") == "False",
            90,
            "says that the host does not answer",
        )
        assert waiting["status"]["printableStatus"] == "Terminating"
        assert "host-1" in condition(waiting, "Ready")["message"]
        assert pid_of(node, created) == before
    finally:
        node.agent.start()
    vms.wait("held", lambda seen: not seen, 90, "gone")
    assert node.libvirt.qemu_pids() == {}


def test_the_same_name_again_is_another_vm(vms: Vms, node: Node) -> None:
    uids = []
    for _ in range(2):
        vms.create(vm_manifest("again", SMALL))
        seen = vms.wait_ready("again")
        assert seen["status"]["domain"]["uuid"] == seen["metadata"]["uid"]
        uids.append(seen["metadata"]["uid"])
        vms.delete_and_wait("again")
    assert len(set(uids)) == 2
    assert node.libvirt.qemu_pids() == {}


def test_a_domain_destroyed_by_hand_is_restored_with_an_event(
    vms: Vms, node: Node, vm: Manifest
) -> None:
    before = pid_of(node, vm)
    virsh(node, "destroy", vm["metadata"]["uid"])
    wait_for(
        lambda: pid_of(node, vm),
        until=lambda pid: pid not in {None, before},
        deadline_seconds=60,
        describe="a new QEMU process",
    )
    vms.wait_ready(name_of(vm))
    assert "DomainDestroyed" in dict(vms.events(name_of(vm)))


def test_pins_changed_by_hand_are_restored_with_an_event(
    vms: Vms, node: Node, vm: Manifest
) -> None:
    (promised,) = vm["status"]["placement"]["cells"][0]["pcpus"]
    virsh(node, "vcpupin", vm["metadata"]["uid"], "0", "0")
    wait_for(
        lambda: dict(vms.events(name_of(vm))),
        until=lambda events: "PinsRestored" in events,
        deadline_seconds=30,
        describe="the event PinsRestored",
    )
    pid = pid_of(node, vm)
    affinity = subprocess.run(
        ["sh", "-c", 'grep -l "^CPU 0/" /proc/$1/task/*/comm | cut -d/ -f5', "sh", str(pid)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    with open(f"/proc/{pid}/task/{affinity[0]}/status", encoding="ascii") as status:  # noqa: PTH123
        allowed = [line.split()[1] for line in status if line.startswith("Cpus_allowed_list")]
    assert allowed == [promised]


def test_one_too_many_waits_and_is_claimed_when_the_other_goes(vms: Vms, vm: Manifest) -> None:
    vms.create(vm_manifest("waits", SMALL))
    waiting = vms.wait(
        "waits",
        lambda seen: condition(seen, "Scheduled").get("reason") == "Unschedulable",
        30,
        "Unschedulable",
    )
    assert waiting["status"]["printableStatus"] == "ErrorUnschedulable"
    assert "0/1 hosts" in condition(waiting, "Scheduled")["message"]
    vms.patch(name_of(vm), runStrategy="Halted")
    vms.wait_ready("waits")
    vms.delete_and_wait("waits")


def test_guests_outlive_an_api_server_restored_from_an_older_snapshot(
    running: Whole, vms: Vms, node: Node, tmp_path_factory: pytest.TempPathFactory
) -> None:
    node.patch_host_spec({"unschedulable": True})
    vms.create(vm_manifest("kept", SMALL))
    vms.wait(
        "kept",
        lambda seen: condition(seen, "Scheduled").get("reason") == "Unschedulable",
        30,
        "Unschedulable",
    )
    snapshot = tmp_path_factory.mktemp("snapshot") / "etcd"
    running.plane.snapshot(snapshot)
    node.patch_host_spec({"unschedulable": False})
    before = vms.wait_ready("kept")
    pids = node.libvirt.qemu_pids()

    running.plane.restore(snapshot)  # knows of no claim, and that the host takes no new VM
    after = vms.wait_ready("kept", 120)

    assert node.libvirt.qemu_pids() == pids
    assert after["status"]["placement"] == before["status"]["placement"]
    node.patch_host_spec({"unschedulable": False})
    vms.delete_and_wait("kept")
