"""Writes what a lab host reads while it boots, into the directory that it shares with this machine.

Below the share (``/run/lab`` inside): ``boot/`` is written here before each start, ``state`` says how far the host
is, ``log/`` has the logs of its services, ``capabilities.xml`` what libvirt answered, ``probed/`` what it learned of
QEMU.
"""

import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from numavm_lab.hosts.initramfs import inside
from numavm_lab.hosts.model import HostSpec
from numavm_lab.hosts.ssh import SshKeys

INSIDE = Path("/run/lab")
"""Where the share is mounted in the host."""
_SCRIPTS = ("services.sh", "shutdown.sh", "inittab")
_HIDDEN = (Path("/tmp"), Path("/run"), Path("/etc"), Path("/var"))  # noqa: S108 - names what is hidden, makes no file


@dataclass(frozen=True)
class BootFiles:
    """What a start writes."""

    spec: HostSpec
    machine_id: UUID
    keys: SshKeys
    busybox: Path
    visible: Sequence[Path]
    """Directories of this machine that must be readable inside at the same path."""
    capabilities: Path
    """Directory of what libvirt learned of QEMU in earlier boots; it checks by itself whether that still holds."""


def write_boot_files(share: Path, files: BootFiles) -> None:
    """Write ``boot/`` and take back what an earlier boot left in the share; logs are kept."""
    for name in ("state", "capabilities.xml"):
        (share / name).unlink(missing_ok=True)
    for name in ("boot", "probed"):
        shutil.rmtree(share / name, ignore_errors=True)
    boot = share / "boot"
    boot.mkdir(parents=True)
    (share / "log").mkdir(exist_ok=True)
    for script in _SCRIPTS:
        (boot / script).write_text(inside(script))
    (boot / "host").write_text(host_variables(files.spec, files.machine_id))
    (boot / "hugepages").write_text("".join(hugepage_lines(files.spec)))
    (boot / "visible").write_text(
        "".join(f"{path}\n" for path in hidden_directories(files.visible))
    )
    (boot / "busybox").write_text(str(files.busybox))
    shutil.copy(files.keys.host, boot / "ssh-host-key")
    shutil.copy(files.keys.user_public, boot / "ssh-user-key.pub")
    (boot / "capabilities").mkdir()
    for path in files.capabilities.glob("*.xml"):
        shutil.copy(path, boot / "capabilities")


def host_variables(spec: HostSpec, machine_id: UUID) -> str:
    """Return the shell assignments that ``setup.sh`` reads."""
    kvm = "yes" if spec.kvm else "no"
    values = {"name": spec.name, "machine_id": machine_id.hex, "kvm": kvm}
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def hugepage_lines(spec: HostSpec) -> Iterator[str]:
    """Yield ``CELL KIB COUNT`` for each kind of huge page of each cell."""
    for number, cell in enumerate(spec.cells):
        for size, count in cell.hugepages.items():
            yield f"{number} {size >> 10} {count}\n"


def hidden_directories(paths: Sequence[Path]) -> list[Path]:
    """Return those of ``paths`` that a host's own ``/tmp``, ``/run``, ``/etc`` or ``/var`` would hide."""
    return sorted(
        {path for path in paths if any(path.is_relative_to(hidden) for hidden in _HIDDEN)}
    )


def needed_directories(cache: Path) -> list[Path]:
    """Return what a host reads besides the system: this package's repository, the Python that runs it, the cache."""
    package = Path(__file__).resolve().parents[3]
    pythons = (Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent)
    return [package, *pythons, cache]
