"""`make bench`: every bench, or those named on the command line; a table each, JSON beside it."""

from __future__ import annotations

import argparse
import importlib

from rich.console import Console

from bench.report import show

BENCHES = {
    "placement": "decisions per second, acceptance and distance over fleets and streams",
    "render": "a libvirt domain from spec and claim",
    "start": "from an acknowledged create to Ready, against bare virsh create",
    "density": "100 small VMs, one every 100 ms, against a bare loop",
    "live": "vCPUs, modules and balloon of a running VM, against bare virsh",
    "rehome": "moving a running VM between host cells, against move_pages(2) alone",
    "scale": "operator with 1,000 NumaHosts and 10,000 NumaVMs: memory, loop lag, writes, restart",
    "footprint": "memory and idle CPU of operator and agent",
}


def main() -> None:
    """Run the benches asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench", nargs="*", choices=[[], *BENCHES], help="default: all of them")
    wanted = parser.parse_args().bench or list(BENCHES)
    console = Console(width=140)
    for name in wanted:
        console.print(f"\n[bold]{name}[/bold]: {BENCHES[name]}")
        show(importlib.import_module(f"bench.{name}").run(console), console)


if __name__ == "__main__":
    main()
