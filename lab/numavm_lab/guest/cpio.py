"""Writes initial RAM file systems: uncompressed cpio archives in the kernel's ``newc`` format.

Uncompressed on purpose: a virtual machine that runs on emulated CPUs unpacks a gzip archive more slowly than QEMU
copies a few more megabytes into its memory.

Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """One file system object of an archive; all of them belong to root, with time stamp 0."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory() -> Entry:
    """Return an empty directory."""
    return Entry(stat.S_IFDIR | 0o755)


def file(data: bytes, permissions: int = 0o644) -> Entry:
    """Return a regular file."""
    return Entry(stat.S_IFREG | permissions, data)


def symlink(target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def character_device(major: int, minor: int) -> Entry:
    """Return a character device node."""
    return Entry(stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Mapping[str, Entry]) -> bytes:
    """Return the archive of ``entries`` (path without leading slash -> object), the same bytes for the same input.

    Missing parent directories are added.
    """
    complete = {parent: directory() for path in entries for parent in _parents(path)} | dict(
        entries
    )
    body = b"".join(
        _record(number, path, complete[path])
        for number, path in enumerate(sorted(complete), start=1)
    )
    body += _record(0, _TRAILER, Entry(0))
    return body + b"\0" * (-len(body) % 512)


def _parents(path: str) -> list[str]:
    words = path.split("/")[:-1]
    return ["/".join(words[: count + 1]) for count in range(len(words))]


def _record(inode: int, path: str, entry: Entry) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0,
    )  # fmt: skip
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    return _pad4(header + name) + _pad4(entry.data)


def _pad4(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
