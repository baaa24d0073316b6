"""How fast a running VM's memory moves between host cells, against move_pages(2) alone on the same host.

The bare kernel moves anonymous memory of a process of its own, all of it by one call. The VM has nothing to boot from,
and is moved there and back by its spec; the agent says how much memory it moved and how long the kernel was at it. Both
run in a lab host with two cells: the ratio means something, the figures themselves are those of an emulated machine.
"""

from __future__ import annotations

import re
import sys
import time
from datetime import datetime

from rich.console import Console

from bench.report import Table, median
from numavm_lab.hosts import LabHost, demo_hosts
from support.lab_stacks import lab_stack
from support.vms import Manifest, Vms, vm_manifest

MEBIBYTES = 256
ROUNDS = 4
_MOVED = re.compile(r"(?P<mebibytes>\d+) MiB of pages in (?P<seconds>[0-9.]+) s")
_BARE = """
import ctypes, mmap, sys, time
from array import array
from numavm_agent.host.memory import LinuxHostMemory

size, page = int(sys.argv[1]) << 20, mmap.PAGESIZE
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.MADV_NOHUGEPAGE)
for offset in range(0, size, page):
    memory[offset] = 1
addresses = array("Q", range(start, start + size, page))
host = LinuxHostMemory()
for number in range(int(sys.argv[2]) + 1):
    began = time.perf_counter()
    now = host.move_pages(0, addresses, [number % 2] * len(addresses))
    took = time.perf_counter() - began
    if set(now) != {number % 2}:
        sys.exit(f"pages are on {sorted(set(now))} instead of {number % 2}")
    if number:
        print(took)
"""


def run(console: Console) -> list[Table]:
    """Measure both on one host."""
    hosts = [host for host in demo_hosts() if host.name == "host-a"]
    with lab_stack(hosts, lambda step: console.print(f"  {step}", highlight=False)) as stack:
        with stack.admin() as api:
            ours, whole = rehome(Vms(api, "default"))
        bare = bare_move(stack.lab.host("host-a"))
    return [_table(ours, whole, bare)]


def rehome(vms: Vms) -> tuple[list[float], list[float]]:
    """Move a VM there and back; return per move the MiB/s while pages moved, and the seconds from patch to Ready."""
    vms.create(_bound(vm_manifest("mover", [(1, f"{MEBIBYTES}Mi")]), "0"))
    vms.wait_ready("mover", 300)
    rates: list[float] = []
    seconds: list[float] = []
    for number in range(ROUNDS):
        began = time.monotonic()
        manifest = _bound(vms.get("mover"), str(1 - number % 2))
        vms.patch("mover", domain={"cpu": manifest["spec"]["domain"]["cpu"]})
        vms.wait_ready("mover", 300)
        seconds.append(time.monotonic() - began)
        notes = [note for reason, note in vms.events("mover") if reason == "ReHomed"]
        rates = [float(one["mebibytes"]) / float(one["seconds"]) for one in _found(notes)]
    vms.delete_and_wait("mover")
    return rates, seconds


def bare_move(host: LabHost) -> list[float]:
    """Return the MiB/s of a process in the host that moves its own memory by one call.

    It is bound to both cells, as guests are to theirs: what is bound, the kernel's NUMA balancing leaves alone. Of
    pages that balancing has in hand, move_pages(2) says that they are not there (measured).
    """
    bare = [sys.executable, "-c", _BARE, str(MEBIBYTES), str(ROUNDS)]
    done = host.exec(["numactl", "--membind=0,1", *bare])
    return [MEBIBYTES / float(line) for line in done.stdout.split()]


def _bound(manifest: Manifest, host_cell: str) -> Manifest:
    (cell,) = manifest["spec"]["domain"]["cpu"]["numa"]["cells"]
    cell["hostBinding"] = {"hostCells": host_cell}
    return manifest


def _found(notes: list[str]) -> list[re.Match[str]]:
    return [found for found in map(_MOVED.search, notes) if found is not None]


def _table(ours: list[float], whole: list[float], bare: list[float]) -> Table:
    def row(what: str, rates: list[float]) -> tuple[str, str, str]:
        return what, f"{median(rates):.0f}", f"{median(rates) / median(bare):.2f}"

    return Table(
        name="rehome",
        title=f"re-homing {MEBIBYTES} MiB of 4 KiB pages between two cells of a lab host, MiB/s",
        columns=("", "median", "to bare"),
        rows=(
            row("move_pages(2), one call", bare),
            row("the agent, while pages move", ours),
            row("patch to Ready, all told", [MEBIBYTES / one for one in whole]),
        ),
        notes=(f"measured {datetime.now().astimezone():%Y-%m-%d}, {ROUNDS} moves each",),
    )
