"""Opening what a manifest names without following a symbolic link anywhere on the way."""

from __future__ import annotations

import os
import stat

from numavm_api.errors import RejectedError


class UnsafePath(RejectedError):  # noqa: N818 - reads as a sentence after `raises`
    """A path leads through a symbolic link or to no file; the message names the component."""


def check_host_file(path: str) -> os.stat_result:
    """Return the state of the regular file or block device at an absolute path.

    Each component is opened relative to the one before with O_NOFOLLOW, as openat2's
    RESOLVE_NO_SYMLINKS would; nothing is read. Only who may write below the permitted directory
    could change the path afterwards.

    Raises:
        UnsafePath: a component is missing, is a symbolic link or cannot be entered, or the last one
            is neither a
            regular file nor a block device.
    """
    if not path.startswith("/") or "\0" in path:
        raise UnsafePath(f"{path!r} is no absolute path")
    descriptor = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    walked = ""
    try:
        for component in path.strip("/").split("/"):
            walked = f"{walked}/{component}"
            following = _open_component(component, walked, parent=descriptor, whole=path)
            os.close(descriptor)
            descriptor = following
        state = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not (stat.S_ISREG(state.st_mode) or stat.S_ISBLK(state.st_mode)):
        raise UnsafePath(f"{path!r} is neither a regular file nor a block device")
    return state


def _open_component(component: str, walked: str, *, parent: int, whole: str) -> int:
    if component in {"", ".", ".."}:
        raise UnsafePath(
            f"{whole!r} has a component {component!r}: write the path in its plain form"
        )
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(component, flags, dir_fd=parent)
    except OSError as error:
        raise UnsafePath(f"{whole!r}: {walked!r}: {error.strerror}") from error
    if stat.S_ISLNK(os.fstat(descriptor).st_mode):
        target = os.readlink("", dir_fd=descriptor)
        os.close(descriptor)
        raise UnsafePath(
            f"{whole!r}: {walked!r} is a symbolic link to {target!r}: name the file itself"
        )
    return descriptor
