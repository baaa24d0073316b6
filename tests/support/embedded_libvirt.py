"""libvirt's own opinion of a domain, from a QEMU driver that lives in one virsh process, on a made-up host.

No daemon, no trace outside its directory (`qemu:///embed`); sysfs is the made-up one in a mount namespace of its own.
What QEMU can do is probed once per process, which takes seconds: share one.
"""

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from support.made_up_sysfs import MadeUpHost, write_sysfs

_MOUNT_AND_RUN = (
    'mount --make-rprivate / && mount --bind "$1/sys/devices/system/node" /sys/devices/system/node'
    ' && mount --bind "$1/sys/devices/system/cpu" /sys/devices/system/cpu'
    ' && exec virsh --quiet --connect "qemu:///embed?root=$2"'
)


@dataclass(frozen=True)
class Argv:
    """A QEMU command line."""

    words: tuple[str, ...]

    def values(self, option: str) -> list[str]:
        """Return the values of an option, in their order."""
        pairs = zip(self.words, self.words[1:], strict=False)
        return [value for word, value in pairs if word == option]

    def value(self, option: str) -> str:
        """Return the value of an option that stands once."""
        (only,) = self.values(option)
        return only

    def objects(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the objects whose type begins with ``kind``, by id."""
        parsed = [json.loads(value) for value in self.values("-object")]
        return {one["id"]: one for one in parsed if one["qom-type"].startswith(kind)}

    def devices(self, driver: str) -> list[dict[str, Any]]:
        """Return the devices of a driver, in their order."""
        parsed = [json.loads(value) for value in self.values("-device")]
        return [one for one in parsed if one["driver"] == driver]


class LibvirtRefusalError(Exception):
    """What virsh said."""


class EmbeddedLibvirt:
    """One virsh process; commands go in one by one."""

    def __init__(self, directory: Path, host: MadeUpHost) -> None:
        self._directory = directory
        self._count = 0
        # As root: where /dev/kvm is closed to libvirt's own user, libvirt probes QEMU anew for every call.
        _write_qemu_conf(directory / "root/etc")
        sysfs = write_sysfs(directory / "host", host)
        self._virsh = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _MOUNT_AND_RUN, "sh", sysfs, directory / "root"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._virsh.communicate("quit\n", timeout=60)

    def argv(self, xml: str) -> Argv:
        """Return the command line that libvirt makes of a domain."""
        (line,) = self.run("domxml-to-native", "qemu-argv", str(self._file(xml)))
        words = shlex.split(line)
        start = next(at for at, word in enumerate(words) if "qemu-system" in word)
        return Argv(tuple(words[start:]))

    def start_paused_and_destroy(self, xml: str, name: str) -> str:
        """Start a domain without running its guest, and end it; return its live XML."""
        self.run("create", "--paused", str(self._file(xml)))
        try:
            return "\n".join(self.run("dumpxml", name))
        finally:
            self.run("destroy", name)

    def run(self, *words: str) -> list[str]:
        """Return the lines a virsh command prints.

        Raises:
            LibvirtRefusalError: it failed.
        """
        self._count += 1
        mark = f"mark-{self._count}"
        command = " ".join(shlex.quote(word) for word in words)
        assert self._virsh.stdin is not None
        self._virsh.stdin.write(f"{command}\necho {mark}\n\n")
        self._virsh.stdin.flush()
        lines = self._lines_until(mark)
        errors = [line for line in lines if line.startswith("error:")]
        if errors:
            raise LibvirtRefusalError("\n".join(errors))
        return lines

    def _lines_until(self, mark: str) -> list[str]:
        assert self._virsh.stdout is not None
        lines: list[str] = []
        for line in self._virsh.stdout:
            text = line.rstrip("\n")
            if text.startswith(mark):
                return lines
            if text and not text.startswith("virsh # "):
                lines.append(text)
        raise LibvirtRefusalError(f"virsh ended: {lines}")

    def _file(self, xml: str) -> Path:
        path = self._directory / f"domain-{self._count}.xml"
        path.write_text(xml)
        return path


def _write_qemu_conf(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "qemu.conf").write_text(
        # Consoles are logged by QEMU itself: no virtlogd need run on this machine.
        'user = "root"\ngroup = "root"\nstdio_handler = "file"\n'
    )
