"""What QEMU and KVM can do here: found out once per boot and version, in a thread, because it takes seconds.

libvirt runs QEMU to learn its machine types, and a guest has to run before anybody knows that KVM works. The answer is
kept below the run directory, so that an agent that is started again does not wait for it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from numavm_agent.ports import Clock, HostReader, Hypervisor
from numavm_agent.topology.capabilities import EmulatorCapabilities
from numavm_agent.topology.kvm import KvmProbe
from numavm_api.errors import NumaVMError

_FILE: Final = "probe.json"
_RETRY_SECONDS: Final = 5.0
_LOOK_AGAIN_SECONDS: Final = 60.0
"""How often it is checked, cheaply, whether libvirt or QEMU were replaced."""


@dataclass(frozen=True, slots=True)
class Qemu:
    """What runs domains here, and how."""

    libvirt_version: str
    qemu_version: str
    emulator: EmulatorCapabilities
    kvm: KvmProbe


class HostProbe:
    """Finds out, keeps the answer, and finds out again where libvirt or QEMU were replaced."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        reader: HostReader,
        clock: Clock,
        directory: Path,
        wake: Callable[[], None],
    ) -> None:
        self._hypervisor = hypervisor
        self._reader = reader
        self._clock = clock
        self._file = directory / _FILE
        self._wake = wake
        self._log = structlog.get_logger("probe")
        self._result: Qemu | None = None
        self._thread: threading.Thread | None = None
        self._looked_at: float | None = None

    def result(self) -> Qemu | None:
        """Return what is known; None: it is being found out. Only the loop's thread calls this.

        Raises:
            HypervisorUnavailable: libvirtd does not answer.
        """
        now = self._clock.boottime()
        if self._looked_at is None or now >= self._looked_at + _LOOK_AGAIN_SECONDS:
            kept = self._result or self._kept()
            if kept is not None and self._is_current(kept):
                self._result = kept
            else:
                self._find_out()
            self._looked_at = now
        return self._result

    def _find_out(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._probe, name="probe", daemon=True)
            self._thread.start()

    def _probe(self) -> None:
        wait = threading.Event()
        while True:
            try:
                found = self._ask()
                break
            except NumaVMError as error:
                self._log.warning("probe_failed", error=str(error))
                wait.wait(_RETRY_SECONDS)
        self._log.info(
            "probed",
            libvirt=found.libvirt_version,
            qemu=found.qemu_version,
            kvm=found.kvm.works,
            kvm_message=found.kvm.message,
        )
        self._keep(found)
        self._result = found
        self._wake()

    def _ask(self) -> Qemu:
        emulator = self._hypervisor.capabilities()
        return Qemu(
            libvirt_version=self._hypervisor.libvirt_version(),
            qemu_version=self._hypervisor.qemu_version(),
            emulator=emulator,
            kvm=self._reader.probe_kvm(emulator.emulator),
        )

    def _is_current(self, found: Qemu) -> bool:
        """Tell whether the same libvirt still answers, and QEMU's file is the one that was asked."""
        return (
            found.libvirt_version == self._hypervisor.libvirt_version()
            and self._kept_key() == self._key(found)
        )

    def _key(self, found: Qemu) -> str:
        """Return what the answer is good for: this boot, and this very file."""
        path = Path(found.emulator.emulator)
        try:
            state = path.stat()
        except OSError:
            return f"{self._reader.boot_id()}/{path}"
        return f"{self._reader.boot_id()}/{path}/{state.st_mtime_ns}/{state.st_size}"

    def _keep(self, found: Qemu) -> None:
        document = {"key": self._key(found), "found": asdict(found)}
        try:
            self._file.write_text(json.dumps(document), encoding="utf-8")
        except OSError as error:
            self._log.warning("probe_not_kept", error=str(error))

    def _document(self) -> dict[str, Any]:
        try:
            document = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def _kept_key(self) -> str:
        return str(self._document().get("key"))

    def _kept(self) -> Qemu | None:
        try:
            found = self._document()["found"]
            emulator = {
                **found["emulator"],
                "machine_types": tuple(found["emulator"]["machine_types"]),
            }
            return Qemu(
                libvirt_version=found["libvirt_version"],
                qemu_version=found["qemu_version"],
                emulator=EmulatorCapabilities(**emulator),
                kvm=KvmProbe(**found["kvm"]),
            )
        except (KeyError, TypeError):
            return None
