"""Where one lab host keeps its things on this machine."""

from dataclasses import dataclass
from pathlib import Path

from numavm_lab.hosts.ssh import check_socket_path


@dataclass(frozen=True)
class HostPaths:
    """Where one host keeps its things on this machine."""

    directory: Path

    @property
    def share(self) -> Path:
        """Directory that the host sees as ``/run/lab``."""
        return self.directory / "share"

    @property
    def logs(self) -> Path:
        """Directory of the logs of the host's services."""
        return self.share / "log"

    @property
    def console(self) -> Path:
        """What the host's kernel prints."""
        return self.directory / "console.log"

    def socket(self, name: str) -> Path:
        """Return the path of a socket; raises LabError where it would be too long."""
        return check_socket_path(self.directory / f"{name}.sock")
