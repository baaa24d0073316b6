"""Finds a kernel of this machine and the modules that a virtual machine needs before it has a root file system.

Debian's cloud kernel comes first: it is small, boots fast, and has every virtio driver as a module. Another installed
kernel of this machine does as well.
"""

import gzip
import lzma
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from numavm_lab.errors import LabError, MissingPrerequisiteError
from numavm_lab.guest import cpio

_MODULE_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")


@dataclass(frozen=True)
class Kernel:
    """An installed kernel: the image that QEMU loads, and its release as ``uname -r`` prints it."""

    image: Path
    release: str


def find_kernel(boot: Path = Path("/boot"), modules: Path = Path("/lib/modules")) -> Kernel:
    """Return the newest installed kernel with modules, cloud kernels before others.

    Raises:
        MissingPrerequisiteError: There is none.
    """
    kernels = [
        Kernel(image, image.name.removeprefix("vmlinuz-"))
        for image in boot.glob("vmlinuz-*")
        if (modules / image.name.removeprefix("vmlinuz-") / "modules.dep").exists()
    ]
    if not kernels:
        raise MissingPrerequisiteError(
            f"no kernel with modules in {boot} and {modules}: apt-get install linux-image-cloud-amd64"
        )
    return max(kernels, key=lambda kernel: ("cloud" in kernel.release, version_key(kernel.release)))


def version_key(release: str) -> tuple[int, ...]:
    """Return the numbers of a kernel release in order, so that 6.10 sorts after 6.9."""
    return tuple(int(number) for number in re.findall(r"\d+", release))


def module_files(kernel: Kernel, names: Sequence[str]) -> list[Path]:
    """Return the files of the named modules and of all they depend on, in the order in which to insert them.

    Modules that are built into the kernel have no file and are left out.

    Raises:
        LabError: The kernel has no such module.
    """
    files: dict[Path, None] = {}
    for name in names:
        for path in _show_depends(kernel, name):
            files.setdefault(path)
    return list(files)


def _show_depends(kernel: Kernel, name: str) -> list[Path]:
    modprobe = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if modprobe is None:
        raise MissingPrerequisiteError("modprobe is not installed: apt-get install kmod")
    argv = [modprobe, "--set-version", kernel.release, "--ignore-install", "--show-depends", name]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"kernel {kernel.release} has no module {name}: {done.stderr.strip()}")
    lines = [line.split() for line in done.stdout.splitlines()]
    return [Path(words[1]) for words in lines if words and words[0] == "insmod"]


def module_entries(
    kernel: Kernel, names: Sequence[str], *, directory: str
) -> dict[str, cpio.Entry]:
    """Return archive entries ``DIRECTORY/NN-name.ko``, numbered in the order of insertion."""
    files = module_files(kernel, names)
    return {
        f"{directory}/{number:02d}-{path.name.split('.')[0]}.ko": cpio.file(uncompressed(path))
        for number, path in enumerate(files)
    }


def uncompressed(module: Path) -> bytes:
    """Return a kernel module's bytes, whatever compression the distribution chose.

    Raises:
        LabError: A compression that this function does not know.
    """
    data = module.read_bytes()
    match module.suffix:
        case ".ko":
            return data
        case ".xz":
            return lzma.decompress(data)
        case ".gz":
            return gzip.decompress(data)
        case ".zst":
            return subprocess.run(
                ["zstd", "-dc"], input=data, check=True, capture_output=True
            ).stdout
        case suffix:
            raise LabError(
                f"{module}: compression {suffix} is not one of {', '.join(_MODULE_SUFFIXES)}"
            )


def static_busybox() -> Path:
    """Return a statically linked busybox.

    Raises:
        MissingPrerequisiteError: None is installed, or only one that needs shared libraries.
    """
    found = shutil.which("busybox", path="/usr/bin:/bin:/usr/sbin:/sbin")
    if found is None:
        raise MissingPrerequisiteError("busybox is not installed: apt-get install busybox-static")
    linked = subprocess.run(["ldd", found], check=False, capture_output=True)
    if linked.returncode == 0:
        raise MissingPrerequisiteError(
            f"{found} needs shared libraries: apt-get install busybox-static"
        )
    return Path(found)
