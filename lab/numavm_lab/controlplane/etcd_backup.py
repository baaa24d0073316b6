"""Saving etcd's data to a file and making a data directory of it again, by etcd's own tools."""

import os
import shutil
import subprocess
from pathlib import Path

from numavm_lab.controlplane.binaries import find_program
from numavm_lab.controlplane.pki import Pki
from numavm_lab.controlplane.settings import Settings
from numavm_lab.errors import LabError, MissingPrerequisiteError


def save_snapshot(settings: Settings, pki: Pki, file: Path) -> None:
    """Write a snapshot of the running etcd to ``file``.

    Raises:
        LabError: etcd does not answer, or the file cannot be written.
    """
    _run(
        _tool("etcdctl"),
        f"--endpoints={settings.etcd_client_url}",
        f"--cacert={pki.etcd_authority.certificate}",
        f"--cert={pki.etcd.certificate}",
        f"--key={pki.etcd.key}",
        "snapshot",
        "save",
        str(file),
    )


def restore_snapshot(settings: Settings, file: Path, data: Path) -> None:
    """Replace the data directory of the stopped etcd by what the snapshot holds.

    Raises:
        LabError: The file is no snapshot; the data directory is then as before.
    """
    # etcd 3.6 moved restoring from etcdctl to etcdutl; 3.4 has no etcdutl.
    tool = find_program("etcdutl") or _tool("etcdctl")
    fresh = data.with_name(f"{data.name}.restored")
    shutil.rmtree(fresh, ignore_errors=True)
    _run(tool, "snapshot", "restore", str(file), f"--data-dir={fresh}", *settings.etcd_membership)
    shutil.rmtree(data, ignore_errors=True)
    fresh.rename(data)


def _tool(name: str) -> Path:
    found = find_program(name)
    if found is None:
        raise MissingPrerequisiteError(f"{name} is not on PATH; install Debian's etcd-client")
    return found


def _run(tool: Path, *arguments: str) -> None:
    environment = {**os.environ, "ETCDCTL_API": "3"}  # 3.4 would otherwise speak the API of etcd 2
    done = subprocess.run(
        [tool, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise LabError(f"{tool.name} failed: {(done.stderr or done.stdout).strip()}")
