"""`numavm lab`: real multi-NUMA hosts on this computer, to try NumaVM on."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from numavm_cli.output import OutputFormat

if TYPE_CHECKING:
    from numavm_lab.hosts import HostSpec, Lab, LabHost

lab_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Real multi-NUMA Linux hosts on this computer: virtual machines with their own libvirt.

    Any topology works on any machine, since the hosts' CPUs are emulated: cells, sibling threads,
    unequal distances, huge pages, and KVM inside. Nothing of this computer is changed: the hosts
    see its file system read-only, below fresh `/etc`, `/var`, `/run` and `/tmp`.
    """,
)

_NOT_READY = 1
_STEPS = {
    "": "kernel boots",
    "setup": "cells, huge pages, network",
    "libvirt": "libvirt starts",
}
"""What a host says of itself -> what people read."""

LabName = Annotated[
    str, typer.Option("--lab", help="Which lab, where several run at once.", metavar="NAME")
]
HostArgument = Annotated[str, typer.Argument(help="A lab host.", metavar="HOST")]


@lab_app.command()
def up(
    hosts: Annotated[
        list[str] | None, typer.Argument(help="Which hosts of the file.", show_default="all")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Describes the hosts.", show_default="the demo's two"),
    ] = None,
    lab: LabName = "demo",
) -> None:
    """Start hosts side by side and wait until libvirt answers in each.

    Takes about 45 seconds for the demo's two hosts on two cores. Hosts that run already are left
    alone. A hosts file:

        hosts:
        - name: host-a
          kvm: true              # /dev/kvm inside; then one thread per core
          cells:
          - {cpus: 4, memory: 3Gi, hugepages: {2Mi: 256}}
          - {cpus: 4, memory: 3Gi, hugepages: {2Mi: 256}}
        - name: host-b
          threads: 2             # sibling threads; then no /dev/kvm
          cells:
          - {cpus: 4, memory: 2Gi}
          - {cpus: 4, memory: 2Gi}
          distances: [[10, 21], [21, 10]]

    `cpus: 0` makes a cell memory only. With `access: {latencyNanoseconds: 300, bandwidth: 20Gi, initiator: 1}` on
    each cell the host has an HMAT that says so, and its slow cells are of class CXL.
    """
    from numavm_lab.hosts import demo_hosts, load_hosts

    specs = _chosen(load_hosts(file) if file else demo_hosts(), hosts or [])
    with _Steps([spec.name for spec in specs]) as steps:
        found = _lab(lab, steps.say_all)
        found.up(specs, report=steps.say)
    _print_table(found.hosts())


@lab_app.command()
def down(lab: LabName = "demo") -> None:
    """Shut all hosts down and remove everything they left. Harmless where none runs."""
    found = _lab(lab)
    with _Steps([host.name for host in found.hosts()]) as steps:
        found.down(report=steps.say)


@lab_app.command()
def status(
    output: Annotated[
        OutputFormat, typer.Option("--output", "-o", help="How to print it.")
    ] = OutputFormat.TABLE,
    lab: LabName = "demo",
) -> None:
    """Show the hosts; exit code 1 where there is none, or one is not ready."""
    from numavm_lab.hosts import HostState

    hosts = _lab(lab).hosts()
    if output is OutputFormat.JSON:
        typer.echo(json.dumps([_row(host) for host in hosts], indent=2))
    else:
        _print_table(hosts)
    if not hosts or any(host.state is not HostState.READY for host in hosts):
        raise typer.Exit(_NOT_READY)


@lab_app.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
def execute(
    host: HostArgument,
    command: Annotated[
        list[str], typer.Argument(help="Command and arguments, after `--`.", metavar="CMD...")
    ],
    lab: LabName = "demo",
) -> None:
    """Run a command in a host as root; input, output and exit code are passed through.

    `numavm lab exec host-a -- numactl --hardware`, or `-- bash` for a shell.
    """
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    words = command[1:] if command[0] == "--" else command
    argv = _lab(lab).host(host).exec_argv(words, terminal=terminal)
    sys.stdout.flush()
    os.execv(argv[0], argv)  # noqa: S606 -- a list, no shell; nothing is left to do here


