"""`numavm describe|xml|freeze VM`: what a VM is, the XML its agent uses, the manifest that keeps it in place."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from numavm_cli.complete import host_names, vm_names
from numavm_cli.kube import Context, Kubeconfig, Namespace
from numavm_cli.output import OutputFormat
from numavm_cli.render import LIBVIRT_URI, DomainFormat, LibvirtUri

VmName = Annotated[
    str, typer.Argument(help="Name of a NumaVM.", metavar="VM", autocompletion=vm_names)
]


class ManifestFormat(StrEnum):
    """How a manifest is printed."""

    YAML = "yaml"
    JSON = "json"


def describe(
    name: VmName,
    output: Annotated[
        OutputFormat, typer.Option("--output", "-o", help="How to print it.")
    ] = OutputFormat.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Show a VM on one screen: placement, the kernel's proof, pending changes, conditions, events.

    For example:

        kubectl numavm describe db

        kubectl numavm describe db -n prod -o json | jq .threads
    """
    from numavm_cli.kube import cluster
    from numavm_cli.output import result_console
    from numavm_cli.views.vm import vm_view
    from numavm_cli.views.vm_text import vm_screen

    with cluster(kubeconfig, context, namespace) as found:
        vm = found.vm(name)
        view = vm_view(vm, found.events_of(vm))
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(view.to_api(), indent=2))
    else:
        result_console().print(vm_screen(view))


def xml(
    name: VmName,
    host: Annotated[
        str | None,
        typer.Option(
            help="Render for this NumaHost.",
            show_default="the one it is placed on",
            metavar="HOST",
            autocompletion=host_names,
        ),
    ] = None,
    output: Annotated[
        DomainFormat,
        typer.Option("--output", "-o", help="argv: QEMU's command line, as libvirt here makes it."),
    ] = DomainFormat.XML,
    connect: LibvirtUri = LIBVIRT_URI,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Print the libvirt domain that the agent would start for a VM, from what the cluster says now.

    For example:

        kubectl numavm xml db

        kubectl numavm xml db --host host-b | virt-xml-validate - domain
    """
    from numavm_api.errors import RejectedError
    from numavm_cli.kube import cluster
    from numavm_cli.offline import domain_of, host_of
    from numavm_cli.render import argv_of

    with cluster(kubeconfig, context, namespace) as found:
        vm = found.vm(name)
        where = host or (vm.get("status") or {}).get("nodeName")
        if where is None:
            raise RejectedError(
                f"NumaVM {found.namespace}/{name}: status.nodeName is empty: it is placed nowhere; "
                "name a host to render for by --host"
            )
        domain = domain_of(vm, host_of(found.host(where)))
    text = domain.xml if output is DomainFormat.XML else argv_of(domain.xml, connect)
    typer.echo(text.rstrip("\n"))


def freeze(
    name: VmName,
    output: Annotated[
        ManifestFormat, typer.Option("--output", "-o", help="How to print it.")
    ] = ManifestFormat.YAML,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Print the manifest that keeps a VM where it is: today's host, host cells and pins in its spec.

    For example:

        kubectl numavm freeze db > db.yaml

        kubectl numavm freeze db | kubectl diff -f -
    """
    import yaml

    from numavm_cli.kube import cluster
    from numavm_cli.views.freeze import frozen_manifest

    with cluster(kubeconfig, context, namespace) as found:
        manifest = frozen_manifest(found.vm(name))
    if output is ManifestFormat.JSON:
        typer.echo(json.dumps(manifest, indent=2))
    else:
        typer.echo(yaml.safe_dump(manifest, sort_keys=False), nl=False)
