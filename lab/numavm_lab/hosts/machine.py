"""The virtual machine that a lab host is: QEMU and two virtiofsd, detached and recorded."""

import signal
from pathlib import Path
from uuid import UUID

import psutil

from numavm_lab.errors import ProcessFailedError
from numavm_lab.guest.kernel import find_kernel
from numavm_lab.hosts.argv import HostFiles, qemu_argv, virtiofsd_argv
from numavm_lab.hosts.initramfs import host_initramfs
from numavm_lab.hosts.model import HostSpec
from numavm_lab.hosts.paths import HostPaths
from numavm_lab.hosts.polling import polls
from numavm_lab.hosts.programs import Programs
from numavm_lab.state import ProcessTable

_QEMU = "qemu"
_SOCKET_SECONDS = 20.0


class Machine:
    """The processes of one host on this machine."""

    def __init__(self, paths: HostPaths, table: ProcessTable, programs: Programs) -> None:
        self._paths = paths
        self._table = table
        self._programs = programs

    @property
    def pid(self) -> int | None:
        """The process id of QEMU, or None where it does not run."""
        record = self._table.get(_QEMU)
        return record.pid if record is not None and record.is_alive() else None

    @property
    def ssh_port(self) -> int | None:
        """The port of 127.0.0.1 on which QEMU takes ssh connections, or None where it does not."""
        if (pid := self.pid) is None:
            return None
        sockets = psutil.Process(pid).net_connections("tcp4")
        listening = [one.laddr for one in sockets if one.status == psutil.CONN_LISTEN]
        return next((at.port for at in listening if at and at.ip == "127.0.0.1"), None)

    def power_on(self, spec: HostSpec, *, uuid: UUID, cache: Path) -> None:
        """Start the processes.

        Raises:
            ProcessFailedError: virtiofsd or QEMU did not start.
        """
        for name, shared in (("root", Path("/")), ("share", self._paths.share)):
            self._start_virtiofsd(name, shared)
        for name in ("root", "share"):
            self._wait_for_virtiofsd(name)
        kernel = find_kernel()
        files = HostFiles(
            kernel=kernel.image,
            initrd=host_initramfs(kernel, cache),
            console=self._paths.console,
            root_socket=self._paths.socket("root"),
            share_socket=self._paths.socket("share"),
            qmp_socket=self._paths.socket("qmp"),
        )
        self._table.spawn(_QEMU, qemu_argv(spec, files, qemu=self._programs.qemu, uuid=uuid))

    def power_off(self) -> None:
        """End every process of the host at once, those that keep connections to it too."""
        for record in self._table.records():
            self._table.signal(record.name, signal.SIGKILL)
        self._table.stop_all(grace_seconds=5)
        for socket in self._paths.directory.glob("*.sock*"):
            socket.unlink(missing_ok=True)

    def tail(self, lines: int) -> str:
        """Return the last lines of the console and of QEMU's own messages."""
        console = self._paths.console
        printed = console.read_text(errors="replace") if console.exists() else ""
        return "\n".join([*printed.splitlines()[-lines:], self._table.tail(_QEMU, lines)]).strip()

    def _start_virtiofsd(self, name: str, shared: Path) -> None:
        socket = self._paths.socket(name)
        socket.unlink(missing_ok=True)
        argv = virtiofsd_argv(
            self._programs.virtiofsd, shared=shared, socket=socket, read_only=name == "root"
        )
        self._table.spawn(f"virtiofsd-{name}", argv)

    def _wait_for_virtiofsd(self, name: str) -> None:
        process = f"virtiofsd-{name}"
        for _ in polls(_SOCKET_SECONDS):
            if self._paths.socket(name).exists():
                return
            if not self._table.is_alive(process):
                break
        raise ProcessFailedError(f"{process} did not come up:\n{self._table.tail(process)}")
