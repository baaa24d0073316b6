"""The density run that KubeVirt publishes: 100 small VMs, one every 100 ms, against a bare loop."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console

from bench.local_stack import local_stack, renamed_domain
from bench.report import Table, percentile
from numavm_lab.local import LIBVIRT_URI, ThisMachine
from support.vms import Vms, vm_manifest
from support.wait import wait_for

COUNT = 100
INTERVAL_SECONDS = 0.1
DEADLINE_SECONDS = 600
PARALLEL_VIRSH = 4
"""As many as the agent starts at once."""


def run(console: Console) -> list[Table]:
    """Start the VMs by NumaVM, then the same domains by virsh alone."""
    with local_stack(console) as (stack, vms):
        vms.patch_host(stack.local.name, cpuAllocationPercent=10000)
        ours, xml = numavm_run(vms, stack.local, console)
        vms.delete_and_wait(deadline_seconds=DEADLINE_SECONDS)
        bare = bare_run(stack.local, xml, console)
    return [
        Table(
            name="density",
            title=f"{COUNT} VMs of 1 vCPU and 32Mi, one every 100 ms: create to Running, seconds",
            columns=("", "P50", "P95", "last"),
            rows=(
                ("bare virsh loop", *_row(bare)),
                ("NumaVM", *_row(ours)),
                ("ratio", *(a / b for a, b in zip(_row(ours), _row(bare), strict=True))),
            ),
            notes=(
                f"{_accelerator(xml)} on this machine's own libvirt; the guests idle in their firmware",
            ),
        )
    ]


def _accelerator(xml: str) -> str:
    return "KVM" if "<domain type='kvm'" in xml else "emulation (TCG)"


def _row(values: list[float]) -> tuple[float, float, float]:
    return percentile(values, 50), percentile(values, 95), max(values)


def numavm_run(vms: Vms, host: ThisMachine, console: Console) -> tuple[list[float], str]:
    """Create the VMs on the beat; return each one's seconds to Running, and one domain's XML."""
    created: dict[str, float] = {}
    running: dict[str, float] = {}

    def look() -> int:
        now = time.monotonic()
        for vm in vms.all():
            if vm.get("status", {}).get("printableStatus") == "Running":
                running.setdefault(vm["metadata"]["name"], now)
        return len(running)

    began = time.monotonic()
    for number in range(COUNT):
        name = f"dense-{number}"
        vms.create(vm_manifest(name, [(1, "32Mi")], dedicated=False))
        created[name] = time.monotonic()
        while time.monotonic() < began + (number + 1) * INTERVAL_SECONDS:
            look()
    wait_for(
        look,
        until=lambda seen: seen == COUNT,
        deadline_seconds=DEADLINE_SECONDS,
        describe=f"{COUNT} VMs Running",
    )
    console.print(f"  NumaVM: {COUNT} Running")
    uid = vms.get("dense-0")["metadata"]["uid"]
    xml = host.exec(["virsh", "--connect", LIBVIRT_URI, "dumpxml", uid]).stdout
    return [running[name] - created[name] for name in created], xml


def bare_run(host: ThisMachine, xml: str, console: Console) -> list[float]:
    """Create the same domains by virsh on the same beat; return each one's seconds."""
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(PARALLEL_VIRSH) as pool:
            ends = [
                pool.submit(_bare_create, host, xml, number, began + number * INTERVAL_SECONDS)
                for number in range(COUNT)
            ]
            taken = [one.result() for one in ends]
    finally:
        for number in range(COUNT):
            host.exec(["virsh", "--connect", LIBVIRT_URI, "destroy", _name(number)], check=False)
    console.print(f"  virsh: {COUNT} running")
    return taken


def _bare_create(host: ThisMachine, xml: str, number: int, due: float) -> float:
    time.sleep(max(0.0, due - time.monotonic()))
    plain = re.sub(r"<uuid>.*?</uuid>\n?", "", xml, count=1)
    path = host.directory / f"{_name(number)}.xml"
    path.write_text(renamed_domain(plain, _name(number)))
    host.exec(["virsh", "--connect", LIBVIRT_URI, "create", str(path)])
    return time.monotonic() - due


def _name(number: int) -> str:
    return f"bare-dense-{number}"
