"""`numavm doctor [HOST]`: what a host lacks, and how to mend it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from numavm_cli.complete import host_names
from numavm_cli.kube import Context, Kubeconfig
from numavm_cli.output import OutputFormat
from numavm_cli.render import LIBVIRT_URI, LibvirtUri

_PROBLEM = 1


def doctor(
    host: Annotated[
        str | None,
        typer.Argument(
            help="A NumaHost, by what its agent reports.",
            show_default="this machine itself",
            metavar="HOST",
            autocompletion=host_names,
        ),
    ] = None,
    output: Annotated[
        OutputFormat, typer.Option("--output", "-o", help="How to print it.")
    ] = OutputFormat.TABLE,
    connect: LibvirtUri = LIBVIRT_URI,
    *,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Run a tiny guest to see whether KVM works.")
    ] = True,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Say what a host lacks for NumaVM: KVM, IOMMU, huge pages, cgroup v2, versions, pools.

    Exit code 1 where something keeps NumaVM from its work.

    For example:

        numavm doctor

        kubectl numavm doctor host-a -o json
    """
    from numavm_cli.output import result_console
    from numavm_cli.views.doctor import (
        Level,
        findings_table,
        host_findings,
        machine_findings,
        worst,
    )

    if host is None:
        from numavm_cli.machine import machine_facts

        findings = machine_findings(machine_facts(connect, probe=probe))
    else:
        from numavm_cli.kube import cluster

        with cluster(kubeconfig, context, None) as found:
            findings = host_findings(found.host(host))
    if output is OutputFormat.JSON:
        typer.echo(json.dumps({"findings": [one.to_api() for one in findings]}, indent=2))
    else:
        result_console().print(findings_table(findings))
    if worst(findings) is Level.PROBLEM:
        raise typer.Exit(_PROBLEM)
