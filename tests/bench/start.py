"""From an acknowledged create to Ready, against bare `virsh create` of the same XML and host.

The VM has nothing to boot from, so that the guest's own work stays out of the figures. On this machine's own libvirt
the milliseconds mean something, in a lab host, which is emulated, the ratio.
"""

from __future__ import annotations

import time
from datetime import datetime

from rich.console import Console
from rich.progress import track

from bench.local_stack import local_stack, renamed_domain
from bench.report import Table, median, percentile
from numavm_lab.hosts import LabHost, demo_hosts
from numavm_lab.local import LIBVIRT_URI, ThisMachine
from support.lab_stacks import lab_stack
from support.vms import Manifest, Vms, condition, vm_manifest

ROUNDS = 15
LAB_ROUNDS = 7
DEADLINE_SECONDS = 240


Host = ThisMachine | LabHost


def run(console: Console) -> list[Table]:
    """Measure both, turn by turn, here and in a lab host, and say where the added time goes."""
    with local_stack(console) as (stack, vms):
        here = starts(vms, stack.local, ROUNDS, console)
    hosts = [host for host in demo_hosts() if host.name == "host-a"]
    with (
        lab_stack(hosts, lambda step: console.print(f"  {step}", highlight=False)) as stack,
        stack.admin() as api,
    ):
        lab = starts(Vms(api, "default"), stack.lab.host("host-a"), LAB_ROUNDS, console)
    return [
        _table("start", "this machine's libvirt", *here),
        _table("start-lab", "a lab host", *lab),
    ]


def starts(
    vms: Vms, host: Host, rounds: int, console: Console
) -> tuple[list[dict[str, float]], list[float]]:
    """Start a VM by NumaVM and the same domain by virsh, in turn; return the seconds of each."""
    ours: list[dict[str, float]] = []
    bare: list[float] = []
    start_one(vms, host, "warm-up")  # libvirt asks QEMU what it can do, once
    for number in track(range(rounds), "starts", console=console):
        timings, xml = start_one(vms, host, f"start-{number}")
        ours.append(timings)
        bare.append(bare_create(host, xml, f"bare-{number}"))
    return ours, bare


def start_one(vms: Vms, host: Host, name: str) -> tuple[dict[str, float], str]:
    """Create a NumaVM, wait until it is Ready, delete it; return seconds per step and its XML."""
    created = vms.create(vm_manifest(name, [(1, "64Mi")]))
    began = time.monotonic()
    seen: dict[str, float] = {}

    def note(vm: Manifest) -> bool:
        now = time.monotonic() - began
        if "placement" in vm.get("status", {}):
            seen.setdefault("claimed", now)
        if vm.get("status", {}).get("domain", {}).get("state") == "Running":
            seen.setdefault("running", now)
        if condition(vm, "Ready").get("status") == "True":
            seen.setdefault("ready", now)
        return "ready" in seen

    vms.wait(name, note, DEADLINE_SECONDS, "Ready", poll_seconds=0.01)
    uid = created["metadata"]["uid"]
    xml = host.exec(["virsh", "--connect", LIBVIRT_URI, "dumpxml", uid]).stdout
    vms.delete_and_wait(name)
    return seen, xml


def bare_create(host: Host, xml: str, name: str) -> float:
    """Create the same domain by virsh alone and destroy it; return the seconds of the creation."""
    path = _written(host, f"{name}.xml", renamed_domain(xml, name))
    began = time.monotonic()
    host.exec(["virsh", "--connect", LIBVIRT_URI, "create", path])
    took = time.monotonic() - began
    host.exec(["virsh", "--connect", LIBVIRT_URI, "destroy", name])
    return took


def _written(host: Host, name: str, text: str) -> str:
    """Write a file where the host's virsh reads it; return its path there."""
    if isinstance(host, LabHost):
        path = f"/run/bench/{name}"
        host.copy_in(path, text.encode())
        return path
    (host.directory / name).write_text(text)
    return str(host.directory / name)


def _table(name: str, where: str, ours: list[dict[str, float]], bare: list[float]) -> Table:
    def row(what: str, values: list[float]) -> tuple[str, str, str, str]:
        middle = median(values)
        return (
            what,
            f"{middle * 1000:.0f}",
            f"{percentile(values, 95) * 1000:.0f}",
            f"{middle / median(bare):.2f}",
        )

    return Table(
        name=name,
        title=f"create to Ready, {len(ours)} VMs of one vCPU, {where}, milliseconds",
        columns=("", "median", "P95", "to virsh create"),
        rows=(
            row("virsh create", bare),
            row("claimed", [one["claimed"] for one in ours]),
            row("domain running in status", [one["running"] for one in ours]),
            row("Ready and verified", [one["ready"] for one in ours]),
        ),
        notes=(f"measured {datetime.now().astimezone():%Y-%m-%d}, one after another",),
    )
