"""`numavm diff` and `numavm rehome`: changes of running VMs, shown before they are made and followed while they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from numavm_cli.output import OutputFormat
from numavm_cli.render import manifests

if TYPE_CHECKING:
    from numavm_cli.changes import Change
    from numavm_cli.objects import Objects

_CELL = re.compile(r"(?P<guest>\d+)=(?P<host>[0-9,-]+)")
_WIDTHS = (7, 52)

Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", show_default="the context's", help="Namespace of the VM."),
]
Kubeconfig = Annotated[
    str | None, typer.Option(show_default="as kubectl has it", help="Kubeconfig file.")
]


def diff(
    file: Annotated[
        Path, typer.Option("--file", "-f", help="The new manifest; every NumaVM in it is compared.")
    ],
    output: Annotated[OutputFormat, typer.Option("--output", "-o")] = OutputFormat.TABLE,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what a new manifest would change of NumaVMs that are there, before it is applied.

    Per field: Live (on the running VM), Restart (at its next start) or Refused, and where the VM
    would be. The exit code is 1 where anything is refused.
    """
    from numavm_agent.reconcile.changes import Effect
    from numavm_cli.changes import Cluster, change_of
    from numavm_cli.objects import Objects

    objects = Objects(namespace, kubeconfig)
    cluster = Cluster(objects.hosts(), objects.node_labels())
    found = []
    for manifest in manifests(file, "NumaVM"):
        metadata = manifest["metadata"]
        stored = objects.vm(metadata["name"], namespace or metadata.get("namespace"))
        refused = objects.why_refused(stored, manifest.get("spec") or {})
        found.append(change_of(stored, manifest, cluster, refused))
    if output is OutputFormat.JSON:
        typer.echo(json.dumps([change.to_json() for change in found], indent=2))
    else:
        typer.echo("\n\n".join(_table(change) for change in found))
    if any(field.effect is Effect.REFUSED for change in found for field in change.fields):
        raise typer.Exit(1)


def rehome(
    name: Annotated[str, typer.Argument(help="The NumaVM.", metavar="VM")],
    cell: Annotated[
        list[str],
        typer.Option(help="Guest cell and the host cells it moves to.", metavar="GUEST=HOST"),
    ],
    *,
    wait: Annotated[
        bool, typer.Option(help="Return when the VM is there, or cannot be moved.")
    ] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 600.0,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Move a running VM to other NUMA cells of its host, memory and CPUs, without stopping it.

    It changes `hostBinding.hostCells` of the named guest cells in the spec: what a manifest in
    version control would do as well. To take a move back, name the former host cells.
    """
    from numavm_cli.objects import Objects

    objects = Objects(namespace, kubeconfig)
    stored = objects.vm(name)
    objects.patch_vm(stored, patch_of(stored, parse_moves(cell)))
    if wait:
        _follow(objects, name, timeout)


def parse_moves(texts: list[str]) -> dict[int, str]:
    """Return guest cell -> host cells of arguments such as `0=1`.

    Raises:
        RejectedError: one of them has another form.
    """
    from numavm_api.cpuset import CpuSet
    from numavm_api.errors import RejectedError

    moves: dict[int, str] = {}
    for text in texts:
        found = _CELL.fullmatch(text)
        if found is None:
            raise RejectedError(f"--cell {text}: write GUEST=HOST, for example --cell 0=1")
        moves[int(found["guest"])] = str(CpuSet.parse(found["host"]))
    return moves


def patch_of(stored: dict[str, Any], moves: dict[int, str]) -> list[dict[str, Any]]:
    """Return the JSON patch that binds guest cells of a stored NumaVM to other host cells.

    Raises:
        RejectedError: it has no such cells, or its whole guest is bound.
    """
    from numavm_api.errors import RejectedError

    path = "/spec/domain/cpu/numa"
    numa = stored["spec"]["domain"].get("cpu", {}).get("numa", {})
    cells = {cell["id"]: (at, cell) for at, cell in enumerate(numa.get("cells", ()))}
    whole = numa.get("hostBinding", {}).get("hostCells")
    if whole is not None:
        raise RejectedError(
            f"spec.domain.cpu.numa.hostBinding.hostCells is '{whole}' and binds every cell: "
            "give each cell a hostBinding of its own instead, then move it"
        )
    operations: list[dict[str, Any]] = []
    for guest, host_cells in moves.items():
        if guest not in cells:
            known = ", ".join(map(str, cells)) or "none"
            raise RejectedError(f"--cell {guest}={host_cells}: the VM declares the cells {known}")
        at, cell = cells[guest]
        binding = {**cell.get("hostBinding", {}), "hostCells": host_cells}
        operations.append({"op": "add", "path": f"{path}/cells/{at}/hostBinding", "value": binding})
    return operations


def _follow(objects: Objects, name: str, timeout: float) -> None:
    """Print how the move goes on until it is done.

    Raises:
        RejectedError: there is no room, or the VM cannot be moved.
        TransientError: it took too long.
    """
    import time

    from numavm_api.errors import RejectedError, TransientError

    ends, said = time.monotonic() + timeout, ""
    while time.monotonic() < ends:
        vm = objects.vm(name)
        ready, reserved = (_condition(vm, kind) for kind in ("Ready", "CapacityReserved"))
        generation = vm["metadata"]["generation"]
        is_current = all(one.get("observedGeneration") == generation for one in (ready, reserved))
        if is_current and reserved.get("status") == "False":
            raise RejectedError(f"{reserved['reason']}: {reserved['message']}")
        line = _progress(vm)
        if line and line != said:
            typer.echo(line, err=True)
            said = line
        if is_current and ready.get("status") == "True":
            placement = vm["status"]["placement"]
            typer.echo(f"{name} is at {vm['status']['nodeName']}: {placement['summary']}")
            return
        time.sleep(0.2)
    raise TransientError(f"{name} is not there after {timeout:g} s; the move goes on: {said}")


def _progress(vm: dict[str, Any]) -> str:
    operation = vm.get("status", {}).get("operation")
    if operation is None:
        return ""
    return f"{operation['from']} => {operation['to']}: {operation['step']}, {operation['percent']} % moved"


def _condition(vm: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions = vm.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == kind), {})


def _table(change: Change) -> str:
    lines = [f"{change.namespace}/{change.name}: {'runs' if change.running else 'does not run'}"]
    if not change.fields:
        return f"{lines[0]}, nothing changes"
    effect_width, path_width = _WIDTHS
    for one in change.fields:
        why = f"  ({one.why})" if one.why else ""
        lines.append(
            f"  {one.effect:<{effect_width}}  {one.path:<{path_width}}  {one.old} -> {one.new}{why}"
        )
    places = {"now": change.now, "live": change.live, "after a restart": change.restart}
    lines += [f"  {when}: {where}" for when, where in places.items() if where]
    return "\n".join(lines)
