"""The command line: `numavm`, which is also the kubectl plugin `kubectl numavm`.

Each group of commands has its file and is registered here. Group files import nothing heavy at
their top: commands import what they run when they run, so that help is quick.
"""

import shlex
import subprocess
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from numavm_cli.cluster import cluster_app
from numavm_cli.demo import demo_app
from numavm_cli.doctor import doctor
from numavm_cli.explain import HELP as EXPLAIN_HELP
from numavm_cli.explain import explain
from numavm_cli.lab import lab_app
from numavm_cli.live import diff, rehome
from numavm_cli.power import restart, start, stop
from numavm_cli.render import capture, render
from numavm_cli.simulate import HELP as SIMULATE_HELP
from numavm_cli.simulate import simulate
from numavm_cli.topology import topology
from numavm_cli.vms import describe, freeze, xml

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Virtual machines on Kubernetes, pinned to real NUMA hardware.",
)
app.add_typer(demo_app, name="demo")
app.add_typer(cluster_app, name="cluster")
app.add_typer(lab_app, name="lab")
app.command()(topology)
app.command()(describe)
app.command()(xml)
app.command()(freeze)
app.command()(doctor)
app.command()(start)
app.command()(stop)
app.command()(restart)
app.command()(render)
app.command()(capture)
app.command()(diff)
app.command()(rehome)
app.command(help=EXPLAIN_HELP)(explain)
app.command(help=SIMULATE_HELP)(simulate)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 -- typer's callback signature
    if wanted:
        typer.echo(f"numavm {version('numavm')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line; an expected error is one message and exit code 1, not a traceback."""
    from numavm_api.errors import NumaVMError

    try:
        app()
    except NumaVMError as error:
        sys.exit(f"Error: {error}")
    except subprocess.TimeoutExpired as error:
        sys.exit(f"Error: no answer within {error.timeout:g} s: {shlex.join(error.cmd)[:200]}")
    except PermissionError as error:
        sys.exit(
            f"Error: {error.filename or error}: permission denied; what sudo has started is "
            'root\'s: sudo -E env "HOME=$HOME" numavm ...'
        )
    except KeyboardInterrupt:
        sys.exit(130)
