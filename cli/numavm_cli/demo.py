"""`numavm demo`: everything on one machine, an example on it, and the proof of where it is."""

from pathlib import Path
from typing import Annotated, Final

import typer

demo_app = typer.Typer(
    no_args_is_help=True,
    help="A control plane, multi-NUMA hosts, operator and agents on this machine, with an example.",
)

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_HOSTS: Final = _REPOSITORY / "deploy" / "lab" / "demo.yaml"
_EXAMPLE: Final = _REPOSITORY / "deploy" / "examples" / "two-cells.yaml"


@demo_app.command()
def up(
    hosts: Annotated[Path, typer.Option("--hosts", help="The lab's hosts file.")] = _HOSTS,
    example: Annotated[Path, typer.Option("--example", help="The NumaVM to apply.")] = _EXAMPLE,
    *,
    local: Annotated[
        bool, typer.Option("--local", help="This machine's own libvirt is one more host.")
    ] = False,
) -> None:
    """Bring up everything, apply an example and show where it is; twice is harmless."""
    from numavm_lab.demo.run import demo_console, demo_up

    demo_up(demo_console(), hosts, example, local=local)


@demo_app.command()
def down() -> None:
    """End every process of the demo and remove its files; twice is harmless."""
    from numavm_lab.demo.run import demo_console, demo_down

    demo_down(demo_console())


@demo_app.command()
def proof(name: Annotated[str, typer.Argument(help="Name of the NumaVM.")]) -> None:
    """Show where a VM is: by its status, by its host's kernel, by the guest itself."""
    from numavm_lab.demo.run import demo_console, demo_proof

    demo_proof(demo_console(), name)
