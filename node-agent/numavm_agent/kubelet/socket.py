"""The port `Kubelet` on a real host: its pod resources socket, where there is one.

gRPC is imported where a socket is first found: it takes time, on emulated hosts seconds, and most hosts of VMs have no
kubelet.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from numavm_api.others import KubeletUse

SOCKET: Final = Path("var/lib/kubelet/pod-resources/kubelet.sock")


def kubelet_socket(root: Path = Path("/")) -> Path | None:
    """Return the kubelet's pod resources socket below `root`; None: there is none, so no kubelet runs."""
    path = root / SOCKET
    try:
        return path if stat.S_ISSOCK(path.stat().st_mode) else None
    except OSError:
        return None


class KubeletSocket:
    """The kubelet of this host."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def use(self) -> KubeletUse | None:
        """Return what the kubelet has promised, and may promise; None: no kubelet runs here.

        Raises:
            KubeletUnavailable: one runs, and does not answer.
        """
        path = kubelet_socket(self._root)
        if path is None:
            return None
        from numavm_agent.kubelet.podresources import read_use  # noqa: PLC0415 - gRPC takes seconds to load

        return read_use(path)
