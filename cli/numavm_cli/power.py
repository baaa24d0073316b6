"""`numavm start|stop|restart VM`: the fields of the spec that say whether a VM runs, changed for people."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from numavm_api.numavm import RunStrategy
from numavm_cli.kube import Context, Kubeconfig, Namespace
from numavm_cli.vms import VmName

if TYPE_CHECKING:
    from numavm_cli.kube import Cluster

_POLL_SECONDS: Final = 0.5
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is done.")]
Timeout = Annotated[float, typer.Option(min=1, help="How long --wait waits, in seconds.")]


def start(
    name: VmName,
    strategy: Annotated[
        RunStrategy, typer.Option("--run-strategy", help="What spec.runStrategy becomes.")
    ] = RunStrategy.ALWAYS,
    *,
    wait: Wait = False,
    timeout: Timeout = 120,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Have a VM run: sets spec.runStrategy. Where Git owns the manifest, change it there.

    For example:

        kubectl numavm start db --wait

        kubectl numavm start job --run-strategy Once
    """
    from numavm_api.errors import RejectedError
    from numavm_cli.kube import cluster

    if strategy is RunStrategy.HALTED:
        raise RejectedError("--run-strategy: Halted starts nothing; use `numavm stop`")
    with cluster(kubeconfig, context, namespace) as found:
        _change(found, name, {"runStrategy": strategy.value}, "started")
        _until_ready(found, name, timeout if wait else None)


def stop(
    name: VmName,
    *,
    wait: Wait = False,
    timeout: Timeout = 120,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Have a VM shut down, and hold nothing: sets spec.runStrategy to Halted.

    For example:

        kubectl numavm stop db --wait
    """
    from numavm_cli.kube import cluster

    with cluster(kubeconfig, context, namespace) as found:
        _change(found, name, {"runStrategy": RunStrategy.HALTED.value}, "stopped")
        _until_ready(found, name, timeout if wait else None)


def restart(
    name: VmName,
    *,
    wait: Wait = False,
    timeout: Timeout = 120,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Restart a VM, which applies what is pending: sets spec.restartToken to the time now.

    For example:

        kubectl numavm restart db --wait
    """
    from numavm_api.errors import RejectedError
    from numavm_cli.kube import cluster

    with cluster(kubeconfig, context, namespace) as found:
        if found.vm(name)["spec"].get("runStrategy") == RunStrategy.HALTED:
            raise RejectedError(
                f"NumaVM {found.namespace}/{name}: spec.runStrategy is Halted: nothing to restart; "
                "use `numavm start`"
            )
        token = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        _change(found, name, {"restartToken": token}, "restarted")
        _until_ready(found, name, timeout if wait else None)


def _change(found: Cluster, name: str, spec: dict[str, Any], done: str) -> None:
    before = found.vm(name)["metadata"]["generation"]
    after = found.patch_vm(name, spec)["metadata"]["generation"]
    unchanged = " (unchanged)" if before == after else ""
    typer.echo(f"numavm.numavm.io/{name} {done}{unchanged}")


def _until_ready(found: Cluster, name: str, seconds: float | None) -> None:
    """Wait until condition Ready is True for the newest generation; a Halted VM is Ready too."""
    from numavm_api.errors import TransientError

    if seconds is None:
        return
    end = time.monotonic() + seconds
    while True:
        vm = found.vm(name)
        ready = _ready(vm)
        if (
            ready.get("status") == "True"
            and ready.get("observedGeneration") == vm["metadata"]["generation"]
        ):
            return
        if time.monotonic() > end:
            told = f"{ready.get('reason', 'no condition')}: {ready.get('message', '')}"
            raise TransientError(
                f"{found.namespace}/{name} is not Ready after {seconds:g} s ({told})"
            )
        time.sleep(_POLL_SECONDS)


def _ready(vm: dict[str, Any]) -> dict[str, Any]:
    conditions = (vm.get("status") or {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == "Ready"), {})
