"""A lab: some hosts below one run directory, independent of every other lab on the machine."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

from numavm_lab.errors import LabError, ProcessFailedError
from numavm_lab.hosts.host import LabHost, load_host
from numavm_lab.hosts.model import HostSpec, parse_hosts
from numavm_lab.hosts.programs import Programs, find_programs
from numavm_lab.state import cache_directory, state_directory

DEFAULT_LAB = "demo"
HostReport = Callable[[str, str], None]
"""Called with a host's name and what it does now."""


def prepare(report: Callable[[str], None] = lambda _: None) -> Programs:
    """Make sure that everything lab hosts need is there; builds virtiofsd where the machine has none.

    Raises:
        MissingPrerequisiteError: Something is not installed; the text has the command that installs it.
    """
    return find_programs(cache_directory(), report)


def default_run_directory(name: str = DEFAULT_LAB) -> Path:
    """Return the run directory of the lab called ``name``."""
    return state_directory() / "lab" / name


def demo_hosts() -> tuple[HostSpec, ...]:
    """Return the two hosts of the demo: one with KVM, one with sibling threads and more cells."""
    text = (resources.files("numavm_lab.hosts") / "demo.yaml").read_text()
    return parse_hosts(text, source="demo.yaml")


class Lab:
    """The hosts below a run directory."""

    def __init__(
        self, run_directory: Path, *, programs: Programs | None = None, cache: Path | None = None
    ) -> None:
        self.run_directory = run_directory.absolute()
        self._cache = cache or cache_directory()
        self._programs = programs or find_programs(self._cache, lambda _: None)

    def up(
        self,
        specs: Sequence[HostSpec],
        *,
        deadline_seconds: float = 300.0,
        report: HostReport = lambda _host, _step: None,
    ) -> list[LabHost]:
        """Start hosts side by side and wait until each is ready; one that runs already is left alone.

        Raises:
            LabError: A host did not come up, or one of the name runs with another description.
        """
        hosts = [self._host(spec) for spec in specs]
        with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
            waits = [pool.submit(_bring_up, host, deadline_seconds, report) for host in hosts]
            for wait in waits:
                wait.result()
        return hosts

    def hosts(self) -> list[LabHost]:
        """Return every host of this lab, running or not, by name."""
        return [
            load_host(path, programs=self._programs, cache=self._cache)
            for path in self._directories()
        ]

    def host(self, name: str) -> LabHost:
        """Return the host called ``name``.

        Raises:
            LabError: The lab has no such host.
        """
        known = {host.name: host for host in self.hosts()}
        if name not in known:
            names = ", ".join(known) or "none"
            raise LabError(f"no lab host {name} (there are: {names}): numavm lab up {name}")
        return known[name]

    def down(self, *, report: HostReport = lambda _host, _step: None) -> None:
        """Shut every host down and remove the run directory; harmless where there is none."""
        hosts = self.hosts()
        with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
            for done in [pool.submit(_take_down, host, report) for host in hosts]:
                done.result()
        shutil.rmtree(self.run_directory, ignore_errors=True)

    def _host(self, spec: HostSpec) -> LabHost:
        host = LabHost(
            spec, self.run_directory / spec.name, programs=self._programs, cache=self._cache
        )
        running = next(
            (other for other in self.hosts() if other.name == spec.name and other.pid), None
        )
        if running is not None and running.spec != spec:
            raise LabError(
                f"{spec.name} runs with another description than the one given: numavm lab down, then up again"
            )
        return host

    def _directories(self) -> Iterator[Path]:
        for path in sorted(self.run_directory.glob("*/spec.json")):
            yield path.parent


def _bring_up(host: LabHost, deadline_seconds: float, report: HostReport) -> None:
    """Start a host and wait until it is ready; once more where its QEMU ended meanwhile.

    QEMU 7.2's emulation of several CPUs crashes in about one of thirty boots on a busy machine.
    """
    host.start()
    try:
        host.wait_ready(
            deadline_seconds=deadline_seconds, report=lambda step: report(host.name, step)
        )
    except ProcessFailedError:
        if host.pid is not None:
            raise
        report(host.name, "QEMU ended by itself, starting again")
        host.start()
        host.wait_ready(
            deadline_seconds=deadline_seconds, report=lambda step: report(host.name, step)
        )


def _take_down(host: LabHost, report: HostReport) -> None:
    report(host.name, "stopping")
    host.stop()
    host.remove()
    report(host.name, "gone")
