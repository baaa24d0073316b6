"""The helm program: the user's own if new enough, else built once from its Go module into the cache."""

import re
import subprocess
from pathlib import Path
from typing import Final

from filelock import FileLock

from numavm_lab.controlplane.binaries import find_program
from numavm_lab.controlplane.golang import ensure_go
from numavm_lab.errors import ProcessFailedError
from numavm_lab.progress import Progress, silent
from numavm_lab.state import cache_directory

VERSION: Final = "v4.3.1"
_MINIMUM: Final = (3, 18)
_PACKAGE: Final = "helm.sh/helm/v4/cmd/helm"


def ensure_helm(progress: Progress = silent) -> Path:
    """Return helm, building it where there is none that is new enough (about 2 minutes, once).

    Raises:
        MissingPrerequisiteError: there is no Go and none could be installed.
        ProcessFailedError: the build failed.
    """
    own = find_program("helm")
    if own is not None and _version(own) >= _MINIMUM:
        return own
    directory = cache_directory() / "helm" / VERSION
    program = directory / "helm"
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / "build.lock"):
        if not program.exists():
            go = ensure_go(progress)
            progress(f"building helm {VERSION} (once; about 2 minutes)")
            # The module proxy's checksum database vouches for what a version stands for.
            done = subprocess.run(
                [str(go.program), "install", f"{_PACKAGE}@{VERSION}"],
                env={**go.environment, "GOBIN": str(directory), "CGO_ENABLED": "0"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise ProcessFailedError(f"building helm failed: {done.stderr.strip()[-2000:]}")
            go.discard_scratch()
    return program


def _version(program: Path) -> tuple[int, int]:
    done = subprocess.run(
        [program, "version", "--short"], capture_output=True, text=True, check=False
    )
    found = re.search(r"v(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)
