"""`numavm simulate`: what a fleet makes of a stream of VMs, without a cluster."""

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from numavm_cli.output import OutputFormat
from numavm_operator.host_choice import HostChoice

if TYPE_CHECKING:
    from numavm_cli.simulation.run import Result

HELP = """Place a stream of VMs on a fleet, as the operator would, and tell how it went. Nothing is changed anywhere.

Which part of the VMs a fleet takes before it is bought, or with one host more or less:

    kubectl get nhost,node,nvm -A -o yaml > fleet.yaml
    numavm simulate --fleet fleet.yaml --mix mixed --count 2000 --load 0.9

The fleet is what `numavm explain --fleet` takes; what NumaVMs hold there stays held, `--empty` lets it go. The
stream is drawn from a mix (`small`, `mixed`, `large`; the same `--seed` gives the same stream), or is a file:

    - {time: 0, leaves: 60, vm: {domain: {cpu: {cores: 4, dedicatedCpuPlacement: true}, memory: {guest: 8Gi}}}}
    - {time: 5, vm: {domain: {cpu: {cores: 2}, memory: {guest: 4Gi}}}}

Told are: vCPUs and VMs accepted, refusals by cause, fragmentation (the part of the free CPUs in no whole 16 of one
cell), mean distance between the cells of a VM, and decisions per second of CPU time. `--plot fleet.svg` draws how
full each host cell was over time; `-o json` prints all of it.
"""


def simulate(  # noqa: PLR0913, PLR0917 - typer's options
    fleet: Annotated[Path, typer.Option(help="NumaHosts with their status, and what is held.")],
    stream: Annotated[
        Path | None, typer.Option(help="A file with the stream.", show_default="drawn from --mix")
    ] = None,
    mix: Annotated[str, typer.Option(help="small, mixed or large.")] = "mixed",
    count: Annotated[int, typer.Option(min=1, help="How many VMs come.")] = 1000,
    load: Annotated[
        float, typer.Option(min=0.01, help="vCPUs asked for / CPUs of the fleet.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the mix.")] = 1,
    page_size: Annotated[str, typer.Option(help="Huge pages of the mix's VMs; 4Ki: none.")] = "4Ki",
    host_choice: Annotated[
        HostChoice, typer.Option(help="Which of the hosts that fit is taken.")
    ] = HostChoice.PACK,
    plot: Annotated[Path | None, typer.Option(help="Write an SVG of the cells over time.")] = None,
    empty: Annotated[  # noqa: FBT002 - typer's flag
        bool, typer.Option("--empty", help="Let go of what is held.")
    ] = False,
    output: Annotated[OutputFormat, typer.Option("--output", "-o")] = OutputFormat.TABLE,
) -> None:
    """Simulate a stream; `HELP` is what people read."""
    from numavm_api.errors import RejectedError
    from numavm_cli.fleet_file import cluster_of, documents
    from numavm_cli.simulation import run
    from numavm_cli.simulation.stream import MIXES, drawn, read
    from numavm_operator.placement import POLICIES

    if mix not in MIXES:
        raise RejectedError(
            f"--mix is {mix}, but the mixes are {', '.join(MIXES)}: take one of them"
        )
    objects = documents(fleet)
    hosts = [_emptied(one) for one in objects if one.get("kind") != "NumaVM"] if empty else objects
    state = cluster_of(hosts).fleet
    if not state.hosts:
        raise RejectedError(f"{fleet}: no object of kind NumaHost")
    cpus = run.capacity(state)
    pages = None if page_size == "4Ki" else page_size
    events = (
        list(read(stream))
        if stream
        else list(drawn(mix, seed=seed, count=count, cpus=cpus, load=load, page_size=pages))
    )
    result = _followed(run.simulate(state, events, len(events), POLICIES[host_choice]), len(events))
    if plot:
        from numavm_cli.simulation.plot import svg_of

        plot.write_text(svg_of(result))
    _print(result, output)


def _emptied(manifest: dict[str, object]) -> dict[str, object]:
    status = manifest.get("status")
    if manifest.get("kind") != "NumaHost" or not isinstance(status, dict):
        return manifest
    return {**manifest, "status": {**status, "claims": []}}


def _followed(results: "Iterator[Result]", total: int) -> "Result":
    """Go through a simulation with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    last = deque(
        track(
            results,
            total=total,
            description="placing",
            console=Console(stderr=True),
            transient=True,
        ),
        maxlen=1,
    )
    return last[0]


def _print(result: "Result", output: OutputFormat) -> None:
    told = result.to_api()
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(told, indent=2))
        return
    refused = ", ".join(f"{cause} {count}" for cause, count in told.pop("refused").items())
    for name, value in {**told, "refused": refused or "none"}.items():
        typer.echo(f"{name:22} {value}")
