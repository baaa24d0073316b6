"""Builds the witness guest: a kernel of this machine and an initial RAM file system that reports what it sees.

The file system lies in the cache, below ``images``, where lab hosts can read it too.
"""

import hashlib
from importlib import resources
from pathlib import Path

from numavm_lab.guest import cpio
from numavm_lab.guest.kernel import find_kernel, module_entries, static_busybox
from numavm_lab.state import cache_directory, write_private

_MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_balloon",
    "virtio_mem",
    "button",
    "evdev",
)
_DIRECTORIES = ("proc", "sys", "dev")


def witness_images(cache: Path | None = None) -> tuple[Path, Path]:
    """Return kernel and initial RAM file system of the witness guest, built where there is none.

    The kernel is this machine's own, in place: everyone may read it.

    Raises:
        MissingPrerequisiteError: No kernel or no static busybox is installed.
    """
    kernel = find_kernel()
    init = (resources.files("numavm_lab.guest") / "inside" / "witness-init.sh").read_bytes()
    image = cpio.archive(
        {
            **{name: cpio.directory() for name in _DIRECTORIES},
            "init": cpio.file(init, 0o755),
            "bin/busybox": cpio.file(static_busybox().read_bytes(), 0o755),
            "dev/console": cpio.character_device(5, 1),
            **module_entries(kernel, _MODULES, directory="modules"),
        }
    )
    directory = (cache or cache_directory()) / "images"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"witness-{hashlib.sha256(image).hexdigest()[:16]}.cpio"
    if not path.exists():
        write_private(path, image)
        path.chmod(0o644)
    return kernel.image, path
