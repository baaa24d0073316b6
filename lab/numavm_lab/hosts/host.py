"""One lab host: a virtual machine with several NUMA nodes and a libvirt of its own.

Its processes (QEMU, two virtiofsd, kept ssh connections) are detached and recorded in the host's directory, so that any
later process can go on with the host. Everything inside is gone at power-off, as it should be: the host sees this
machine's root file system read-only, below fresh ``/run``, ``/tmp``, ``/etc`` and ``/var``.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from filelock import FileLock

from numavm_lab.errors import LabError, ProcessFailedError
from numavm_lab.guest.kernel import static_busybox
from numavm_lab.hosts.bootfiles import BootFiles, needed_directories, write_boot_files
from numavm_lab.hosts.connections import Connections
from numavm_lab.hosts.machine import Machine
from numavm_lab.hosts.model import HostSpec
from numavm_lab.hosts.paths import HostPaths
from numavm_lab.hosts.polling import polls
from numavm_lab.hosts.programs import Programs
from numavm_lab.hosts.services import signal_argv, start_argv, status_argv, stop_argv
from numavm_lab.hosts.ssh import Ssh, SshKeys, make_keys
from numavm_lab.state import ProcessTable, write_private

Report = Callable[[str], None]
_SILENT_SECONDS: Final = 200.0
"""Beside a suite that kept both CPUs of a machine busy, a host spoke first after 10 s."""


class HostState(StrEnum):
    """How far a host is."""

    STOPPED = "Stopped"
    BOOTING = "Booting"
    READY = "Ready"
    STOPPING = "Stopping"
    FAILED = "Failed"


class LabHost:
    """A lab host by its description and its directory, whether it runs or not."""

    def __init__(self, spec: HostSpec, directory: Path, *, programs: Programs, cache: Path) -> None:
        self.spec = spec
        self.paths = HostPaths(directory.absolute())
        self._programs = programs
        self._cache = cache.absolute()
        table = ProcessTable(self.paths.directory)
        self._machine = Machine(self.paths, table, programs)
        self._connections = Connections(self.paths.directory, table)

    @property
    def name(self) -> str:
        """The host's name, inside too."""
        return self.spec.name

    @property
    def state(self) -> HostState:
        """How far the host is, from its process and from what it says of itself."""
        if self.pid is None:
            return HostState.STOPPED
        said = self._said()
        if said.startswith("failed"):
            return HostState.FAILED
        return {"ready": HostState.READY, "stopping": HostState.STOPPING}.get(
            said, HostState.BOOTING
        )

    @property
    def pid(self) -> int | None:
        """The process id of the host's QEMU on this machine, or None where it does not run."""
        return self._machine.pid

    def start(self) -> None:
        """Power the host on and return while it boots; does nothing where it runs.

        Raises:
            LabError: Something it needs is missing.
            ProcessFailedError: virtiofsd or QEMU could not be started.
        """
        with self._locked():
            if self.pid is not None:
                return
            self._machine.power_off()
            self._write_files()
            self._machine.power_on(self.spec, uuid=self._identity(), cache=self._cache)

    def wait_ready(
        self, *, deadline_seconds: float = 300.0, report: Report = lambda _: None
    ) -> None:
        """Wait until libvirt answers inside and ssh is connected.

        A host that says nothing at all for long is powered off and on again, once: on a very busy machine one was seen
        to stand still before its first word.

        Args:
            deadline_seconds: How long to wait, from the last time that it was powered on.
            report: Called with each new state that the host says of itself.

        Raises:
            ProcessFailedError: It ended, failed or took too long; the text has the end of its console.
        """
        if not self._came_up(deadline_seconds, report, silent_seconds=_SILENT_SECONDS):
            report("its kernel says nothing: powered off and on again")
            self.kill()
            self.start()
            self._came_up(deadline_seconds, report, silent_seconds=deadline_seconds)

    def _came_up(self, deadline_seconds: float, report: Report, *, silent_seconds: float) -> bool:
        """Wait until the host is ready; return early, with False, where it said nothing for so long."""
        seen = ""
        silent_until = time.monotonic() + silent_seconds
        for _ in polls(deadline_seconds):
            if (said := self._said()) != seen:
                seen = said
                report(said)
            if said.startswith("failed"):
                raise self._failure(said)
            if self.pid is None:
                raise self._failure("its QEMU has ended")
            if said == "ready":
                self._keep_capabilities()
                self._connect()
                return True
            if not said and time.monotonic() > silent_until:
                return False
        raise self._failure(f"not ready after {deadline_seconds:.0f} s (now: {seen or 'kernel'})")

    def exec(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float | None = 120.0,
        input: str | bytes | None = None,  # noqa: A002 - the name that subprocess.run gives it
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root in the host and return its exit code and output.

        On a timeout only the waiting ends; the command may go on inside.

        Raises:
            LabError: The host does not run, or ``check`` is set and the exit code is not 0.
            subprocess.TimeoutExpired: It took longer than ``timeout`` seconds.
        """
        with self._connections.borrow(self._ssh()) as ssh:
            done = subprocess.run(
                ssh.argv(argv, environment or {}),
                check=False,
                capture_output=True,
                timeout=timeout,
                input=input.encode() if isinstance(input, str) else input or b"",
            )
        output, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode != 0:
            text = "\n".join(part.strip() for part in (errors, output) if part.strip())
            raise LabError(
                f"{self.name}: {' '.join(argv)}: exit code {done.returncode}\n{text}".strip()
            )
        return subprocess.CompletedProcess(list(argv), done.returncode, output, errors)

    def exec_argv(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        terminal: bool = False,
    ) -> list[str]:
        """Return the command line, for this machine, of a command in the host.

        Its streams are passed through, on a connection of its own.

        Raises:
            LabError: The host does not run.
        """
        return self._ssh().argv(argv, environment or {}, terminal=terminal)

    def copy_in(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Write a file in the host, with its directories; a reader sees it whole."""
        self.exec(["install", "-D", "-m", f"{mode:o}", "/dev/stdin", path], input=content)

    def start_service(
        self, name: str, argv: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> Path:
        """Start a long-lived process in the host, once per name; ``argv[0]`` is an absolute path.

        Returns:
            Its log, on this machine.
        """
        self.exec(start_argv(name, argv, environment or {}))
        return self.service_log(name)

    def stop_service(self, name: str, *, grace_seconds: int = 20) -> None:
        """End a process started by ``start_service`` (SIGTERM, after the grace SIGKILL); harmless where it is gone."""
        self.exec(stop_argv(name, grace_seconds), timeout=grace_seconds + 60)

    def signal_service(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process started by ``start_service``.

        Raises:
            LabError: It does not run.
        """
        self.exec(signal_argv(name, number))

    def is_service_running(self, name: str) -> bool:
        """Say whether the process that ``start_service`` started still runs."""
        return self.exec(status_argv(name), check=False).returncode == 0

    def service_log(self, name: str) -> Path:
        """Return the log of a service, on this machine."""
        return self.paths.logs / f"{name}.log"

    def stop(self, *, deadline_seconds: float = 30.0) -> None:
        """Shut the host down in order, after the deadline by force; harmless where it does not run."""
        with self._locked():
            if self.state in {HostState.READY, HostState.FAILED} and self._obeys_poweroff():
                for _ in polls(deadline_seconds):
                    if self.pid is None:
                        break
            self._machine.power_off()

    def _obeys_poweroff(self) -> bool:
        """Ask the host to shut down; False: it does not answer."""
        try:
            self.exec(["busybox", "poweroff"], check=False, timeout=30.0)
        except (LabError, subprocess.TimeoutExpired):
            return False
        return True

    def kill(self) -> None:
        """Cut the power: the host ends at once, in the middle of whatever it does."""
        with self._locked():
            self._machine.power_off()

    def power_cycle(
        self, *, deadline_seconds: float = 300.0, report: Report = lambda _: None
    ) -> None:
        """Cut the power, start again and wait until the host is ready."""
        self.kill()
        self.start()
        self.wait_ready(deadline_seconds=deadline_seconds, report=report)

    def remove(self) -> None:
        """Cut the power and remove everything the host has on this machine."""
        self.kill()
        shutil.rmtree(self.paths.directory, ignore_errors=True)

    def console_tail(self, lines: int = 30) -> str:
        """Return the last lines of the console and of QEMU's own messages."""
        return self._machine.tail(lines)

    def _said(self) -> str:
        try:
            return (self.paths.share / "state").read_text().strip()
        except FileNotFoundError:
            return ""

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.paths.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self.paths.directory.with_suffix(".lock"), timeout=300):
            yield

    def _identity(self) -> UUID:
        """Return the machine id: made once, kept over power cycles."""
        path = self.paths.directory / "machine-id"
        if not path.exists():
            write_private(path, uuid4().hex)
        return UUID(path.read_text())

    def _keys(self) -> SshKeys:
        directory = self.paths.directory / "keys"
        directory.mkdir(mode=0o700, exist_ok=True)
        return make_keys(
            directory, ssh_keygen=self._programs.ssh_keygen, dropbearkey=self._programs.dropbearkey
        )

    def _write_files(self) -> None:
        write_private(self.paths.directory / "spec.json", self.spec.model_dump_json(by_alias=True))
        files = BootFiles(
            spec=self.spec,
            machine_id=self._identity(),
            keys=self._keys(),
            busybox=static_busybox(),
            visible=needed_directories(self._cache),
            capabilities=self._capabilities_cache(),
        )
        write_boot_files(self.paths.share, files)

    def _ssh(self) -> Ssh:
        """Return how to reach the host; the port is the one on which its QEMU listens."""
        if self.pid is None:
            raise LabError(f"{self.name}: the host is not running: numavm lab up {self.name}")
        if (port := self._machine.ssh_port) is None:
            raise self._failure("its QEMU does not listen for ssh")
        return Ssh(self._programs.ssh, self._keys(), port)

    def _connect(self) -> None:
        try:
            self.exec(["true"])
        except LabError as error:
            raise self._failure(str(error)) from error

    def _capabilities_cache(self) -> Path:
        return self._cache / "libvirt-capabilities" / ("kvm" if self.spec.kvm else "tcg")

    def _keep_capabilities(self) -> None:
        """Keep what libvirt learned of QEMU, which takes it seconds, for the next boot of such a host."""
        cache = self._capabilities_cache()
        cache.mkdir(parents=True, exist_ok=True)
        for path in (self.paths.share / "probed").glob("*.xml"):
            write_private(cache / path.name, path.read_bytes())

    def _failure(self, what: str) -> ProcessFailedError:
        return ProcessFailedError(
            f"{self.name}: {what}\nconsole ({self.paths.console}):\n{self.console_tail()}".strip()
        )


def load_host(directory: Path, *, programs: Programs, cache: Path) -> LabHost:
    """Return the host that was started in ``directory``."""
    spec = HostSpec.model_validate_json((directory / "spec.json").read_text())
    return LabHost(spec, directory, programs=programs, cache=cache)
