"""What `numavm demo` does, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes import client
from rich.console import Console

from numavm_api.base import GROUP, VERSION
from numavm_api.numavm import PLURAL
from numavm_lab.controlplane.manifests import kubectl, kubectl_program
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.demo.proof import guest_report, show_proof
from numavm_lab.errors import LabError
from numavm_lab.hosts import Lab, default_run_directory, load_hosts
from numavm_lab.stack import Stack
from numavm_lab.state import state_directory
from numavm_lab.whole_cluster import stop_node

NAMESPACE: Final = "default"
_READY_SECONDS: Final = 240
_GUEST_SECONDS: Final = 90
_LOG_WIDTH: Final = 130
_POLL_SECONDS: Final = 0.25

Step = Callable[[str], None]


class StepPrinter:
    """Prints each step with the seconds since the start, so that nothing seems to hang."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def __call__(self, step: str) -> None:
        """Print one step."""
        elapsed = time.monotonic() - self._began
        self._console.print(f"[dim]{elapsed:6.1f} s[/dim]  {step}", highlight=False)


def demo_console() -> Console:
    """Return where the demo prints: tables need some width, also in a log."""
    console = Console()
    return console if console.is_terminal else Console(width=_LOG_WIDTH)


def demo_stack(step: Step) -> Stack:
    """Return the demo's stack: the control plane and lab that `numavm cluster` and `lab` show."""
    state = state_directory()
    return Stack(
        state / "demo",
        plane=ControlPlane(state / "cluster", progress=step),
        lab=Lab(default_run_directory()),
        progress=step,
    )


def demo_up(console: Console, hosts: Path, example: Path, *, local: bool = False) -> None:
    """Bring up everything, apply the example and show where it is.

    Raises:
        LabError: a part did not come up, or the VM did not become Ready and NumaAligned.
    """
    step = StepPrinter(console)
    stack = demo_stack(step)
    stack.up(load_hosts(hosts), local=local)
    step(f"applying {example.name}")
    name = yaml.safe_load(example.read_text())["metadata"]["name"]
    kubectl(stack.plane, "apply", "--server-side", f"--namespace={NAMESPACE}", f"-f={example}")
    vm = await_ready(stack, name, step)
    await_guest(stack, vm, step)
    show_proof(console, stack, vm)
    _show_next_commands(console, stack, name)


def demo_down(console: Console) -> None:
    """End every process of the demo and remove its files; the cache stays.

    A node of `numavm cluster up --full` goes with the control plane that it belongs to, and before it: its mounts lie
    in the same directory.
    """
    step = StepPrinter(console)
    stack = demo_stack(step)
    stop_node(stack.plane)
    stack.down()
    step("nothing of the demo is left; downloads and builds stay in the cache")


def demo_proof(console: Console, name: str) -> None:
    """Show where a VM of the demo is."""
    stack = demo_stack(lambda _step: None)
    show_proof(console, stack, get_vm(stack, name))


def get_vm(stack: Stack, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
    """Return a NumaVM as the API server has it."""
    with stack.admin() as api:
        found: dict[str, Any] = client.CustomObjectsApi(api).get_namespaced_custom_object(
            GROUP, VERSION, namespace, PLURAL, name
        )
    return found


def await_ready(stack: Stack, name: str, step: Step) -> dict[str, Any]:
    """Wait until the VM is Ready and NumaAligned, telling each change on the way.

    Raises:
        LabError: it did not become so in time; the text has its conditions.
    """
    deadline = time.monotonic() + _READY_SECONDS
    seen, conditions = "", {}
    while time.monotonic() < deadline:
        vm = get_vm(stack, name)
        status = vm.get("status", {})
        conditions = {one["type"]: one for one in status.get("conditions", [])}
        ready, aligned = conditions.get("Ready", {}), conditions.get("NumaAligned", {})
        if (said := _progress_of(name, status, ready)) != seen:
            step(said)
            seen = said
        if ready.get("status") == aligned.get("status") == "True":
            return vm
        time.sleep(_POLL_SECONDS)
    told = "\n".join(
        f"  {one['type']}={one['status']} {one['reason']}: {one['message']}"
        for one in conditions.values()
    )
    raise LabError(f"{name} is not Ready after {_READY_SECONDS} s:\n{told}")


def await_guest(stack: Stack, vm: dict[str, Any], step: Step) -> None:
    """Wait a while for the guest's first report; without one the proof goes on and says so."""
    step("waiting for the guest to say what it sees")
    host = stack.lab.host(vm["status"]["nodeName"])
    deadline = time.monotonic() + _GUEST_SECONDS
    while time.monotonic() < deadline and guest_report(host, vm["metadata"]["uid"]) is None:
        time.sleep(_POLL_SECONDS)


def _progress_of(name: str, status: dict[str, Any], ready: dict[str, Any]) -> str:
    where = f" on {status['nodeName']}" if status.get("nodeName") else ""
    return f"{name}: {status.get('printableStatus', 'seen')}{where} ({ready.get('reason', 'new')})"


def _show_next_commands(console: Console, stack: Stack, name: str) -> None:
    tools = kubectl_program().parent
    console.print("\n[bold]It is running. What to type next:[/bold]")
    console.print(
        f"  export KUBECONFIG={stack.plane.admin_kubeconfig} PATH={tools}:$PATH",
        soft_wrap=True,
        highlight=False,
    )
    for command, purpose in (
        ("kubectl get nvm,nhost -o wide", "the VMs and the hosts"),
        (f"kubectl get nvm {name} -o yaml", "placement and proof, in status"),
        ("kubectl apply -f deploy/examples/hugepages.yaml", "one more VM, on huge pages"),
        (f"numavm demo proof {name}", "what the kernel and the guest say"),
        ("numavm lab exec host-a -- numactl --hardware", "look around on a host"),
    ):
        console.print(f"  {command:52} [dim]# {purpose}[/dim]", highlight=False)
    console.print("\n  make down ends all of it.")
