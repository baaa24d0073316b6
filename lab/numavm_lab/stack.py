"""A whole NumaVM on this machine: control plane, operator, and lab hosts with an agent each.

Owns the order in which the parts come up and where their files are. Every part is a detached
process that outlives the caller; `down` ends all of them. The demo and the end-to-end tests stand
on it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kubernetes import client

from numavm_api.base import GROUP, VERSION
from numavm_api.numavm import PLURAL
from numavm_lab.controlplane.accounts import AGENT, OPERATOR, ensure_node
from numavm_lab.controlplane.binaries import ensure_binaries
from numavm_lab.controlplane.credentials import admin_client, write_renewable_kubeconfig
from numavm_lab.controlplane.manifests import install_manifests, kubectl
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.controlplane.settings import Reach
from numavm_lab.guest import witness_images
from numavm_lab.hosts import HostSpec, Lab, LabHost
from numavm_lab.local import IMAGES, ThisMachine
from numavm_lab.progress import Progress, silent
from numavm_lab.state import ProcessTable

AGENT_SERVICE: Final = "numavm-agent"
OPERATOR_PROCESS: Final = "operator"
IMAGES_INSIDE: Final = str(IMAGES)
"""The directory that lab hosts permit to NumaVMs; `witness/` below it holds the witness guest."""

_REPORT_SECONDS: Final = 180
_TOKEN_SECONDS: Final = 30 * 24 * 3600
"""Nobody renews a demo's tokens; `numavm demo up` gives new ones."""

_CREDENTIALS_INSIDE: Final = "/run/numavm"


