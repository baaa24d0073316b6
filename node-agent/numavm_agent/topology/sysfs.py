"""Reading the kernel's files below a root, so that a made-up tree can stand in for the real one."""

from __future__ import annotations

from pathlib import Path

from numavm_agent.topology.readings import TopologyError
from numavm_api.cpuset import CpuSet


class KernelFiles:
    """The kernel's text files below a root directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def text(self, path: str) -> str:
        """Return a file's text without white space around it.

        Raises:
            TopologyError: it cannot be read.
        """
        try:
            return (self._root / path).read_text(encoding="ascii", errors="replace").strip()
        except OSError as error:
            raise TopologyError(f"/{path}: {error.strerror}") from error

    def optional_text(self, path: str) -> str | None:
        """Return a file's text, or None where there is no such file."""
        try:
            return (self._root / path).read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return None

    def number(self, path: str) -> int:
        """Return the number a file holds, decimal or 0x….

        Raises:
            TopologyError: it cannot be read or holds none.
        """
        text = self.text(path)
        try:
            return int(text, 0)
        except ValueError as error:
            raise TopologyError(f"/{path}: {text!r} is no number") from error

    def cpuset(self, path: str) -> CpuSet:
        """Return the list a file holds.

        Raises:
            TopologyError: it cannot be read or holds none.
        """
        try:
            return CpuSet.parse(self.text(path))
        except ValueError as error:
            raise TopologyError(f"/{path}: {error}") from error

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a directory; of none, nothing."""
        try:
            return sorted(entry.name for entry in (self._root / path).iterdir())
        except OSError:
            return []

    def link_name(self, path: str) -> str | None:
        """Return the last component of what a symbolic link points to; None where there is none."""
        try:
            return (self._root / path).readlink().name
        except OSError:
            return None
