"""`numavm cluster`: the lab's control plane."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from numavm_cli.output import OutputFormat, progress_to_stderr

if TYPE_CHECKING:
    from numavm_lab.controlplane.plane import ControlPlane, ControlPlaneStatus
    from numavm_lab.progress import Progress

cluster_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""A real Kubernetes control plane on this machine: etcd and kube-apiserver, nothing else.

    There is no scheduler, no controller-manager and no kubelet unless `up --full` asks for them:
    NumaVM needs none of them to place and run virtual machines. Everything listens on loopback only.
    """,
)

_NOT_READY = 1


@cluster_app.command()
def up(
    *,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Also kubelet, containerd, scheduler and controller-manager, for trying the Helm "
            "chart: this machine becomes a node, with images of operator and agent built here.",
        ),
    ] = False,
) -> None:
    """Start the control plane and install NumaVM's roles, CRDs and admission policies.

    With --full they are left to the chart; the helm command to type is printed. The first time, the
    programs and images take about 10 minutes more to build.

    Takes about 4 seconds. The first time ever, where no kube-apiserver is found in
    $KUBEBUILDER_ASSETS or on PATH, one is built from its Go module and kept in the cache: 5 to 8
    minutes on two cores. Running it again is harmless and brings the manifests up to date.
    """
    from numavm_lab.controlplane.manifests import install_manifests

    progress = progress_to_stderr()
    plane = _plane(progress)
    progress("starting etcd and kube-apiserver")
    plane.start()
    if full:
        from numavm_lab.whole_cluster import helm_values, start_node

        program = start_node(plane, progress)
        values = " ".join(f"--set {value}" for value in helm_values(plane))
        typer.echo(
            f"{program} install numavm deploy/charts/numavm --namespace numavm-system "
            f"--create-namespace --wait {values}",
            err=True,
        )
    else:
        install_manifests(plane, progress)
    progress(f"ready at {plane.server_url()}")
    typer.echo(f"export KUBECONFIG={plane.admin_kubeconfig}")


@cluster_app.command()
def down() -> None:
    """End the control plane and delete all its files, the objects in it included."""
    progress = progress_to_stderr()
    from numavm_lab.controlplane.node import WholeNode

    progress("ending etcd and kube-apiserver")
    plane = _plane(progress)
    WholeNode(plane).stop()
    plane.remove()
    progress("nothing of the control plane is left")


@cluster_app.command()
def status(
    output: Annotated[
        OutputFormat, typer.Option("--output", "-o", help="How to print it.")
    ] = OutputFormat.TABLE,
) -> None:
    """Say whether etcd and kube-apiserver run and answer; exit code 1 where one does not."""
    seen = _plane().status()
    typer.echo(_as_json(seen) if output is OutputFormat.JSON else _as_table(seen))
    if not seen.is_ready:
        raise typer.Exit(_NOT_READY)


@cluster_app.command()
def token(
    host: Annotated[str, typer.Argument(help="The Kubernetes node whose agent the token is for.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Write it to this file, atomically and readable by its owner only."),
    ] = None,
    lifetime_seconds: Annotated[
        int, typer.Option(min=600, help="How long it is valid; at least 600.")
    ] = 24 * 3600,
) -> None:
    """Make a token for the agent of a host, bound to that node.

    A bound token lets the agent write the status of its own virtual machines only, and dies with
    the Node object, which is created if it is missing. Renew an agent's token by writing over the
    file that its kubeconfig names.
    """
    from numavm_lab.controlplane.accounts import AGENT
    from numavm_lab.controlplane.credentials import token_for_service_account
    from numavm_lab.state import write_private

    made = token_for_service_account(_plane(), AGENT, node=host, lifetime_seconds=lifetime_seconds)
    if output is None:
        typer.echo(made)
    else:
        write_private(output, made)


@cluster_app.command()
def kubeconfig(
    *,
    lab_host: Annotated[
        bool,
        typer.Option("--lab-host", help="With this machine's address as a lab host sees it."),
    ] = False,
) -> None:
    """Print the administrator's kubeconfig."""
    from numavm_lab.controlplane.settings import Reach

    plane = _plane()
    reach = Reach.LAB_HOST if lab_host else Reach.THIS_MACHINE
    typer.echo(plane.kubeconfig_for_certificate(plane.pki.admin, reach=reach), nl=False)


def _plane(progress: "Progress | None" = None) -> "ControlPlane":
    from numavm_lab.controlplane.plane import ControlPlane
    from numavm_lab.progress import silent
    from numavm_lab.state import state_directory

    return ControlPlane(state_directory() / "cluster", progress=progress or silent)


def _as_json(seen: "ControlPlaneStatus") -> str:
    parts = [
        {
            "name": part.name,
            "ready": part.problem is None,
            "pid": part.pid,
            "port": part.port,
            "log": str(part.log),
            "problem": part.problem,
        }
        for part in seen.components
    ]
    document = {
        "directory": str(seen.directory),
        "serverURL": seen.server_url,
        "ready": seen.is_ready,
        "components": parts,
    }
    return json.dumps(document, indent=2)


def _as_table(seen: "ControlPlaneStatus") -> str:
    if not seen.components:
        return "No control plane is up. Start one: numavm cluster up"
    rows = [("COMPONENT", "READY", "PID", "PORT", "LOG")]
    rows += [
        (
            part.name,
            "no" if part.problem else "yes",
            str(part.pid or "-"),
            str(part.port),
            str(part.log),
        )
        for part in seen.components
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += [f"{part.name}: {part.problem}" for part in seen.components if part.problem]
    return "\n".join(lines)
