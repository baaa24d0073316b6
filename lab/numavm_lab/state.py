"""Where the lab keeps things on disk, and which processes are its own.

Two roots, both outside the repository: the *cache* (downloads and builds: worth keeping, safe to
delete) and the *state* (what is running now: removed by ``down``). Sockets live below the state
root, so it should be short.

A process is known by its pid **and** its start time in clock ticks since this boot, read from
``/proc/PID/stat`` (proc(5), field 22): a pid alone is reused, and wall-clock start times move when
the clock is set. Nothing here looks for processes by name. As a second net every process carries
its directory in its environment, and so do its children: one whose record was lost (its starter was
killed between the two) is still found by ``strays``.
"""

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from numavm_lab.errors import ProcessFailedError

_KILL_SECONDS = 5.0
_POLL_SECONDS = 0.02

OWNER_VARIABLE = "NUMAVM_PROCESS_DIRECTORY"
"""Environment variable by which a process and its children say whose they are."""


def cache_directory() -> Path:
    """Return the place of downloads and builds: ``$NUMAVM_CACHE`` or ``$XDG_CACHE_HOME/numavm``."""
    return _root("NUMAVM_CACHE", "XDG_CACHE_HOME", ".cache")


def state_directory() -> Path:
    """Return the place of what runs now: ``$NUMAVM_STATE`` or ``$XDG_STATE_HOME/numavm``."""
    return _root("NUMAVM_STATE", "XDG_STATE_HOME", ".local/state")


def _root(own_variable: str, xdg_variable: str, home_default: str) -> Path:
    if own := os.environ.get(own_variable):
        return Path(own).absolute()
    return Path(os.environ.get(xdg_variable) or Path.home() / home_default).absolute() / "numavm"


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file that only its owner can read (0600), atomically: never half of it is seen."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:  # mkstemp made it 0600
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def give_to_invoking_user(path: Path) -> None:
    """Make the user who called sudo the owner of ``path``; does nothing where nobody did."""
    user, group = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if os.geteuid() == 0 and user and group:
        os.chown(path, int(user), int(group))


@dataclass(frozen=True)
class ProcessRecord:
    """One process that the lab started, identified beyond reuse of its pid."""

    name: str
    pid: int
    start_ticks: int
    boot_id: str

    def is_alive(self) -> bool:
        """Say whether this very process still runs; a zombie does not."""
        return self.boot_id == _boot_id() and _live_start_ticks(self.pid) == self.start_ticks


