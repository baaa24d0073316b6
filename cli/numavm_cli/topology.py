"""`numavm topology`: hosts x cells x CPUs, and which VM owns what."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from numavm_cli.complete import host_names
from numavm_cli.kube import Context, Kubeconfig
from numavm_cli.output import OutputFormat


def topology(
    host: Annotated[
        str | None,
        typer.Argument(
            help="A NumaHost.", show_default="all", metavar="HOST", autocompletion=host_names
        ),
    ] = None,
    output: Annotated[
        OutputFormat, typer.Option("--output", "-o", help="How to print it.")
    ] = OutputFormat.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show hosts as maps: which VM owns which CPU, what of each cell's memory is taken, devices.

    CPUs of one core stand in one pair of brackets; a letter is a VM, the number behind it its vCPU.

    For example:

        kubectl numavm topology

        kubectl numavm topology host-a -o json | jq '.hosts[].cells[].pages'
    """
    from numavm_cli.kube import cluster
    from numavm_cli.output import result_console
    from numavm_cli.views.host import host_view
    from numavm_cli.views.topology import host_map

    with cluster(kubeconfig, context, None) as found:
        hosts = [found.host(host)] if host else found.hosts()
        vms = found.vms(everywhere=True)
    views = [host_view(one, vms) for one in hosts]
    if output is OutputFormat.JSON:
        typer.echo(json.dumps({"hosts": [view.to_api() for view in views]}, indent=2))
        return
    console = result_console()
    for view in views:
        console.print(host_map(view))
    if not views:
        console.print("No NumaHost: no agent has reported yet.")