@lab_app.command()
def logs(
    host: HostArgument,
    log: Annotated[
        str, typer.Argument(help="`console`, `libvirtd`, or a service such as `agent`.")
    ] = "console",
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on printing until interrupted.")
    ] = False,
    lab: LabName = "demo",
) -> None:
    """Print what a host's kernel says, or what one of its services says."""
    from numavm_lab.errors import LabError

    found = _lab(lab).host(host)
    path = found.paths.console if log == "console" else found.service_log(log)
    if not path.exists():
        known = ["console", *sorted(entry.stem for entry in found.paths.logs.glob("*.log"))]
        raise LabError(f"{host} has no log {log}; it has: {', '.join(known)}")
    subprocess.run(["tail", "-n", "+1", *(["-F"] if follow else []), str(path)], check=False)


@lab_app.command("power-cycle")
def power_cycle(host: HostArgument, lab: LabName = "demo") -> None:
    """Cut a host's power without warning, start it again and wait until it is ready."""
    found = _lab(lab).host(host)
    with _Steps([host]) as steps:
        found.power_cycle(report=lambda step: steps.say(host, step))


@lab_app.command()
def prepare() -> None:
    """Check that all that hosts need is installed; build virtiofsd where this machine has none."""
    from numavm_lab.hosts import prepare as prepare_lab

    with _Steps(["prepare"]) as steps:
        programs = prepare_lab(steps.say_all)
    typer.echo(f"qemu       {programs.qemu}\nvirtiofsd  {programs.virtiofsd}")


class _Steps:
    """Shows what each host does now: a moving line per host in a terminal, else a line per step."""

    def __init__(self, names: Sequence[str]) -> None:
        console = Console(stderr=True)
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
        )
        self._moving = console.is_terminal
        self._started = time.monotonic()
        self._progress = Progress(*columns, console=console, disable=not self._moving)
        self._lines = {name: self._progress.add_task(name, total=None) for name in names}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def say(self, name: str, step: str) -> None:
        """Show that ``name`` is at ``step``."""
        text = f"{name}: {_STEPS.get(step, step)}"
        if not self._moving:
            typer.echo(f"[{time.monotonic() - self._started:5.1f}s] {text}", err=True)
        total = 1 if step in {"ready", "gone"} else None
        self._progress.update(
            self._lines[name], description=text, total=total, completed=total or 0
        )

    def say_all(self, step: str) -> None:
        """Show that everything is at ``step``."""
        for name in self._lines:
            self.say(name, step)


def _chosen(specs: "Sequence[HostSpec]", names: Sequence[str]) -> "list[HostSpec]":
    from numavm_lab.errors import LabError

    known = {spec.name: spec for spec in specs}
    if unknown := [name for name in names if name not in known]:
        raise LabError(f"the hosts file has no {unknown[0]}; it has: {', '.join(known)}")
    return [known[name] for name in names] if names else list(specs)


def _lab(name: str, report: Callable[[str], None] = lambda _step: None) -> "Lab":
    from numavm_lab.hosts import Lab, default_run_directory, prepare

    return Lab(default_run_directory(name), programs=prepare(report))


def _row(host: "LabHost") -> dict[str, object]:
    return {
        "name": host.name,
        "state": host.state.value,
        "cells": len(host.spec.cells),
        "cpus": host.spec.cpus,
        "threads": host.spec.threads,
        "kvm": host.spec.kvm,
        "memoryBytes": host.spec.memory,
        "pid": host.pid,
        "directory": str(host.paths.directory),
    }


def _print_table(hosts: "Sequence[LabHost]") -> None:
    if not hosts:
        typer.echo("no lab hosts: numavm lab up", err=True)
        return
    columns = ("HOST", "STATE", "CELLS", "CPUS", "THREADS", "KVM", "MEMORY")
    table = Table(*columns, box=None, header_style="bold")
    for host in hosts:
        spec = host.spec
        counts = (str(count) for count in (len(spec.cells), spec.cpus, spec.threads))
        kvm = "yes" if spec.kvm else "no"
        table.add_row(host.name, host.state.value, *counts, kvm, f"{spec.memory / 2**30:g}Gi")
    Console().print(table)
