"""A Kubernetes control plane of two plain processes, etcd and kube-apiserver, in one directory.

The processes are detached and outlive their starter; a second ``ControlPlane`` over the same
directory sees them and starting twice is harmless. Everything it writes is below its directory.
"""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from numavm_lab.controlplane.binaries import ensure_binaries
from numavm_lab.controlplane.etcd_backup import restore_snapshot, save_snapshot
from numavm_lab.controlplane.health import probe, wait_ready
from numavm_lab.controlplane.kubeconfig import ClientCertificate, render_kubeconfig
from numavm_lab.controlplane.pki import KeyPair, Pki
from numavm_lab.controlplane.settings import (
    Component,
    Reach,
    Settings,
    api_server_argv,
    etcd_argv,
)
from numavm_lab.errors import LabError, ProcessFailedError
from numavm_lab.progress import Progress, silent
from numavm_lab.state import ProcessTable, give_to_invoking_user, write_private

_READY_SECONDS = 60.0
_STOP_SECONDS = 15.0


@dataclass(frozen=True)
class ComponentStatus:
    """What one process of the control plane is doing; ``problem`` is None where it is ready."""

    name: Component
    pid: int | None
    port: int
    log: Path
    problem: str | None


@dataclass(frozen=True)
class ControlPlaneStatus:
    """What runs; no components where the control plane was never started here."""

    directory: Path
    server_url: str | None
    components: tuple[ComponentStatus, ...]

    @property
    def is_ready(self) -> bool:
        """Say whether every component runs and answers."""
        return bool(self.components) and all(part.problem is None for part in self.components)


