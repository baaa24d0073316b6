"""Runs commands in a lab host over ssh: one connection kept open, so that a call costs no key exchange.

The keys are made per lab and known only to it; the host listens behind a forwarded port of 127.0.0.1.
"""

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from numavm_lab.errors import LabError

_LONGEST_SOCKET_PATH = 107
"""unix(7): sun_path holds 108 bytes with the final zero."""
_SSH_SUFFIX = 17
"""ssh makes its control socket under a temporary name, that much longer, first."""


@dataclass(frozen=True)
class SshKeys:
    """Key files: the user's, private and public, and the host's (for dropbear) with what clients know of it."""

    user: Path
    user_public: Path
    host: Path
    known_hosts: Path


def make_keys(directory: Path, *, ssh_keygen: Path, dropbearkey: Path) -> SshKeys:
    """Return the keys in ``directory``, made now where there are none."""
    keys = SshKeys(
        user=directory / "ssh-user-key",
        user_public=directory / "ssh-user-key.pub",
        host=directory / "ssh-host-key",
        known_hosts=directory / "known-hosts",
    )
    if keys.known_hosts.exists():
        return keys
    for leftover in (keys.user, keys.user_public, keys.host):
        leftover.unlink(missing_ok=True)
    _run([ssh_keygen, "-q", "-t", "ed25519", "-N", "", "-C", "numavm-lab", "-f", keys.user])
    printed = _run([dropbearkey, "-t", "ed25519", "-f", keys.host])
    public = next(line for line in printed.splitlines() if line.startswith("ssh-ed25519 "))
    keys.known_hosts.write_text(f"lab {public}\n")
    return keys


def _run(argv: Sequence[str | Path]) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"{argv[0]}: {done.stderr.strip()}")
    return done.stdout


def check_socket_path(path: Path, *, spare: int = 0) -> Path:
    """Return ``path`` if the kernel can bind a socket to it.

    Raises:
        LabError: It is too long.
    """
    if len(os.fsencode(path)) + spare > _LONGEST_SOCKET_PATH:
        raise LabError(
            f"{path}: {len(os.fsencode(path))} bytes, a socket's path has at most {_LONGEST_SOCKET_PATH - spare}: "
            "set NUMAVM_STATE to a shorter directory"
        )
    return path


@dataclass(frozen=True)
class Ssh:
    """How to reach one host: by a connection of its own, or through one that is kept open."""

    program: Path
    keys: SshKeys
    port: int
    control: Path | None = None
    """Socket of the process that keeps a connection open."""

    def through(self, control: Path) -> "KeptSsh":
        """Return the same host, reached through the connection kept at ``control``."""
        return KeptSsh(self.program, self.keys, self.port, control)

    def argv(
        self, command: Sequence[str], environment: Mapping[str, str], *, terminal: bool = False
    ) -> list[str]:
        """Return the command line that runs ``command`` in the host.

        The far end is a shell, so each word is quoted for it.
        """
        words = [f"{name}={value}" for name, value in environment.items()]
        remote = shlex.join(["env", *words, *command] if words else list(command))
        return [
            *self._base(),
            *("-o", "ControlMaster=no", "-tt" if terminal else "-T"),
            *("--", "root@127.0.0.1", remote),
        ]

    def _base(self) -> list[str]:
        options = {
            "ControlPath": _path(self.control) if self.control else "none",
            "IdentityFile": _path(self.keys.user),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": _path(self.keys.known_hosts),
            "HostKeyAlias": "lab",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
            "ConnectTimeout": "60",
            "ServerAliveInterval": "30",
            "ServerAliveCountMax": "10",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [str(self.program), "-F", "/dev/null", *words, "-p", str(self.port)]


@dataclass(frozen=True)
class KeptSsh(Ssh):
    """A host reached through a connection that is kept open."""

    control: Path

    def master_argv(self) -> list[str]:
        """Return the command line of the process that keeps the connection."""
        check_socket_path(self.control, spare=_SSH_SUFFIX)
        return [*self._base(), "-o", "ControlMaster=yes", "-N", "-n", "root@127.0.0.1"]


def _path(path: Path) -> str:
    """Return a path as an option of ssh takes it: percent signs doubled, quoted for spaces."""
    text = str(path).replace("%", "%%")
    return f'"{text}"' if " " in text else text
