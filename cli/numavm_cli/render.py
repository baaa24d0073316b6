"""`numavm render` and `numavm capture`: the exact domain of a manifest, without a cluster."""

import subprocess
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

LIBVIRT_URI = "qemu:///system"

LibvirtUri = Annotated[str, typer.Option("--connect", help="libvirt's URI.", metavar="URI")]


class DomainFormat(StrEnum):
    """How a domain is printed."""

    XML = "xml"
    ARGV = "argv"


def render(
    file: Annotated[
        Path, typer.Option("--file", "-f", help="A manifest; every NumaVM in it is rendered.")
    ],
    host: Annotated[
        Path | None,
        typer.Option(
            help="A NumaHost with its status, from `kubectl get nhost NAME -o yaml` or "
            "`numavm capture`.",
            show_default="a host as the spec binds the VM",
        ),
    ] = None,
    output: Annotated[
        DomainFormat,
        typer.Option("--output", "-o", help="argv: QEMU's command line, as libvirt here makes it."),
    ] = DomainFormat.XML,
    connect: LibvirtUri = LIBVIRT_URI,
) -> None:
    """Print the libvirt domain that the agent would start for a NumaVM. Needs no cluster.

    A NumaVM with a status that places it on the given host keeps its claim; any other is placed
    there as the operator would.
    """
    from numavm_cli.offline import domain_of, host_of

    where = host_of(_only(host, "NumaHost")) if host else None
    for manifest in manifests(file, "NumaVM"):
        domain = domain_of(manifest, where)
        text = domain.xml if output is DomainFormat.XML else argv_of(domain.xml, connect)
        typer.echo(text.rstrip("\n"))


def capture(connect: LibvirtUri = LIBVIRT_URI) -> None:
    """Print this machine as a NumaHost: what its agent would report with the default pools.

    The KVM probe runs a tiny guest, which takes up to a minute where KVM does not work.
    """
    import yaml

    from numavm_cli.captured import captured_host

    typer.echo(yaml.safe_dump(captured_host(connect), sort_keys=False), nl=False)


def argv_of(xml: str, connect: str) -> str:
    """Have libvirt translate a domain; it wants the host cells and the KVM that the domain names.

    Raises:
        HostFaultError: libvirt does not take it; the text is its own.
    """
    from numavm_api.errors import HostFaultError

    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(xml)
        file.flush()
        command = ["virsh", "--connect", connect, "domxml-to-native", "qemu-argv", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostFaultError(f"{' '.join(command[:4])}: {done.stderr.strip()}")
    return done.stdout.strip()


def _only(file: Path, kind: str) -> dict[str, Any]:
    from numavm_api.errors import RejectedError

    found = manifests(file, kind)
    if len(found) != 1:
        raise RejectedError(f"{file}: {len(found)} objects of kind {kind}, expected one")
    return found[0]


def manifests(file: Path, kind: str) -> list[dict[str, Any]]:
    """Return the objects of a kind in a file, at least one.

    Raises:
        RejectedError: there is none, or the file cannot be read.
    """
    import yaml

    from numavm_api.errors import RejectedError

    try:
        documents = list(yaml.safe_load_all(file.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise RejectedError(f"{file}: {error}") from error
    found = [one for one in documents if isinstance(one, dict) and one.get("kind") == kind]
    if not found:
        raise RejectedError(f"{file}: no object of kind {kind}")
    return found
