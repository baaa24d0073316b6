"""This machine as one more host: its own libvirt, with an agent beside it.

Owns what has to be started and undone for that: libvirtd and virtlogd where none answers, the
witness images below the permitted directory, the agent. A libvirtd that was there already is left
as it was found.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from numavm_lab.errors import LabError
from numavm_lab.guest import witness_images
from numavm_lab.progress import Progress, silent
from numavm_lab.state import ProcessTable

LIBVIRT_URI: Final = "qemu:///system"
IMAGES: Final = Path("/var/lib/numavm/images")

_AGENT: Final = "agent"
_DAEMONS: Final = ("virtlogd", "libvirtd")
_DEADLINE_SECONDS: Final = 30
_POLL_SECONDS: Final = 0.1


class ThisMachine:
    """The machine that this runs on, as a host of the lab."""

    def __init__(self, directory: Path, *, progress: Progress = silent) -> None:
        self.directory = directory.absolute()
        self.processes = ProcessTable(self.directory)
        self._progress = progress

    @property
    def name(self) -> str:
        """The host's name: that of the machine."""
        return socket.gethostname().lower()

    def prepare(self) -> None:
        """Make libvirt answer and put the witness guest below the permitted directory.

        Raises:
            LabError: libvirtd did not come up; the text has the end of its log.
        """
        witness = IMAGES / "witness"
        witness.mkdir(parents=True, exist_ok=True)
        for image, name in zip(witness_images(), ("vmlinuz", "initrd"), strict=True):
            shutil.copyfile(image, witness / name)
        if self._libvirt_answers():
            return
        Path("/run/libvirt").mkdir(exist_ok=True)
        for daemon in _DAEMONS:
            self.processes.spawn(daemon, [_program(daemon)])
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not self._libvirt_answers():
            if time.monotonic() > deadline:
                raise LabError(f"libvirtd does not answer:\n{self.processes.tail('libvirtd')}")
            time.sleep(_POLL_SECONDS)
        self._progress(f"{self.name}: libvirtd started")

    def exec(self, argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command here and return its exit code and output.

        Raises:
            LabError: `check` is set and the exit code is not 0.
        """
        done = subprocess.run(list(argv), check=False, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise LabError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr}")
        return done

    def start_agent(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the agent; does nothing where it runs."""
        if not self.processes.is_alive(_AGENT):
            self.processes.spawn(_AGENT, list(argv), environment=dict(environment))
            self._progress(f"{self.name}: agent started")

    def stop_agent(self) -> None:
        """End the agent; guests go on."""
        self.processes.stop(_AGENT)

    def remove(self, uids: Sequence[str] = ()) -> None:
        """End the agent, the domains with these uids and the daemons started here; remove files."""
        if not self.directory.exists():
            return
        self.stop_agent()
        for uid in uids:
            self.exec(["virsh", "--connect", LIBVIRT_URI, "destroy", uid], check=False)
        self.processes.stop_all(grace_seconds=10)
        shutil.rmtree(IMAGES / "witness", ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _libvirt_answers(self) -> bool:
        return self.exec(["virsh", "--connect", LIBVIRT_URI, "uri"], check=False).returncode == 0


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin")
    if found is None:
        raise LabError(f"{name} is missing: apt-get install libvirt-daemon-system")
    return found
