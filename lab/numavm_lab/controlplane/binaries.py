"""The control plane's programs: the user's own, else Debian's etcd and a kube-apiserver built once.

No package registry has a kube-apiserver program, so it is built from the Go module;
``kubernetes/go.mod`` and ``go.sum`` beside this file pin every source by checksum. It takes 5 to 8
minutes on two cores and is kept in the cache under its version. The same module builds the other
Kubernetes programs, should the lab come to need them.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from filelock import FileLock

from numavm_lab.controlplane.golang import GoToolchain, ensure_go
from numavm_lab.errors import MissingPrerequisiteError, ProcessFailedError
from numavm_lab.progress import Progress, silent
from numavm_lab.state import cache_directory

MINIMUM_KUBERNETES = (1, 33)
_MODULE = Path(__file__).parent / "kubernetes"
_REPORT_SECONDS = 10.0


class KubernetesProgram(StrEnum):
    """What the pinned Go module can build: ``k8s.io/kubernetes/cmd/<value>``."""

    API_SERVER = "kube-apiserver"
    CONTROLLER_MANAGER = "kube-controller-manager"
    SCHEDULER = "kube-scheduler"
    KUBELET = "kubelet"


@dataclass(frozen=True)
class Binaries:
    """Paths of the programs."""

    etcd: Path
    kube_apiserver: Path


def ensure_binaries(progress: Progress = silent) -> Binaries:
    """Return the control plane's programs, building what is missing.

    Looked for in ``$KUBEBUILDER_ASSETS``, on PATH, then in the cache.

    Raises:
        MissingPrerequisiteError: etcd is not installed, or a found kube-apiserver is too old.
        ProcessFailedError: The build failed.
    """
    etcd = find_program("etcd")
    if etcd is None:
        raise MissingPrerequisiteError(
            "etcd: neither in $KUBEBUILDER_ASSETS nor on PATH; install Debian's etcd-server "
            "(hack/debian.sh does)"
        )
    return Binaries(etcd, ensure_kubernetes_program(KubernetesProgram.API_SERVER, progress))


def ensure_kubernetes_program(program: KubernetesProgram, progress: Progress = silent) -> Path:
    """Return one Kubernetes program, the user's own or built into the cache."""
    if (own := find_program(program)) is not None:
        _check_version(own)
        return own
    toolchain_arch = "amd64" if os.uname().machine == "x86_64" else os.uname().machine
    cached = (
        cache_directory() / "kubernetes" / pinned_version() / f"linux-{toolchain_arch}" / program
    )
    cached.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{cached}.lock"):
        if not cached.exists():
            go = ensure_go(progress)
            _build(program, cached, go, progress)
            go.discard_scratch()
    return cached


def find_program(name: str) -> Path | None:
    """Return a program of ``$KUBEBUILDER_ASSETS`` or of PATH, or None."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    found = (shutil.which(name, path=assets) if assets else None) or shutil.which(name)
    return Path(found).absolute() if found else None


def pinned_version() -> str:
    """Return the Kubernetes version that go.mod pins, as ``v1.37.2``."""
    found = re.search(r"^require k8s\.io/kubernetes (v\S+)", _go_mod(), re.MULTILINE)
    if found is None:
        raise MissingPrerequisiteError(
            f"{_MODULE / 'go.mod'}: no line: require k8s.io/kubernetes VERSION"
        )
    return found[1]


def _go_mod() -> str:
    return (_MODULE / "go.mod").read_text()


def _check_version(program: Path) -> None:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"v(\d+)\.(\d+)", done.stdout)
    if found is None or (int(found[1]), int(found[2])) < MINIMUM_KUBERNETES:
        raise MissingPrerequisiteError(
            f"{program} says {(done.stdout or done.stderr).strip()!r}; Kubernetes "
            f"{MINIMUM_KUBERNETES[0]}.{MINIMUM_KUBERNETES[1]} or newer is needed. Update it, or "
            "take it off PATH and KUBEBUILDER_ASSETS: one is then built"
        )


def _build(program: KubernetesProgram, target: Path, go: GoToolchain, progress: Progress) -> None:
    """Build one program; the target appears only when it is complete."""
    version = pinned_version()
    major, minor, _ = version.removeprefix("v").split(".")
    stamp = "k8s.io/component-base/version"
    flags = f"-s -w -X {stamp}.gitVersion={version}"
    flags += f" -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    partial = target.with_name(f"{target.name}.partial")
    command = [str(go.program), "build", "-v", "-trimpath", "-ldflags", flags, "-o", str(partial)]
    package = f"k8s.io/kubernetes/cmd/{program}"
    command.append(package)
    progress(f"downloading the sources of {program} {version}")
    total = _count_packages(package, go)
    progress(f"building {program} {version} (once; 5 to 8 minutes on two cores)")
    with subprocess.Popen(
        command,
        cwd=_MODULE,
        env={**go.environment, "CGO_ENABLED": "0"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        tail = list(_report(process, lambda text: progress(f"building {program}: {text}"), total))
    if process.returncode != 0:
        raise ProcessFailedError(f"building {program} {version} failed:\n" + "\n".join(tail[-20:]))
    partial.rename(target)


def _count_packages(package: str, go: GoToolchain) -> int:
    """Return how many packages a program consists of, after downloading them; 0 if unknown."""
    command = [str(go.program), "list", "-deps", package]
    done = subprocess.run(
        command, cwd=_MODULE, env=go.environment, capture_output=True, text=True, check=False
    )
    return len(done.stdout.splitlines())


def _report(process: subprocess.Popen[str], progress: Progress, total: int) -> Iterator[str]:
    """Yield what ``go build -v`` says (a line per package); tell the count now and then."""
    if process.stderr is None:
        raise ValueError("started without a pipe for stderr")
    started = reported = time.monotonic()
    count = 0
    for line in process.stderr:
        count += not line.startswith("go: ")  # a remark, not a package
        if (now := time.monotonic()) - reported >= _REPORT_SECONDS:
            reported = now
            progress(f"{count} of {total} packages, {now - started:.0f} s")
        yield line.rstrip()