class Stack:
    """Control plane, operator and lab hosts below one directory each, whether they run or not."""

    def __init__(
        self,
        directory: Path,
        *,
        plane: ControlPlane | None = None,
        lab: Lab | None = None,
        progress: Progress = silent,
    ) -> None:
        self.directory = directory.absolute()
        self.plane = plane or ControlPlane(self.directory / "cluster", progress=progress)
        self.lab = lab or Lab(self.directory / "lab")
        self.local = ThisMachine(self.directory / "local", progress=progress)
        self.processes = ProcessTable(self.directory / "operator")
        self._progress = progress

    def up(self, specs: Sequence[HostSpec], *, local: bool = False) -> None:
        """Bring up everything, side by side where possible; what runs already is left alone.

        Args:
            specs: The lab hosts.
            local: This machine's own libvirt is one more host.

        Raises:
            LabError: a part is missing or did not come up; the text says which and why.
        """
        with ThreadPoolExecutor(max_workers=2) as pool:
            hosts = pool.submit(self.lab.up, specs, report=self._report_host)
            self._up_control_plane(specs)
            self.start_operator()
            if local:
                self.start_local_agent()
            self._start_agents(hosts)
        self._await_hosts([host.name for host in hosts.result()] + [self.local.name] * local)

    def down(self) -> None:
        """End every process and remove every file of the stack; harmless where nothing runs."""
        self.processes.stop_all(grace_seconds=10)
        self.local.remove(self._uids_on(self.local.name) if self.plane.status().is_ready else [])
        self.lab.down(report=self._report_host)
        self.plane.remove()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start_operator(self, *, environment: Mapping[str, str] | None = None) -> None:
        """Start the operator with credentials of its own; does nothing where it runs."""
        if self.processes.is_alive(OPERATOR_PROCESS):
            return
        kubeconfig = write_renewable_kubeconfig(
            self.plane,
            OPERATOR,
            self.directory / "operator" / "credentials",
            lifetime_seconds=_TOKEN_SECONDS,
        )
        argv = [program("numavm-operator"), "--kubeconfig", str(kubeconfig), "--listen-port", "0"]
        self.processes.spawn(OPERATOR_PROCESS, argv, environment=dict(environment or {}))
        self._progress("operator started")

    def start_agent(self, host: LabHost, *, environment: Mapping[str, str] | None = None) -> None:
        """Start the agent inside a host, with a token bound to its node."""
        self.renew_agent_token(host)
        prepare_images(host)
        argv = [
            program("numavm-agent"),
            *("--kubeconfig", f"{_CREDENTIALS_INSIDE}/kubeconfig"),
            *("--node-name", host.name),
        ]
        host.start_service(AGENT_SERVICE, argv, environment=environment)
        self._progress(f"{host.name}: agent started")

    def start_local_agent(self, *, environment: Mapping[str, str] | None = None) -> None:
        """Start an agent on this machine, for its own libvirt."""
        self.local.prepare()
        with self.admin() as api:
            ensure_node(api, self.local.name)
        self.apply(numa_host(self.local.name, allow_emulation=True))
        credentials = self.directory / "agents" / self.local.name
        kubeconfig = write_renewable_kubeconfig(
            self.plane, AGENT, credentials, node=self.local.name, lifetime_seconds=_TOKEN_SECONDS
        )
        options = ["--kubeconfig", str(kubeconfig), "--node-name", self.local.name]
        options += ["--run-directory", str(self.directory / "local" / "run")]
        self.local.start_agent([program("numavm-agent"), *options], environment or {})

    def renew_agent_token(self, host: LabHost) -> None:
        """Give the agent of a host a new token, bound to its node."""
        directory = self.directory / "agents" / host.name
        kubeconfig = write_renewable_kubeconfig(
            self.plane,
            AGENT,
            directory,
            node=host.name,
            reach=Reach.LAB_HOST,
            lifetime_seconds=_TOKEN_SECONDS,
        )
        for file in (kubeconfig, directory / "token"):
            host.copy_in(f"{_CREDENTIALS_INSIDE}/{file.name}", file.read_bytes(), mode=0o600)

    def apply(self, *objects: Mapping[str, object]) -> None:
        """Apply objects as the administrator, server-side.

        Raises:
            LabError: the API server refused one; the text is its own.
        """
        if not objects:
            return
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        kubectl(self.plane, "apply", "--server-side", "--filename=-", manifest=manifest)

    @contextmanager
    def admin(self) -> Iterator[client.ApiClient]:
        """Give an API client with the administrator's rights."""
        with admin_client(self.plane) as api:
            yield api

    def _up_control_plane(self, specs: Sequence[HostSpec]) -> None:
        ensure_binaries(self._progress)
        self.plane.start()
        install_manifests(self.plane, self._progress)
        with self.admin() as api:
            for spec in specs:
                ensure_node(api, spec.name)
        self.apply(*(numa_host(spec.name, allow_emulation=not spec.kvm) for spec in specs))

    def _start_agents(self, hosts: Future[list[LabHost]]) -> None:
        running = hosts.result()
        with ThreadPoolExecutor(max_workers=max(1, len(running))) as pool:
            for started in [pool.submit(self.start_agent, host) for host in running]:
                started.result()

    def _await_hosts(self, names: Sequence[str]) -> None:
        """Wait until each agent has reported its host ready; the first probe of KVM takes a while."""
        self._progress(f"waiting for the reports of {', '.join(names)}")
        wait = ["wait", "--for=condition=Ready", f"--timeout={_REPORT_SECONDS}s"]
        kubectl(self.plane, *wait, *(f"numahosts.{GROUP}/{name}" for name in names))

    def _uids_on(self, node: str) -> list[str]:
        with self.admin() as api:
            vms = client.CustomObjectsApi(api).list_cluster_custom_object(GROUP, VERSION, PLURAL)
        return [
            vm["metadata"]["uid"]
            for vm in vms["items"]
            if vm.get("status", {}).get("nodeName") == node
        ]

    def _report_host(self, host: str, step: str) -> None:
        self._progress(f"{host}: {step}")


def numa_host(name: str, *, allow_emulation: bool) -> dict[str, object]:
    """Return a NumaHost that permits the image directory."""
    return {
        "apiVersion": "numavm.io/v1alpha1",
        "kind": "NumaHost",
        "metadata": {"name": name},
        "spec": {
            "allowEmulation": allow_emulation,
            "permitted": {"directories": [IMAGES_INSIDE]},
        },
    }


def prepare_images(host: LabHost) -> None:
    """Show the witness guest's kernel and initrd below the permitted directory of a host."""
    kernel, initrd = witness_images()
    for image, name in ((kernel, "vmlinuz"), (initrd, "initrd")):
        inside = f"{IMAGES_INSIDE}/witness/{name}"
        host.exec(["install", "-D", "-m", "0644", str(image), inside])


def program(name: str) -> str:
    """Return the path of one of NumaVM's programs, beside the running Python."""
    return str(Path(sys.executable).parent / name)
