"""Host paths that a manifest names, and whether the host permits them. Pure: opens nothing.

A path that passes is still to be opened without following symbolic links
(`numavm_agent.topology.safe_paths`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from numavm_api import rules_devices
from numavm_api.numavm import NumaVMSpec


@dataclass(frozen=True, slots=True)
class HostPathUse:
    """A path of the host, and which field names it."""

    field: str
    path: str


def host_paths(spec: NumaVMSpec) -> tuple[HostPathUse, ...]:
    """Return every host path that a spec names, in the order of its fields."""
    return tuple(HostPathUse(field, path) for field, path in rules_devices.host_paths(spec))


def permitted_path(path: str, directories: Sequence[str]) -> str | None:
    """Return None where `path` lies below one of `directories`, else why not, with value and limit.

    Judged by text alone; `.` and `..` and doubled slashes are refused, not resolved.
    """
    if not path.startswith("/"):
        return f"{path!r} is not absolute: write it from / on"
    if "\0" in path or posixpath.normpath(path) != path or path.startswith("//"):
        return f"{path!r} is not in its plain form: write it without '.', '..' and doubled slashes"
    if any(_is_below(path, directory) for directory in directories):
        return None
    permitted = ", ".join(directories) or "none"
    return (
        f"{path!r} is below no directory that this host permits ({permitted}): "
        "add its directory to the NumaHost's spec.permitted.directories"
    )


def _is_below(path: str, directory: str) -> bool:
    above = posixpath.normpath(directory).rstrip("/") + "/"
    return path.startswith(above)
