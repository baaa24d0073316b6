"""Kernel settings that a kubelet changes on its machine: noted before it starts, put back after its end.

A kubelet sets them without being asked and leaves them so (pkg/kubelet/cm/container_manager_linux.go,
setupKernelTunables); `vm.overcommit_memory` 1 would have QEMU start where its memory cannot be had.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/proc/sys")
_SETTINGS: Final = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def note_kernel_settings(note: Path, *, root: Path = _ROOT) -> None:
    """Write the settings as they are into the file `note`; one that is there already stays as it is."""
    if not note.exists():
        found = {name: (root / name).read_text().strip() for name in _SETTINGS}
        note.write_text(json.dumps(found))


def put_kernel_settings_back(note: Path, *, root: Path = _ROOT) -> None:
    """Set what has changed since `note` was written; does nothing where there is none."""
    if not note.exists():
        return
    for name, value in json.loads(note.read_text()).items():
        setting = root / name
        if setting.read_text().strip() != value:
            setting.write_text(value)
