"""Builds the initial RAM file system of lab hosts, once per kernel, into the cache."""

import hashlib
from importlib import resources
from pathlib import Path

from numavm_lab.guest import cpio
from numavm_lab.guest.kernel import Kernel, module_entries, static_busybox
from numavm_lab.state import write_private

_MODULES = ("virtio_pci", "virtiofs", "overlay", "virtio_net", "virtio_rng", "tun")
_KVM_MODULES = ("kvm_amd",)
_DIRECTORIES = ("proc", "sys", "dev", "lower", "sysroot")


def inside(name: str) -> str:
    """Return one of the files that this package puts into a host."""
    return (resources.files("numavm_lab.hosts") / "inside" / name).read_text()


def host_initramfs(kernel: Kernel, cache: Path) -> Path:
    """Return the initial RAM file system for ``kernel``, built if the cache has none of the same content."""
    image = cpio.archive(
        {
            **{name: cpio.directory() for name in _DIRECTORIES},
            "init": cpio.file(inside("initramfs-init.sh").encode(), 0o755),
            "bin/busybox": cpio.file(static_busybox().read_bytes(), 0o755),
            "dev/console": cpio.character_device(5, 1),
            "setup.sh": cpio.file(inside("setup.sh").encode()),
            **module_entries(kernel, _MODULES, directory="modules"),
            **module_entries(kernel, _KVM_MODULES, directory="modules-kvm"),
        }
    )
    directory = cache / "images"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"host-{hashlib.sha256(image).hexdigest()[:16]}.cpio"
    if not path.exists():
        write_private(path, image)
    return path
