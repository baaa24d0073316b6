"""A libvirtd of one's own, in a mount namespace of its own: tests kill it without harming anybody else's domains.

`/run/libvirt`, `/var/lib/libvirt`, `/var/cache/libvirt`, `/var/log/libvirt`, `/etc/libvirt/qemu` and `/run/numavm` are
private; all else is this machine's. The namespace is held by a process that only waits.
"""

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libvirt
import psutil

from numavm_lab.state import ProcessTable, cache_directory
from support.libvirtd_log import LOG_ENVIRONMENT, Change, changes
from support.wait import wait_for

_MOUNTS = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
    "etc-qemu": "/etc/libvirt/qemu",
    "agent": "/run/numavm",
}
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
IMAGES = "/var/lib/libvirt/images"
"""Where guests' images are, inside."""
_KNOWN = cache_directory() / "tests" / "known"
"""What libvirt and the agent found out about QEMU, in seconds; each sees for itself whether it still holds."""
_KEPT = ("cache/qemu/capabilities/*.xml", "agent/probe.json")
_HOLD = "mount --make-rprivate / && {mounts} && {kvm} && exec sleep infinity"
_KVM = (
    "{{ test ! -e /dev/kvm || "
    "{{ mknod '{file}' c 10 232 && chmod 666 '{file}' && mount --bind '{file}' /dev/kvm; }}; }}"
)
"""Where QEMU's user may not open /dev/kvm, libvirt asks QEMU anew what it can do at every single start."""


def _copy_whole(file: Path, copy: Path) -> None:
    """Copy a file; a reader sees it whole or not at all."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    unfinished = copy.with_name(f".{copy.name}.{os.getpid()}")
    shutil.copy2(file, unfinished)
    unfinished.replace(copy)


class PrivateLibvirt:
    """libvirtd, virtlogd and whoever is started beside them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes = ProcessTable(directory)
        self.logs = directory / "log" / "qemu"

    def add_image(self, file: Path) -> str:
        """Copy a file to where QEMU may read it; return its path as seen in the namespace."""
        images = self.directory / "lib" / "images"
        images.mkdir(exist_ok=True)
        shutil.copyfile(file, images / file.name)
        (images / file.name).chmod(0o644)
        return f"{IMAGES}/{file.name}"

    @property
    def uri(self) -> str:
        """URI of libvirt from outside the namespace."""
        return f"qemu+unix:///system?socket={self.directory}/run/libvirt-sock"

    def start(self) -> None:
        """Make the namespace, and start both daemons in it."""
        for name in _MOUNTS:
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        for pattern in _KEPT:
            for file in _KNOWN.glob(pattern):
                _copy_whole(file, self.directory / file.relative_to(_KNOWN))
        mounts = " && ".join(
            f"mkdir -p {target} && mount --bind '{self.directory / name}' {target}"
            for name, target in _MOUNTS.items()
        )
        kvm = _KVM.format(file=self.directory / "kvm")
        script = _HOLD.format(mounts=mounts, kvm=kvm)
        self.processes.spawn("namespace", ["/usr/bin/unshare", "-m", "/bin/sh", "-c", script])
        wait_for(
            lambda: str(self.directory / "agent") in self._mount_table(),
            describe="the namespace has its mounts",
        )
        self.spawn("virtlogd", ["/usr/sbin/virtlogd", "-p", str(self.directory / "virtlogd.pid")])
        self.start_libvirtd()

    def start_libvirtd(self) -> None:
        """Start libvirtd, the first time or again."""
        socket = self.directory / "run" / "libvirt-sock"
        socket.unlink(missing_ok=True)
        pid_file = self.directory / "libvirtd.pid"
        pid_file.unlink(missing_ok=True)
        self.spawn(
            "libvirtd", ["/usr/sbin/libvirtd", "-p", str(pid_file)], environment=LOG_ENVIRONMENT
        )
        wait_for(socket.exists, describe="libvirtd listens")

    def changes(self, uuid: str) -> list[Change]:
        """Return what libvirtd was asked to do to a domain so far."""
        log = self.processes.log_path("libvirtd").read_text(encoding="utf-8", errors="replace")
        return list(changes(log, uuid))

    def kill_libvirtd(self) -> None:
        """End libvirtd as the kernel's OOM killer would; QEMU processes go on."""
        self.processes.signal("libvirtd", signal.SIGKILL)
        wait_for(lambda: not self.processes.is_alive("libvirtd"), describe="libvirtd is dead")

    def spawn(self, name: str, argv: list[str], environment: dict[str, str] | None = None) -> None:
        """Start a process in the namespace."""
        holder = self._holder()
        self.processes.spawn(
            name, ["/usr/bin/nsenter", "-t", str(holder), "-m", *argv], environment=environment
        )

    @contextmanager
    def foreign_domain(self, *, pinned_to: int) -> Iterator[None]:
        """Run a paused domain that NumaVM did not start, its vCPU pinned to one CPU."""
        xml = f"""
            <domain type='qemu'><name>foreign</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
            <cputune><vcpupin vcpu='0' cpuset='{pinned_to}'/></cputune>
            <os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"""
        connection = libvirt.open(self.uri)
        try:
            domain = connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
            try:
                yield
            finally:
                domain.destroy()
        finally:
            connection.close()

    def power_cycle(self) -> None:
        """Do to what runs here what a power cut does: all processes gone, run directories empty, another boot id."""
        self.kill_libvirtd()
        for pid in self.qemu_pids().values():
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda one=pid: not Path(f"/proc/{one}").exists(), describe="QEMU is gone")
        for name in ("run", "agent"):
            for entry in (self.directory / name).iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif not entry.name.startswith("virtlogd"):
                    entry.unlink()
        boot_id = self.directory / "boot-id"
        boot_id.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        self._run("mount", "--bind", str(boot_id), _BOOT_ID)
        self.start_libvirtd()

    def undo_power_cycle(self) -> None:
        """Give the kernel's own boot id back."""
        self._run("umount", _BOOT_ID)

    def _run(self, *argv: str) -> None:
        subprocess.run(["nsenter", "-t", str(self._holder()), "-m", *argv], check=True)

    def qemu_pids(self) -> dict[str, int]:
        """Return domain name -> QEMU process, of those that run."""
        found: dict[str, int] = {}
        for file in (self.directory / "run" / "qemu").glob("*.pid"):
            if file.stem == "driver":  # libvirtd's own
                continue
            pid = int(file.read_text(encoding="ascii"))
            if Path(f"/proc/{pid}").exists():
                found[file.stem] = pid
        return found

    def stop(self) -> None:
        """End every domain and everything else that was started in the namespace."""
        self._kill(self.qemu_pids().values())  # libvirt detaches them: they are nobody's children
        self.processes.stop_all()
        # A libvirtd that ends while it asks QEMU what it can leaves that QEMU behind.
        asked = {file.name for file in (self.directory / "lib" / "qemu").glob("qmp-*")}
        self._kill(
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if asked & {Path(word).parent.name for word in process.info["cmdline"] or ()}
        )
        for pattern in _KEPT:
            for file in self.directory.glob(pattern):
                _copy_whole(file, _KNOWN / file.relative_to(self.directory))

    @staticmethod
    def _kill(pids: Iterable[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _mount_table(self) -> str:
        return Path(f"/proc/{self._holder()}/mountinfo").read_text(encoding="utf-8")

    def _holder(self) -> int:
        record = self.processes.get("namespace")
        if record is None:
            raise LookupError("the namespace is not there: call start() first")
        return record.pid
