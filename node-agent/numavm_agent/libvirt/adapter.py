"""The port `Hypervisor` on libvirt-python: the only module that calls libvirt on domains.

Starts go over a connection of their own: libvirtd serves at most five calls of one client at a time
(max_client_requests), and a start with immediate allocation takes as long as the kernel needs to clear the guest's
memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import libvirt
import libvirt_qemu

from numavm_agent.domain.metadata import METADATA_NAMESPACE, METADATA_PREFIX
from numavm_agent.errors import Shortage
from numavm_agent.libvirt.connection import Connection, ReconnectingConnection
from numavm_agent.libvirt.faults import start_error
from numavm_agent.libvirt.memory_xml import resized_memory
from numavm_agent.libvirt.monitor import balloon_size, cell_addresses
from numavm_agent.ports import BalloonSeen, DeviceNews, DomainEnd, DomainSeen, LibvirtState
from numavm_agent.topology.capabilities import EmulatorCapabilities, parse_capabilities
from numavm_api.cpuset import CpuSet
from numavm_api.quantity import KIBIBYTE, Bytes
from numavm_api.vm_status import PausedReason, ShutoffReason

_STATES: Final = {
    libvirt.VIR_DOMAIN_NOSTATE: LibvirtState.STARTING,
    libvirt.VIR_DOMAIN_RUNNING: LibvirtState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: LibvirtState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: LibvirtState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: LibvirtState.SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: LibvirtState.SHUTOFF,
    libvirt.VIR_DOMAIN_CRASHED: LibvirtState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: LibvirtState.PAUSED,
}
_PAUSES: Final = {
    libvirt.VIR_DOMAIN_PAUSED_USER: PausedReason.USER,
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: PausedReason.IO_ERROR,
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: PausedReason.WATCHDOG,
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: PausedReason.CRASHED,
}
_ENDS: Final = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: ShutoffReason.GUEST_SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: ShutoffReason.DESTROYED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: ShutoffReason.CRASHED,
    # QEMU went away without a SHUTDOWN event: "assuming the domain crashed" (qemuProcessHandleMonitorEOF)
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: ShutoffReason.CRASHED,
}
_MAX_ENDS: Final = 10_000


class LibvirtHypervisor:
    """libvirt's QEMU driver."""

    def __init__(self, uri: str) -> None:
        self._wake: Callable[[], None] = lambda: None
        self._ends: deque[DomainEnd] = deque(maxlen=_MAX_ENDS)
        self._device_news: deque[DeviceNews] = deque(maxlen=_MAX_ENDS)
        self._stopped_by_host: set[str] = set()
        self._ends_lock = threading.Lock()
        self._control = ReconnectingConnection(
            uri, prepare=self._subscribe, on_close=self._call_wake
        )
        self._starts = ReconnectingConnection(uri)

    def libvirt_version(self) -> str:
        """Return libvirtd's version, `9.0.0`; quick."""
        with self._control.use("ask libvirt for its version") as connection:
            return _version(connection.getLibVersion())

    def qemu_version(self) -> str:
        """Return QEMU's version, `7.2.22`; libvirt may have to run QEMU for it."""
        with self._control.use("ask libvirt for QEMU's version") as connection:
            return _version(connection.getVersion())

    def capabilities(self) -> EmulatorCapabilities:
        """Return what QEMU for x86-64 can do here; the first call on a host takes seconds."""
        with self._control.use("ask libvirt for capabilities") as connection:
            return parse_capabilities(str(connection.getCapabilities()))

    def list_domains(self) -> tuple[DomainSeen, ...]:
        """Return every active domain, with its state, by one call."""
        with self._control.use("list domains") as connection:
            found = connection.getAllDomainStats(
                libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_BALLOON,
                # A domain whose monitor is busy is there all the same, without its balloon.
                libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
                | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
            )
            return tuple(_seen(domain, stats) for domain, stats in found if domain.ID() >= 0)

    def domain_xml(self, uuid: str) -> str:
        """Return the live XML of a domain."""
        with self._domain(uuid, "read the XML of") as domain:
            return str(domain.XMLDesc(0))

    def create(self, xml: str) -> None:
        """Start a transient domain; returns when its guest runs."""
        short_of = Shortage.HUGE_PAGES if "<hugepages>" in xml else Shortage.MEMORY
        error_of = partial(start_error, short_of=short_of)
        with self._starts.use("start a domain", error_of) as connection:
            connection.createXML(xml, libvirt.VIR_DOMAIN_NONE)

    def shutdown(self, uuid: str) -> None:
        """Ask the guest by ACPI to shut down; returns at once."""
        with self._domain(uuid, "shut down") as domain:
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    def destroy(self, uuid: str) -> None:
        """Cut a domain's power; returns when its process is gone."""
        with self._domain(uuid, "destroy") as domain:
            domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_DEFAULT)

    def set_metadata(self, uuid: str, xml: str) -> None:
        """Replace NumaVM's metadata element of a domain."""
        with self._domain(uuid, "write metadata of") as domain:
            domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                xml,
                METADATA_PREFIX,
                METADATA_NAMESPACE,
                libvirt.VIR_DOMAIN_AFFECT_LIVE,
            )

    def pin_vcpu(self, uuid: str, vcpu: int, cpus: CpuSet) -> None:
        """Set the affinity of a vCPU's thread, now."""
        with self._domain(uuid, f"pin vCPU {vcpu} to {cpus} of") as domain:
            domain.pinVcpuFlags(vcpu, _cpu_map(domain, cpus), libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def pin_emulator(self, uuid: str, cpus: CpuSet) -> None:
        """Set the affinity of all threads that are neither vCPUs nor I/O threads, now."""
        with self._domain(uuid, f"pin the emulator to {cpus} of") as domain:
            domain.pinEmulator(_cpu_map(domain, cpus), libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def plug_vcpu(self, uuid: str, vcpu: int) -> None:
        """Power a vCPU on."""
        with self._domain(uuid, f"power vCPU {vcpu} on of") as domain:
            domain.setVcpu(str(vcpu), 1, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def attach(self, uuid: str, xml: str) -> None:
        """Plug a device into the running guest."""
        with self._domain(uuid, "plug a device into") as domain:
            domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def detach(self, uuid: str, alias: str) -> None:
        """Ask the guest to give a device back; returns before it has answered."""
        with self._domain(uuid, f"unplug {alias} from") as domain:
            domain.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def resize(self, uuid: str, alias: str, requested: Bytes) -> None:
        """Tell the guest how much of a virtio-mem device it should have; returns before it has followed."""
        with self._domain(uuid, f"resize {alias} of") as domain:
            xml = resized_memory(str(domain.XMLDesc(0)), alias, requested)
            domain.updateDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def unplug_vcpu(self, uuid: str, vcpu: int) -> None:
        """Ask the guest to give a vCPU back; waits for its answer, 5 s at most."""
        with self._domain(uuid, f"power vCPU {vcpu} off of") as domain:
            domain.setVcpu(str(vcpu), 0, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def set_balloon(self, uuid: str, target: Bytes) -> None:
        """Ask the guest to keep so much memory; returns at once, whether the guest follows or not."""
        with self._domain(uuid, f"set the balloon target {target} of") as domain:
            domain.setMemoryFlags(target // KIBIBYTE, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def balloon_size(self, uuid: str) -> Bytes | None:
        """Return what the guest has by its balloon alone: libvirt's figure counts virtio-mem in, not always fresh."""
        with self._domain(uuid, "ask QEMU for the balloon of") as domain:
            return balloon_size(_ask_monitor(domain, "info balloon"))

    def set_balloon_period(self, uuid: str, seconds: int) -> None:
        """Have the guest asked for its figures so often; 0: never."""
        with self._domain(uuid, "set the period of the balloon's figures of") as domain:
            domain.setMemoryStatsPeriod(seconds, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def cell_addresses(self, uuid: str, sizes: Mapping[int, Bytes]) -> Mapping[int, int]:
        """Return guest cell -> an address of its QEMU process within that cell's memory."""
        with self._domain(uuid, "ask QEMU where memory is of") as domain:
            return cell_addresses(partial(_ask_monitor, domain), sizes)

    def pin_io_thread(self, uuid: str, io_thread: int, cpus: CpuSet) -> None:
        """Set the affinity of an I/O thread, now."""
        with self._domain(uuid, f"pin I/O thread {io_thread} to {cpus} of") as domain:
            domain.pinIOThread(io_thread, _cpu_map(domain, cpus), libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def take_ends(self) -> tuple[DomainEnd, ...]:
        """Return the ends that events told of since the last call, oldest first."""
        with self._ends_lock:
            taken = tuple(self._ends)
            self._ends.clear()
        return taken

    def take_device_news(self) -> tuple[DeviceNews, ...]:
        """Return what events told of devices since the last call, oldest first."""
        with self._ends_lock:
            taken = tuple(self._device_news)
            self._device_news.clear()
        return taken

    def on_change(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, from any thread, whenever a domain or the connection changes."""
        self._wake = wake

    def close(self) -> None:
        """Close both connections."""
        self._control.close()
        self._starts.close()

    @contextmanager
    def _domain(self, uuid: str, doing: str) -> Iterator[Any]:
        with self._control.use(f"{doing} domain {uuid}") as connection:
            yield connection.lookupByUUIDString(uuid)

    def _subscribe(self, connection: Connection) -> None:
        events = {
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: self._on_lifecycle,
            libvirt.VIR_DOMAIN_EVENT_ID_TUNABLE: self._on_tunable,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED: self._on_device,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: self._on_device,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED: self._on_removal_failed,
            libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE: self._on_device,
        }
        for event, callback in events.items():
            connection.domainEventRegisterAny(None, event, callback, None)

    def _on_lifecycle(
        self,
        _connection: Connection,
        domain: Any,  # noqa: ANN401 - libvirt.virDomain
        event: int,
        detail: int,
        _opaque: object,
    ) -> None:
        uuid = str(domain.UUIDString())
        with self._ends_lock:
            if (event, detail) == (
                libvirt.VIR_DOMAIN_EVENT_SHUTDOWN,
                libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST,
            ):
                self._stopped_by_host.add(
                    uuid
                )  # a signal to QEMU: the STOPPED after it says shutdown
            if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
                self._stopped_by_host.discard(uuid)
            if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
                self._ends.append(DomainEnd(uuid, self._end_reason(uuid, detail)))
        self._call_wake()

    def _end_reason(self, uuid: str, detail: int) -> ShutoffReason:
        by_host = uuid in self._stopped_by_host
        self._stopped_by_host.discard(uuid)
        reason = _ENDS.get(detail, ShutoffReason.UNKNOWN)
        return ShutoffReason.DESTROYED if by_host else reason

    def _on_removal_failed(
        self,
        _connection: Connection,
        domain: Any,  # noqa: ANN401 - libvirt.virDomain
        alias: str,
        _opaque: object,
    ) -> None:
        self._note_device(DeviceNews(str(domain.UUIDString()), alias, refused=True))

    def _on_device(
        self,
        _connection: Connection,
        domain: Any,  # noqa: ANN401 - libvirt.virDomain
        alias: str,
        *_rest: object,
    ) -> None:
        self._note_device(DeviceNews(str(domain.UUIDString()), alias))

    def _note_device(self, news: DeviceNews) -> None:
        with self._ends_lock:
            self._device_news.append(news)
        self._call_wake()

    def _on_tunable(self, *_event: object) -> None:
        self._call_wake()

    def _call_wake(self) -> None:
        self._wake()


def _seen(domain: Any, stats: dict[str, Any]) -> DomainSeen:  # noqa: ANN401 - libvirt.virDomain
    number, reason = int(stats["state.state"]), int(stats.get("state.reason", 0))
    state, paused = _STATES.get(number, LibvirtState.RUNNING), None
    if number == libvirt.VIR_DOMAIN_PMSUSPENDED:
        paused = PausedReason.SUSPENDED
    elif state is LibvirtState.PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_STARTING_UP:
        state = LibvirtState.STARTING
    elif state is LibvirtState.PAUSED:
        paused = _PAUSES.get(reason, PausedReason.UNKNOWN)
    return DomainSeen(
        uuid=str(domain.UUIDString()),
        name=str(domain.name()),
        run_id=int(domain.ID()),
        state=state,
        paused=paused,
        balloon=_balloon(stats),
    )


def _balloon(stats: dict[str, Any]) -> BalloonSeen | None:
    """Return the figures; libvirt names `current` also of a domain without a balloon."""

    def figure(name: str) -> Bytes | None:
        known = stats.get(f"balloon.{name}")
        return None if known is None else Bytes(int(known) * KIBIBYTE)

    current = figure("current")
    if current is None:
        return None
    return BalloonSeen(
        current=current,
        available=figure("available"),
        usable=figure("usable"),
        unused=figure("unused"),
        last_update=int(stats.get("balloon.last-update", 0)),
    )


def _ask_monitor(domain: Any, command: str) -> str:  # noqa: ANN401 - libvirt.virDomain
    flags = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
    return str(libvirt_qemu.qemuMonitorCommand(domain, command, flags))


def _cpu_map(domain: Any, cpus: CpuSet) -> tuple[bool, ...]:  # noqa: ANN401 - libvirt.virDomain
    present = int(domain.connect().getCPUMap()[0])
    return tuple(cpu in cpus for cpu in range(present))


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
