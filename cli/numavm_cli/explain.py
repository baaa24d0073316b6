"""`numavm explain`: why a VM is where it is, or nowhere, host by host."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from numavm_cli.complete import vm_names
from numavm_cli.kube import Context, Kubeconfig, Namespace
from numavm_cli.output import OutputFormat
from numavm_operator.host_choice import HostChoice

if TYPE_CHECKING:
    from rich.table import Table

    from numavm_cli.fleet_file import Cluster
    from numavm_operator.objects import Vm
    from numavm_operator.placement import Explanation

HELP = """Say why a VM is on its host, or why no host takes it, and what would help.

Nothing is changed. From a cluster, which is found as kubectl finds it:

    kubectl numavm explain db -n shop

Without a cluster, from a manifest and a fleet that was written down before:

    kubectl get nhost,node,nvm,priorityclass -A -o yaml > fleet.yaml
    numavm explain -f vm.yaml --fleet fleet.yaml

For each host it names the first reason against it, by how much it is missed on the host cell that comes
nearest, and the edit that would help; for hosts that fit, distance and what is left over. `-o json` has every
host cell.
"""


def explain(
    vm: Annotated[
        str | None,
        typer.Argument(help="A NumaVM of the cluster.", metavar="VM", autocompletion=vm_names),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A manifest with one NumaVM instead.")
    ] = None,
    fleet: Annotated[
        Path | None,
        typer.Option(
            help="NumaHosts with their status, and with nodes and NumaVMs if they are to count.",
            show_default="the cluster",
        ),
    ] = None,
    output: Annotated[
        OutputFormat, typer.Option("--output", "-o", help="How to print it.")
    ] = OutputFormat.TABLE,
    host_choice: Annotated[
        HostChoice,
        typer.Option(help="Which of the hosts that fit is taken: as the operator was told."),
    ] = HostChoice.PACK,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Explain a placement; `HELP` is what people read."""
    from numavm_api.errors import RejectedError
    from numavm_cli.fleet_file import cluster_of, documents

    if (vm is None) == (file is None):
        raise RejectedError("name a NumaVM of the cluster, or a manifest with -f; one of the two")
    if fleet:
        cluster, default = cluster_of(documents(fleet)), "default"
    else:
        cluster, default = _from_the_cluster(kubeconfig, context, namespace)
    wanted = _only_vm(file) if file else cluster.vm(namespace or default, vm or "")
    told = explanation(wanted, cluster, host_choice)
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(told.to_api(), indent=2))
        return
    from numavm_cli.output import result_console

    console = result_console()
    console.print(f"[bold]{wanted.key}[/bold]: {told.message}", highlight=False)
    if told.held:
        console.print(f"It holds a claim on {', '.join(told.held)} now.", highlight=False)
    console.print(table_of(told))


def explanation(
    vm: "Vm", cluster: "Cluster", host_choice: HostChoice = HostChoice.PACK
) -> "Explanation":
    """Return why a VM would go where it goes.

    Raises:
        RejectedError: its spec is refused.
    """
    from numavm_api.errors import RejectedError
    from numavm_operator.placement import POLICIES
    from numavm_operator.placement import explain as explain_placement
    from numavm_operator.requests import left_out, request_of, spread_from

    if vm.accepted is None:
        raise RejectedError(f"{vm.key}: {' '.join(vm.violations)}")
    versions = {name: host.resource_version for name, host in cluster.hosts.items()}
    out = left_out(vm, versions.get, datetime.now(tz=UTC))
    request = request_of(
        vm,
        vm.accepted,
        placement_id="explain",
        epoch=0,
        excluded_hosts={name: one.why for name, one in out.items()},
        kept=cluster.kept_from(vm),
        away=spread_from(vm, vm.accepted, cluster.vms, cluster.fleet),
    )
    return explain_placement(request, cluster.fleet, POLICIES[host_choice])


def table_of(told: "Explanation") -> "Table":
    """Return one line per host, the chosen one first, then those that fit, then the nearest misses."""
    from rich.table import Table

    drawn = Table("HOST", "FITS", "WHY", "WHAT WOULD HELP", box=None, pad_edge=False)
    for host in told.hosts:
        mark = "chosen" if host.node_name == told.chosen else ("yes" if host.fits else "no")
        drawn.add_row(host.node_name, mark, host.message, host.remedy)
    return drawn


def _only_vm(file: Path) -> "Vm":
    from numavm_api.errors import RejectedError
    from numavm_cli.fleet_file import cluster_of, documents

    vms = cluster_of([one for one in documents(file) if one.get("kind") == "NumaVM"]).vms
    if len(vms) != 1:
        raise RejectedError(f"{file}: {len(vms)} objects of kind NumaVM, expected one")
    return vms[0]


def _from_the_cluster(
    kubeconfig: Path | None, context: str | None, namespace: str | None
) -> "tuple[Cluster, str]":
    """Return the cluster's fleet, and the namespace that is meant."""
    from numavm_cli.cluster_reader import read_cluster
    from numavm_cli.kube import cluster

    with cluster(kubeconfig, context, namespace) as connection:
        return read_cluster(connection), connection.namespace
