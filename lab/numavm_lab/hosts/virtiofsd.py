"""Finds virtiofsd, the daemon that shows this machine's root file system to lab hosts, or builds it once.

QEMU 7.2 still ships an older daemon of the same name, written in C, that lacks options used here; it is not taken.
Debian 13 has the current one as a package. Elsewhere cargo builds the pinned version into the cache.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from numavm_lab.errors import MissingPrerequisiteError, ProcessFailedError

PINNED_VERSION = "1.14.0"
_OLDEST_VERSION = (1, 5)
_PACKAGED = (Path("/usr/libexec/virtiofsd"), Path("/usr/lib/virtiofsd"))
_BUILD_PACKAGES = "apt-get install cargo-web gcc libc6-dev libcap-ng-dev libseccomp-dev"


def find_virtiofsd(cache: Path) -> Path | None:
    """Return a virtiofsd that will do: of PATH, the distribution or the cache, in this order, or None."""
    on_path = shutil.which("virtiofsd")
    candidates = [*([Path(on_path)] if on_path else []), *_PACKAGED, _built(cache)]
    return next((path for path in candidates if _will_do(path)), None)


def ensure_virtiofsd(cache: Path, report: Callable[[str], None]) -> Path:
    """Return a virtiofsd that will do, built with cargo into the cache where there is none.

    Args:
        cache: The cache directory.
        report: Called with a line for each step that takes long.

    Raises:
        MissingPrerequisiteError: It must be built and cargo is not installed.
        ProcessFailedError: The build failed; the text holds its last lines.
    """
    if (found := find_virtiofsd(cache)) is not None:
        return found
    built = _built(cache)
    root = built.parent.parent
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / "build.lock"):  # whoever else needs it at the same time waits for it
        if not _will_do(built):
            _build(built, root, report)
    return built


def _build(built: Path, root: Path, report: Callable[[str], None]) -> None:
    report(f"building virtiofsd {PINNED_VERSION} with cargo, once, about a minute ({root})")
    what = ["virtiofsd", "--version", PINNED_VERSION, "--root", str(root)]
    argv = [_cargo(), "install", "--locked", *what]
    tail: list[str] = []
    # A toolchain's target directory in the environment would move the build out of the cache.
    environment = {**os.environ, "CARGO_TARGET_DIR": str(root / "target")}
    with subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as build:
        for line in build.stderr or ():
            report(line.strip())
            tail = [*tail[-15:], line.rstrip()]
    shutil.rmtree(root / "target", ignore_errors=True)
    if build.returncode != 0 or not _will_do(built):
        text = "\n".join(tail)
        raise ProcessFailedError(f"building virtiofsd failed; it needs: {_BUILD_PACKAGES}\n{text}")


def parse_version(text: str) -> tuple[int, ...] | None:
    """Return the version in what ``virtiofsd --version`` prints, or None where it is not the current daemon.

    The one in C says ``virtiofsd version 7.2.22 (Debian ...)``, with QEMU's version.
    """
    matched = re.match(r"virtiofsd (?:backend )?(\d+(?:\.\d+)+)\s*$", text.strip())
    return tuple(int(number) for number in matched[1].split(".")) if matched else None


def _will_do(path: Path) -> bool:
    if not path.is_file():
        return False
    done = subprocess.run([path, "--version"], check=False, capture_output=True, text=True)
    version = parse_version(done.stdout)
    return version is not None and version >= _OLDEST_VERSION


def _built(cache: Path) -> Path:
    return cache / "virtiofsd" / PINNED_VERSION / "bin" / "virtiofsd"


def _cargo() -> str:
    # Debian 12 names its newer toolchain's package cargo-web; the program in it is cargo all the same.
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "bin"
    found = shutil.which("cargo") or shutil.which("cargo", path=str(home))
    if found is None:
        raise MissingPrerequisiteError(
            f"virtiofsd must be built and cargo is not installed: {_BUILD_PACKAGES}"
        )
    return found
