"""vCPUs come and go on a running KVM guest, and memory after them: by the word of guest and host kernel."""

from __future__ import annotations

import pytest

from numavm_lab.guest import Report
from numavm_lab.hosts import LabHost
from numavm_lab.kernel_view import kernel_view
from support.guests import wait_report
from support.vms import Manifest, Vms, condition, is_ready, vm_manifest

pytestmark = pytest.mark.lab

NAME = "elastic"
MIB_AT_BOOT, MIB_MORE = 256, 128
MODULE = {"name": "m0", "cell": 0, "size": f"{MIB_MORE}Mi", "dimm": {}}


def elastic() -> Manifest:
    """Return a guest of one vCPU that may have two, and memory modules."""
    manifest = vm_manifest(NAME, [(2, f"{MIB_AT_BOOT}Mi")], boots=True)
    domain = manifest["spec"]["domain"]
    domain["cpu"] |= {"cores": 1, "sockets": 1, "maxSockets": 2}
    domain |= {"type": "KVM", "memory": {"maxGuest": "1Gi"}}
    return manifest


def test_vcpus_come_and_go_and_a_module_comes_after_them(vms: Vms, host_a: LabHost) -> None:
    vms.create(elastic())
    vm = vms.wait_ready(NAME, 180)
    uid = vm["metadata"]["uid"]
    assert (vm["status"]["nodeName"], vm["status"]["domain"]["type"]) == (host_a.name, "KVM")
    booted = report_once(host_a, uid, cpus="0")

    has_cpus(vms, host_a, uid, sockets=2, cpus="0-1")
    assert vms.get(NAME)["status"]["currentCPUTopology"]["removableVcpus"] == "1"
    has_cpus(vms, host_a, uid, sockets=1, cpus="0")
    has_cpus(vms, host_a, uid, sockets=2, cpus="0-1")
    has_cpus(vms, host_a, uid, sockets=1, cpus="0")

    vms.patch(NAME, domain={"devices": {"memory": [MODULE]}})
    vm = settled(vms)
    grown = booted.nodes[0].memory_kib + MIB_MORE * 1024
    report_once(host_a, uid, cpus="0", memory_kib=grown)
    assert condition(vm, "RestartRequired")["status"] == "False"
    assert vm["status"]["domain"]["starts"] == 1


def has_cpus(vms: Vms, host: LabHost, uid: str, *, sockets: int, cpus: str) -> None:
    """Ask for vCPUs, and wait until guest, claim and kernel have them, each on its own CPU."""
    vms.patch(NAME, domain={"cpu": {"sockets": sockets}})
    vm = settled(vms)
    report_once(host, uid, cpus=cpus)
    assert vm["status"]["currentCPUTopology"]["onlineVcpus"] == cpus
    view = kernel_view(host, uid)
    assert view is not None
    affinity = view.vcpu_affinity()
    assert (sorted(affinity), {len(one) for one in affinity.values()}) == (
        list(range(sockets)),
        {1},
    )
    assert len(set(affinity.values())) == sockets


def settled(vms: Vms) -> Manifest:
    """Wait until this very spec is what the guest has."""
    return vms.wait(
        NAME,
        lambda vm: is_ready(vm) and condition(vm, "HotVCPUChange").get("status") == "True",
        120,
        "Ready with what was asked for",
    )


def report_once(host: LabHost, uid: str, *, cpus: str, memory_kib: int | None = None) -> Report:
    """Wait until the guest's last word is these CPUs, and this memory on its only node."""
    return wait_report(
        host,
        uid,
        lambda seen: (
            str(seen.online_cpus) == cpus and memory_kib in (None, seen.nodes[0].memory_kib)
        ),
        deadline_seconds=120,
        poll_seconds=0.5,
        describe=f"the guest says CPUs {cpus}, memory {memory_kib}",
    )
