"""Puts the agent together: settings in, adapters behind ports, the loop on top."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import structlog

from numavm_agent.agent import Agent
from numavm_agent.endpoint import Endpoint
from numavm_agent.host.clock import SystemClock
from numavm_agent.host.lock import only_agent
from numavm_agent.host.memory import LinuxHostMemory
from numavm_agent.host.reader import LinuxHostReader
from numavm_agent.host.schedstat import vcpu_times
from numavm_agent.host.threads import LinuxHostThreads
from numavm_agent.kube.api import KubeApi
from numavm_agent.kube.events import EventRecorder
from numavm_agent.kube.transport import Transport, configuration_from
from numavm_agent.kube.watch import WatchHint
from numavm_agent.kubelet.socket import KubeletSocket
from numavm_agent.libvirt.adapter import LibvirtHypervisor
from numavm_agent.libvirt.balloon import BalloonReader
from numavm_agent.libvirt.kvm_guest import KvmGuest
from numavm_agent.logs import configure_logging
from numavm_agent.metrics import Metrics, Observed, Sources, Watched
from numavm_agent.pulse import Pulse
from numavm_agent.reconcile.host_probe import HostProbe
from numavm_agent.reconcile.jobs import Jobs
from numavm_agent.reconcile.live_jobs import LiveJobs
from numavm_agent.reconcile.rehome_jobs import RehomeJobs
from numavm_agent.reconcile.tools import Tools
from numavm_agent.reconcile.workers import Workers
from numavm_agent.settings import AgentSettings
from numavm_agent.topology.kvm import KvmProbe
from numavm_api.errors import NumaVMError
from numavm_api.killpoints import AGENT_POINTS, KILL_POINT_VARIABLE, KillSwitch

_LAST_EVENTS_SECONDS = 2.0


def run(settings: AgentSettings) -> None:
    """Run the loop until SIGTERM or SIGINT; exit with a message where it cannot begin."""
    configure_logging(settings.log_format, settings.log_level)
    try:
        kill = KillSwitch.armed(os.environ.get(KILL_POINT_VARIABLE), AGENT_POINTS)
        transport = Transport(configuration_from(settings))
        with only_agent(settings.run_directory):
            _run(settings, transport, kill)
    except (NumaVMError, OSError, ValueError) as error:
        sys.exit(f"numavm-agent: {error}")


def _run(settings: AgentSettings, transport: Transport, kill: KillSwitch) -> None:
    log = structlog.get_logger("agent").bind(node=settings.node_name)
    wake = threading.Event()
    events = EventRecorder(transport, settings.node_name)
    pulse = Pulse(SystemClock(), settings.period_seconds)
    watch = WatchHint(transport, settings.node_name, wake.set, pulse.heard)
    tools = _tools(settings, KubeApi(transport, settings.node_name, events), kill, wake)
    probe = HostProbe(tools.hypervisor, tools.reader, tools.clock, settings.run_directory, wake.set)
    metrics = Metrics()
    agent = Agent(tools, probe, wake, settings.period_seconds, Watched(pulse, metrics))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    faulthandler.register(
        signal.SIGUSR1
    )  # every thread's stack to stderr, for who asks why it hangs
    log.info("agent_started", libvirt=settings.libvirt_uri)
    events.start()
    watch.start()
    with _serving(settings, pulse, metrics):
        agent.run()
    watch.stop()
    events.stop(_LAST_EVENTS_SECONDS)
    log.info("agent_stopped")


@contextmanager
def _serving(settings: AgentSettings, pulse: Pulse, metrics: Metrics) -> Iterator[None]:
    """Answer probes and scrapes while the context is open, where the settings name a port."""
    if settings.listen_port < 0:
        yield
        return
    balloons = BalloonReader(settings.libvirt_uri)
    proc = settings.sysroot / "proc"
    sources = Sources(lambda pid: vcpu_times(pid, proc), balloons.figures)
    metrics.registry.register(Observed(pulse, sources))
    endpoint = Endpoint(settings.listen_address, settings.listen_port, pulse, metrics.registry)
    endpoint.start()
    try:
        yield
    finally:
        endpoint.stop()
        balloons.close()


def _kvm_probe(settings: AgentSettings) -> Callable[[str], KvmProbe] | None:
    """Return the probe through libvirt where this process is in a container; else None, and QEMU is run directly."""
    if settings.sysroot == Path("/"):
        return None
    guest = KvmGuest(settings.libvirt_uri, settings.run_directory, settings.kvm_probe_seconds)
    return guest.probe


def _tools(settings: AgentSettings, api: KubeApi, kill: KillSwitch, wake: threading.Event) -> Tools:
    clock = SystemClock()
    reader = LinuxHostReader(
        settings.sysroot,
        kvm_probe_seconds=settings.kvm_probe_seconds,
        kvm_probe=_kvm_probe(settings),
    )
    hypervisor = LibvirtHypervisor(settings.libvirt_uri)
    hypervisor.on_change(wake.set)
    jobs = Jobs(hypervisor, reader, LinuxHostThreads(), clock, kill)
    live = LiveJobs(jobs)
    memory = LinuxHostMemory(settings.sysroot)
    return Tools(
        node=settings.node_name,
        version=version("numavm"),
        hypervisor=hypervisor,
        api=api,
        reader=reader,
        kubelet=KubeletSocket(settings.sysroot),
        clock=clock,
        kill=kill,
        jobs=jobs,
        live=live,
        rehome=RehomeJobs(jobs, live, memory, settings.rehome_mebibytes_per_second),
        workers=Workers(settings.parallel_starts, wake.set),
        guest_log_directory=str(settings.guest_log_directory),
        log=structlog.get_logger("agent").bind(node=settings.node_name),
    )
