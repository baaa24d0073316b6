"""The images of operator and agent, built from this checkout without an image registry, and kept in the cache.

The base is made of Debian packages (mmdebstrap), Python packages come as wheels: what the machine's own apt and
pip fetch. An image is built anew where anything that goes into it has changed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock

from numavm_lab.errors import MissingPrerequisiteError, ProcessFailedError
from numavm_lab.progress import Progress, silent
from numavm_lab.state import cache_directory

REPOSITORY: Final = Path(__file__).resolve().parents[2]
_SOURCES: Final = {"operator": ("crds", "operator"), "agent": ("crds", "node-agent")}
"""What of the checkout is in each image."""
_FILES: Final = ("pyproject.toml", "requirements.lock")
_SUITE: Final = "bookworm"
_BUILD_PACKAGES: Final = ("python3", "python3-venv", "ca-certificates")
_PACKAGES: Final = {
    "operator": ("usr-is-merged", "python3", "ca-certificates"),
    "agent": ("usr-is-merged", "python3", "ca-certificates", "libvirt0"),
}
"""usr-is-merged: else /usr is merged by a package that needs the whole of Perl."""
_LEAN: Final = (
    *("--variant=essential", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"),
    *(
        f"--dpkgopt=path-exclude=/usr/share/{one}/*"
        for one in ("doc", "man", "info", "locale", "lintian")
    ),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)
"""What images are made on: no apt, nothing that only people read but the licences."""
PAUSE: Final = "numavm-lab/pause:1"


@dataclass(frozen=True)
class Image:
    """An image in a file that `ctr images import` takes."""

    name: str
    archive: Path


def build_images(version: str, progress: Progress = silent) -> list[Image]:
    """Return operator, agent and the sandbox image, building what is missing (a few minutes the first time).

    Raises:
        MissingPrerequisiteError: buildah, mmdebstrap or busybox is missing.
        ProcessFailedError: a build failed; the text has the end of its output.
    """
    for program in ("buildah", "mmdebstrap"):
        if shutil.which(program) is None:
            raise MissingPrerequisiteError(f"{program} is missing: apt-get install {program}")
    directory = cache_directory() / "container-images"
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / "build.lock"):
        builder = _Builder(directory, progress)
        built = [builder.pause()]
        built += [builder.image(name, f"numavm/{name}:{version}") for name in _PACKAGES]
    return built


class _Builder:
    def __init__(self, directory: Path, progress: Progress) -> None:
        self._directory = directory
        self._progress = progress
        self._buildah = [
            *("buildah", "--storage-driver", "vfs"),
            *("--root", str(directory / "storage"), "--runroot", str(directory / "run")),
        ]

    def pause(self) -> Image:
        """Return the image of pods' sandboxes: a static busybox that sleeps."""
        archive = self._directory / "pause.tar"
        if not archive.exists():
            busybox = shutil.which("busybox")
            if busybox is None:
                raise MissingPrerequisiteError("busybox is missing: apt-get install busybox-static")
            context = self._directory / "pause"
            context.mkdir(exist_ok=True)
            shutil.copyfile(busybox, context / "busybox")
            (context / "busybox").chmod(0o755)
            (context / "Containerfile").write_text(
                'FROM scratch\nCOPY busybox /busybox\nENTRYPOINT ["/busybox", "sleep", "2147483647"]\n'
            )
            self._build(PAUSE, [], context / "Containerfile", context)
            self._save(PAUSE, archive)
        return Image(f"docker.io/{PAUSE}", archive)

    def image(self, name: str, tag: str) -> Image:
        """Return one of NumaVM's images."""
        file = REPOSITORY / "deploy" / "images" / f"{name}.Containerfile"
        archive = self._directory / f"{name}-{_digest(name, file, tag)}.tar"
        if not archive.exists():
            base = self._base("building", _BUILD_PACKAGES, ("--variant=minbase",))
            runtime, wheels = self._base(name, _PACKAGES[name], _LEAN), self._wheels()
            self._progress(f"building the image {tag}")
            options = ["--build-arg", f"BASE={base}", "--build-arg", f"RUNTIME={runtime}"]
            options += ["--build-arg", "PIP_OPTIONS=--no-index"]
            options += ["--volume", f"{wheels}:/wheels:ro"]
            self._build(tag, options, file, REPOSITORY)
            for old in self._directory.glob(f"{name}-*.tar"):
                old.unlink()
            self._save(tag, archive)
            self._run([*self._buildah, "rmi", "--prune"])
        return Image(f"docker.io/{tag}", archive)

    def _base(self, purpose: str, packages: Sequence[str], options: Sequence[str]) -> str:
        """Return the name of a base image of Debian packages, made on first use."""
        wanted = ",".join(packages)
        recipe = f"{_SUITE} {wanted} {' '.join(options)}"
        key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
        tag, tree = f"numavm-lab/base:{key}", self._directory / f"base-{key}.tar"
        if not tree.exists():
            self._progress(f"making a base image of Debian packages for {purpose}")
            partial = tree.with_suffix(".partial")
            command = ["mmdebstrap", "--quiet", "--format=tar", *options]
            self._run([*command, f"--include={wanted}", _SUITE, str(partial)])
            partial.rename(tree)
        if not self._has(tag):
            context = self._directory / "base"
            context.mkdir(exist_ok=True)
            shutil.copyfile(tree, context / "tree.tar")
            (context / "Containerfile").write_text("FROM scratch\nADD tree.tar /\n")
            self._build(tag, [], context / "Containerfile", context)
            shutil.rmtree(context)
        return f"localhost/{tag}"

    def _wheels(self) -> Path:
        """Return a directory with every wheel that the images need, of the locked versions."""
        locked = (REPOSITORY / "requirements.lock").read_bytes()
        wheels = self._directory / f"wheels-{hashlib.sha256(locked).hexdigest()[:12]}"
        if not wheels.exists():
            self._progress("collecting wheels")
            partial = wheels.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(partial)]
            lock = str(REPOSITORY / "requirements.lock")
            self._run([*pip, "--require-hashes", "--requirement", lock])
            for old in self._directory.glob("wheels-*"):
                if old != partial:
                    shutil.rmtree(old)
            partial.rename(wheels)
        return wheels

    def _has(self, tag: str) -> bool:
        command = [*self._buildah, "images", "--quiet", tag]
        return bool(subprocess.run(command, capture_output=True, text=True, check=False).stdout)

    def _build(self, tag: str, options: Sequence[str], file: Path, context: Path) -> None:
        build = ["bud", "--isolation", "chroot", "--network", "host", "--layers=false"]
        self._run(
            [*self._buildah, *build, *options, "--tag", tag, "--file", str(file), str(context)]
        )

    def _save(self, tag: str, archive: Path) -> None:
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        target = f"docker-archive:{partial}:docker.io/{tag}"
        self._run([*self._buildah, "push", "--quiet", tag, target])
        partial.rename(archive)

    def _run(self, command: Sequence[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            told = (done.stdout + done.stderr).strip()[-3000:]
            raise ProcessFailedError(f"{' '.join(command)[:300]} failed:\n{told}")


def _digest(name: str, file: Path, tag: str) -> str:
    """Return a digest of everything that goes into an image."""
    found = hashlib.sha256(tag.encode())
    for path in (file, *(REPOSITORY / one for one in _FILES), *_source_files(name)):
        found.update(str(path.relative_to(REPOSITORY)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def _source_files(name: str) -> Iterator[Path]:
    for source in _SOURCES[name]:
        for path in sorted((REPOSITORY / source).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path
