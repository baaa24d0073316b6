"""Command lines that start, look at and end the long-lived processes of a host. Pure.

start-stop-daemon does the work: every Debian has it, and it holds a process to its pid file.
"""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from numavm_lab.hosts.bootfiles import INSIDE


def start_argv(name: str, argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return what starts ``argv`` unless it runs, its output appended to its log."""
    words = [f"{key}={value}" for key, value in environment.items()]
    return [
        *_daemon(name, "--start", "--oknodo", "--background", "--make-pidfile", "--chdir", "/"),
        *("--output", str(log_inside(name)), "--startas", "/usr/bin/env", "--", *words, *argv),
    ]


def stop_argv(name: str, grace_seconds: int) -> list[str]:
    """Return what ends a process with SIGTERM, after the grace with SIGKILL, if it is there."""
    retry = f"TERM/{grace_seconds}/KILL/5"
    return _daemon(name, "--stop", "--oknodo", "--remove-pidfile", "--retry", retry)


def signal_argv(name: str, number: signal.Signals) -> list[str]:
    """Return what sends a signal; its exit code is not 0 where the process is gone."""
    return _daemon(name, "--stop", "--signal", str(int(number)))


def status_argv(name: str) -> list[str]:
    """Return what has exit code 0 where the process runs."""
    return _daemon(name, "--status")


def log_inside(name: str) -> Path:
    """Return the path of a service's log in the host."""
    return INSIDE / "log" / f"{name}.log"


def _daemon(name: str, *options: str) -> list[str]:
    return ["start-stop-daemon", "--quiet", "--pidfile", f"/run/{name}.service.pid", *options]
