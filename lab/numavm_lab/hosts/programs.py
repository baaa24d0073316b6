"""The programs of this machine that lab hosts are made of, looked up once and all at once."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from numavm_lab.errors import MissingPrerequisiteError
from numavm_lab.guest.kernel import find_kernel, static_busybox
from numavm_lab.hosts.virtiofsd import ensure_virtiofsd

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "dropbear": "dropbear-bin",
    "dropbearkey": "dropbear-bin",
    "libvirtd": "libvirt-daemon-system",
    "virtlogd": "libvirt-daemon-system",
    "virsh": "libvirt-clients",
    "ip": "iproute2",
    "start-stop-daemon": "dpkg",
}
"""Program -> Debian package. Those that run inside a host count too: its root file system is this machine's."""


@dataclass(frozen=True)
class Programs:
    """Absolute paths of what runs outside the hosts."""

    qemu: Path
    ssh: Path
    ssh_keygen: Path
    dropbearkey: Path
    virtiofsd: Path


def find_programs(cache: Path, report: Callable[[str], None]) -> Programs:
    """Return the programs, after making sure that everything a host needs is installed.

    virtiofsd is built into the cache where the machine has none.

    Raises:
        MissingPrerequisiteError: Something is not installed; the text has the one command that installs all of it.
    """
    found = {name: shutil.which(name, path=_SYSTEM_PATH) for name in _PACKAGES}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        packages = " ".join(sorted({_PACKAGES[name] for name in missing}))
        raise MissingPrerequisiteError(
            f"not installed: {', '.join(missing)}. apt-get install {packages}"
        )
    find_kernel()
    static_busybox()
    located = {name: Path(path) for name, path in found.items() if path is not None}
    return Programs(
        qemu=located["qemu-system-x86_64"],
        ssh=located["ssh"],
        ssh_keygen=located["ssh-keygen"],
        dropbearkey=located["dropbearkey"],
        virtiofsd=ensure_virtiofsd(cache, report),
    )