class ProcessTable:
    """The detached processes of one directory, recorded in ``<directory>/processes``.

    Processes started here survive the end of their starter. Names are unique within a table.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._records = self.directory / "processes"
        self._logs = self.directory / "logs"
        self._scratch = self.directory / "tmp"

    def log_path(self, name: str) -> Path:
        """Return where the output of process ``name`` goes."""
        return self._logs / f"{name}.log"

    def spawn(
        self, name: str, argv: Sequence[str | Path], *, environment: Mapping[str, str] | None = None
    ) -> ProcessRecord:
        """Start ``argv`` in a session of its own, output appended to its log, and record it.

        ``argv[0]`` is an absolute path. ``environment`` is added to the current one. Does nothing
        but return the record where a process of this name already runs. Its temporary files lie in
        ``<directory>/tmp``: what a killed process leaves goes with the directory.

        Raises:
            ProcessFailedError: The program could not be executed.
        """
        if (existing := self.get(name)) is not None and existing.is_alive():
            return existing
        self._records.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        words = [str(word) for word in argv]
        variables = {**os.environ, "TMPDIR": str(self._scratch), **(environment or {})}
        variables[OWNER_VARIABLE] = str(self.directory)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            # posix_spawn and not Popen: a Popen object complains at its end about a process that
            # is meant to live on.
            pid = os.posix_spawn(
                words[0],
                words,
                variables,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(self.log_path(name)), append, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
            )
        except OSError as error:
            raise ProcessFailedError(
                f"{name}: cannot execute {words[0]}: {error.strerror}"
            ) from error
        ticks = _live_start_ticks(pid)
        record = ProcessRecord(name, pid, -1 if ticks is None else ticks, _boot_id())
        write_private(self._record_path(name), json.dumps(asdict(record)))
        return record

    def get(self, name: str) -> ProcessRecord | None:
        """Return the record of process ``name``, running or not, or None where none was started."""
        try:
            return ProcessRecord(**json.loads(self._record_path(name).read_text()))
        except FileNotFoundError:
            return None

    def is_alive(self, name: str) -> bool:
        """Say whether process ``name`` was started and still runs."""
        return (record := self.get(name)) is not None and record.is_alive()

    def records(self) -> list[ProcessRecord]:
        """Return every record, by name."""
        found = (self.get(path.stem) for path in sorted(self._records.glob("*.json")))
        return [record for record in found if record is not None]

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to process ``name``; does nothing where it does not run."""
        record = self.get(name)
        if record is not None and record.is_alive():
            os.kill(record.pid, number)

    def stop(self, name: str, *, grace_seconds: float = 10.0) -> None:
        """End process ``name`` (SIGTERM, later SIGKILL) with all it started, and forget it.

        Raises:
            ProcessFailedError: It is still there after SIGKILL (stuck in the kernel).
        """
        record = self.get(name)
        if record is not None and record.is_alive():
            _end([psutil.Process(record.pid)], grace_seconds)
            if record.is_alive():
                raise ProcessFailedError(
                    f"{name}: process {record.pid} survives SIGKILL; log: {self.log_path(name)}"
                )
        self._record_path(name).unlink(missing_ok=True)

    def stop_all(self, *, grace_seconds: float = 10.0) -> None:
        """End every recorded process and every stray, and forget them."""
        for record in self.records():
            self.stop(record.name, grace_seconds=grace_seconds)
        _end(self.strays(), grace_seconds)

    def strays(self) -> list[psutil.Process]:
        """Return running processes of this directory by their environment, recorded or not."""
        return list(processes_owned_by(self.directory))

    def tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines of the log of process ``name``, or an empty text."""
        try:
            return "\n".join(self.log_path(name).read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def _record_path(self, name: str) -> Path:
        return self._records / f"{name}.json"


def processes_owned_by(directory: Path) -> Iterator[psutil.Process]:
    """Yield running processes started for ``directory`` or one below it, this one excepted."""
    root = directory.absolute()
    for process in psutil.process_iter():
        try:
            owner = process.environ().get(OWNER_VARIABLE)
        except psutil.Error:  # another user's, a kernel thread's, or gone: not ours
            continue
        if owner and Path(owner).is_relative_to(root) and process.pid != os.getpid():
            yield process


def _end(processes: Sequence[psutil.Process], grace_seconds: float) -> None:
    """End processes and descendants: SIGTERM to the given ones, SIGKILL to whatever is left."""
    family = list(processes)
    for process in processes:
        try:
            family += process.children(recursive=True)
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    for process in _wait_ended(family, grace_seconds):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    _wait_ended(family, _KILL_SECONDS)


def _wait_ended(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until all have ended, at most so long; return those that have not.

    A zombie has ended: who reaps it, if it is not our child, may take its time (psutil would wait).
    """
    end = time.monotonic() + seconds
    while left := [process for process in processes if _is_running(process)]:
        if time.monotonic() >= end:
            break
        time.sleep(_POLL_SECONDS)
    return left


def _is_running(process: psutil.Process) -> bool:
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.is_running()
        if _has_threads_left(process.pid):
            return True
        process.wait(0)  # reaps it if it is our child
    except psutil.Error:
        pass
    return False


def _has_threads_left(pid: int) -> bool:
    """Say whether a zombie's other threads still end: until they have, its ports stay bound."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _live_start_ticks(pid: int) -> int | None:
    """Return a process's start time in ticks since boot; None where it and all threads have ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the command name before it may hold anything
    state, start_ticks = fields[0], fields[19]
    has_ended = state == "X" or (state == "Z" and not _has_threads_left(pid))
    return None if has_ended else int(start_ticks)
