"""This machine as a whole Kubernetes node beside a control plane: containerd, kubelet, controller-manager, scheduler.

Owns their start and their end, the end of every pod's process and mount included. They are processes of the control
plane's own table, so that nothing is forgotten where a start was cut off.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from numavm_lab.controlplane.binaries import KubernetesProgram, ensure_kubernetes_program
from numavm_lab.controlplane.kernel_settings import (
    note_kernel_settings,
    put_kernel_settings_back,
)
from numavm_lab.controlplane.manifests import kubectl
from numavm_lab.controlplane.node_settings import (
    NodePaths,
    cni_config,
    containerd_config,
    controller_manager_argv,
    kubelet_argv,
    kubelet_config,
    scheduler_argv,
)
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.controlplane.settings import free_ports
from numavm_lab.errors import LabError, MissingPrerequisiteError, ProcessFailedError
from numavm_lab.images import PAUSE, Image
from numavm_lab.progress import Progress, silent
from numavm_lab.state import write_private

_CONTAINERD: Final = "containerd"
_READY_SECONDS: Final = 120
_POLL_SECONDS: Final = 0.2
_STOP_SECONDS: Final = 10
_NAMESPACE: Final = "k8s.io"
_KERNEL_SETTINGS: Final = "kernel-settings.json"


class WholeNode:
    """The node of a control plane that runs on this machine."""

    def __init__(self, plane: ControlPlane, *, progress: Progress = silent) -> None:
        self._plane = plane
        self._progress = progress
        self.paths = NodePaths(plane.directory / "node")

    @property
    def name(self) -> str:
        """The node's name: that of the machine."""
        return socket.gethostname().lower()

    def start(self, images: Sequence[Image]) -> None:
        """Start what does not run, load images, and return when the node is Ready.

        Raises:
            MissingPrerequisiteError: a program is missing.
            LabError: the node did not become Ready; the text has the end of kubelet's log.
        """
        programs = {
            one: ensure_kubernetes_program(one, self._progress)
            for one in (
                KubernetesProgram.KUBELET,
                KubernetesProgram.CONTROLLER_MANAGER,
                KubernetesProgram.SCHEDULER,
            )
        }
        self._start_containerd()
        self._progress("loading images")
        for image in images:
            self._ctr("images", "import", str(image.archive))
        admin = self._plane.admin_kubeconfig
        manager = programs[KubernetesProgram.CONTROLLER_MANAGER]
        self._spawn("controller-manager", controller_manager_argv(manager, self._plane.pki, admin))
        self._spawn("scheduler", scheduler_argv(programs[KubernetesProgram.SCHEDULER], admin))
        self._start_kubelet(programs[KubernetesProgram.KUBELET])
        self._await_ready()

    def stop(self) -> None:
        """End kubelet, then every pod's process and mount, then the rest; harmless where nothing runs."""
        if not self.paths.directory.exists():
            return
        for name in ("kubelet", "scheduler", "controller-manager"):
            self._plane.processes.stop(name, grace_seconds=_STOP_SECONDS)
        put_kernel_settings_back(self.paths.directory / _KERNEL_SETTINGS)
        if self._plane.processes.is_alive(_CONTAINERD):
            self._end_containers()
        self._plane.processes.stop(_CONTAINERD, grace_seconds=_STOP_SECONDS)
        _unmount_below(self.paths.directory)
        shutil.rmtree(self.paths.directory, ignore_errors=True)

    def _start_containerd(self) -> None:
        program = shutil.which("containerd")
        if program is None or shutil.which("runc") is None:
            raise MissingPrerequisiteError(
                "containerd or runc is missing: hack/debian.sh installs both"
            )
        (self.paths.directory / "cni").mkdir(parents=True, exist_ok=True)
        config = self.paths.directory / "containerd.toml"
        write_private(config, containerd_config(self.paths, f"docker.io/{PAUSE}"))
        network = self.paths.directory / "cni" / "10-lab.conflist"
        write_private(network, json.dumps(cni_config()))
        self._spawn(_CONTAINERD, [program, "--config", str(config)])
        deadline = time.monotonic() + _READY_SECONDS
        while not self._containerd_answers():
            if time.monotonic() > deadline or not self._plane.processes.is_alive(_CONTAINERD):
                log = self._plane.processes.tail(_CONTAINERD)
                raise ProcessFailedError(f"containerd does not answer:\n{log}")
            time.sleep(_POLL_SECONDS)

    def _start_kubelet(self, program: Path) -> None:
        pki = self._plane.pki
        pair = pki.client(f"system:node:{self.name}", ["system:nodes"])
        kubeconfig = self.paths.directory / "kubelet.kubeconfig"
        write_private(kubeconfig, self._plane.kubeconfig_for_certificate(pair))
        config = self.paths.directory / "kubelet.json"
        if not config.exists():
            settings = kubelet_config(self.paths, pki, *free_ports(2), cpus=os.cpu_count() or 1)
            write_private(config, json.dumps(settings))
        note_kernel_settings(self.paths.directory / _KERNEL_SETTINGS)
        argv = kubelet_argv(
            program, self.paths, config=config, kubeconfig=kubeconfig, name=self.name
        )
        self._spawn("kubelet", argv)

    def _await_ready(self) -> None:
        self._progress("waiting for the node to be Ready")
        deadline = time.monotonic() + _READY_SECONDS
        wait = ["wait", "--for=condition=Ready", f"node/{self.name}", "--timeout=5s"]
        while True:
            try:
                kubectl(self._plane, *wait)
            except LabError as error:
                if time.monotonic() > deadline or not self._plane.processes.is_alive("kubelet"):
                    log = self._plane.processes.tail("kubelet")
                    raise LabError(f"node {self.name} is not Ready: {error}\n{log}") from error
                time.sleep(_POLL_SECONDS)
            else:
                return

    def _end_containers(self) -> None:
        tasks = self._ctr("tasks", "ls", "--quiet", check=False).split()
        for task in tasks:
            self._ctr("tasks", "kill", "--signal", str(signal.SIGKILL.value), task, check=False)
        for container in self._ctr("containers", "ls", "--quiet", check=False).split():
            self._ctr("tasks", "delete", "--force", container, check=False)
            self._ctr("containers", "delete", container, check=False)

    def _containerd_answers(self) -> bool:
        return bool(self._ctr("version", check=False))

    def _ctr(self, *words: str, check: bool = True) -> str:
        command = ["ctr", "--address", str(self.paths.socket), "--namespace", _NAMESPACE, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise LabError(f"ctr {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout if done.returncode == 0 else ""

    def _spawn(self, name: str, argv: Sequence[str]) -> None:
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        self._plane.processes.spawn(name, list(argv), environment={"PATH": path})


def _unmount_below(directory: Path) -> None:
    """Unmount everything below a directory, the innermost first."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((one for one in mounts if one.startswith(f"{directory}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
