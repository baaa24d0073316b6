"""Completion: names of NumaVMs and NumaHosts from the cluster, and the plugin's completion under kubectl.

kubectl completes a plugin `kubectl-x` by running `kubectl_complete-x WORD...` and reading one proposal per line, then a
line `:NUMBER` with cobra's directive (kubernetes/kubectl, pkg/cmd/util/plugin.go).
"""

from __future__ import annotations

import sys
from typing import Any, Final

import typer

_NO_FILES: Final = 4
"""cobra's ShellCompDirectiveNoFileComp."""


def vm_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return names of NumaVMs in the namespace that the command line names; none where there is no cluster."""
    return _names(ctx, incomplete, lambda cluster: cluster.vms())


def host_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return names of NumaHosts; none where there is no cluster."""
    return _names(ctx, incomplete, lambda cluster: cluster.hosts())


def _names(ctx: typer.Context, incomplete: str, objects: Any) -> list[str]:  # noqa: ANN401 - a function of a cluster
    from numavm_api.errors import NumaVMError
    from numavm_cli.kube import cluster

    given = ctx.params
    try:
        with cluster(
            given.get("kubeconfig"), given.get("context"), given.get("namespace")
        ) as found:
            names = [str(one["metadata"]["name"]) for one in objects(found)]
    except NumaVMError:
        return []  # completion never complains
    return [name for name in names if name.startswith(incomplete)]


def main() -> None:
    """Complete for kubectl: the words after `kubectl numavm` are the arguments, the last one is unfinished."""
    from typer.main import get_command

    from numavm_cli.main import app

    *before, incomplete = sys.argv[1:] or [""]
    for proposal in proposals(get_command(app), before, incomplete):
        sys.stdout.write(f"{proposal}\n")
    sys.stdout.write(f":{_NO_FILES}\n")


def proposals(command: Any, before: list[str], incomplete: str) -> list[str]:  # noqa: ANN401 - typer vendors its click
    """Return what may stand in place of `incomplete`, with help after a tab where there is any."""
    from typer._completion_classes import BashComplete

    completion = BashComplete(command, {}, "numavm", "_NUMAVM_COMPLETE")
    return [
        f"{item.value}\t{item.help}" if item.help else str(item.value)
        for item in completion.get_completions(before, incomplete)
    ]