class ControlPlane:
    """etcd and kube-apiserver in ``directory``.

    ``unsafe_no_fsync`` makes etcd fast and forgetful (a power cut may lose data); it counts on
    first start only.
    """

    def __init__(
        self, directory: Path, *, unsafe_no_fsync: bool = False, progress: Progress = silent
    ) -> None:
        self.directory = directory.absolute()
        self.processes = ProcessTable(self.directory)
        self.pki = Pki(self.directory / "pki")
        self._unsafe_no_fsync = unsafe_no_fsync
        self._progress = progress

    @property
    def settings(self) -> Settings:
        """Ports and durability.

        Raises:
            LabError: The control plane was never started.
        """
        if not self._settings_path.exists():
            raise LabError(f"no control plane in {self.directory}; start one: numavm cluster up")
        return Settings.load_or_create(self._settings_path, unsafe_no_fsync=self._unsafe_no_fsync)

    @property
    def admin_kubeconfig(self) -> Path:
        """The administrator's kubeconfig on this machine; the file exists once started."""
        return self.directory / "admin.kubeconfig"

    def server_url(self, reach: Reach = Reach.THIS_MACHINE) -> str:
        """Return the API server's URL as seen from there."""
        return self.settings.server_url(reach)

    def start(self) -> None:
        """Start what does not run, and return when the API server is ready.

        Raises:
            MissingPrerequisiteError: A program is missing.
            ProcessFailedError: A component ended or did not become ready; the text has the end of
            its log.
        """
        binaries = ensure_binaries(self._progress)
        with self._lock():
            self.pki.create()
            settings = Settings.load_or_create(
                self._settings_path, unsafe_no_fsync=self._unsafe_no_fsync
            )
            etcd = etcd_argv(binaries.etcd, settings, self.pki, self._etcd_data)
            self.processes.spawn(Component.ETCD, etcd)
            self._await(Component.ETCD)
            server = api_server_argv(binaries.kube_apiserver, settings, self.pki, self.directory)
            self.processes.spawn(Component.API_SERVER, server)
            self._await(Component.API_SERVER)
            write_private(self.admin_kubeconfig, self.kubeconfig_for_certificate(self.pki.admin))
            for path in (self.directory, self.admin_kubeconfig):
                give_to_invoking_user(path)

    def stop(self) -> None:
        """End both processes, the API server first; the data stays."""
        if not self.directory.exists():
            return
        with self._lock():
            self._stop()

    def remove(self) -> None:
        """End both processes and delete the directory."""
        if self.directory.exists():
            with self._lock():
                self._stop(grace_seconds=0)  # nothing that they could still write is kept
                shutil.rmtree(self.directory)
        self._lock_path.unlink(missing_ok=True)

    def kill(self, component: Component) -> None:
        """Kill one process (SIGKILL) and return when it is gone."""
        self.processes.signal(component, signal.SIGKILL)
        self.processes.stop(component)

    def restart(self, component: Component) -> None:
        """End one process, if it runs, and start what does not run."""
        self.processes.stop(component, grace_seconds=_STOP_SECONDS)
        self.start()

    def snapshot(self, file: Path) -> None:
        """Write a snapshot of etcd's data to ``file``."""
        save_snapshot(self.settings, self.pki, file)

    def restore(self, file: Path) -> None:
        """Go back to what a snapshot holds: both components end, the data is replaced, both start.

        Objects, and their resourceVersions, go back in time, as from a backup in earnest.
        """
        with self._lock():
            self._stop()
            restore_snapshot(self.settings, file, self._etcd_data)
        self.start()

    def status(self) -> ControlPlaneStatus:
        """Return what runs and what it answers; never waits longer than a request."""
        if not self._settings_path.exists():
            return ControlPlaneStatus(self.directory, None, ())
        parts = tuple(self._component_status(component) for component in Component)
        return ControlPlaneStatus(self.directory, self.server_url(), parts)

    def kubeconfig_for_certificate(
        self, pair: KeyPair, *, namespace: str = "default", reach: Reach = Reach.THIS_MACHINE
    ) -> str:
        """Return a kubeconfig (YAML) for the owner of a client certificate."""
        return render_kubeconfig(
            server_url=self.server_url(reach),
            authority_pem=self.pki.authority.certificate.read_bytes(),
            credential=ClientCertificate(pair),
            namespace=namespace,
        )

    def _component_status(self, component: Component) -> ComponentStatus:
        settings = self.settings
        port = settings.api_port if component is Component.API_SERVER else settings.etcd_client_port
        record = self.processes.get(component)
        alive = record is not None and record.is_alive()
        return ComponentStatus(
            name=component,
            pid=record.pid if record is not None and alive else None,
            port=port,
            log=self.processes.log_path(component),
            problem=self._probe(component) if alive else "not running",
        )

    def _probe(self, component: Component) -> str | None:
        match component:
            case Component.ETCD:
                port, path = self.settings.etcd_client_port, "/health"
                authority, client = self.pki.etcd_authority, self.pki.etcd
            case Component.API_SERVER:
                port, path = self.settings.api_port, "/readyz"
                authority, client = self.pki.authority, self.pki.admin
        return probe(port=port, path=path, authority=authority, client=client)

    def _await(self, component: Component) -> None:
        problem = wait_ready(
            lambda: self._probe(component),
            is_alive=lambda: self.processes.is_alive(component),
            deadline_seconds=_READY_SECONDS,
        )
        if problem is not None:
            raise ProcessFailedError(
                f"{component}: {problem}\nthe end of {self.processes.log_path(component)}:\n"
                f"{self.processes.tail(component)}"
            )

    def _stop(self, *, grace_seconds: float = _STOP_SECONDS) -> None:
        for component in (Component.API_SERVER, Component.ETCD):
            self.processes.stop(component, grace_seconds=grace_seconds)
        self.processes.stop_all(grace_seconds=grace_seconds)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one caller at a time start or stop; the lock lies beside the directory."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self._lock_path):
            yield

    @property
    def _lock_path(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}.lock")

    @property
    def _settings_path(self) -> Path:
        return self.directory / "settings.json"

    @property
    def _etcd_data(self) -> Path:
        return self.directory / "etcd"
