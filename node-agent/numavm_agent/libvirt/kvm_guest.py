"""Whether KVM really runs guest code, by way of libvirt: for an agent in a pod, with neither QEMU nor /dev/kvm.

The guest is that of `topology.kvm`, but it says so on its serial port, which libvirt writes to a file. The domain is
transient and dies with the connection, so that nothing is left of an agent that is killed meanwhile.
"""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import libvirt
from lxml.builder import E
from lxml.etree import tostring

from numavm_agent.libvirt.connection import Connection, ReconnectingConnection
from numavm_agent.topology.kvm import (
    KvmProbe,
    held_against_emulation,
    serial_boot_image,
    too_late,
)

_SAID: Final = b"U"
"""0x55, the guest's word that it has done its work."""
_POLL_SECONDS: Final = 0.1
_DOMAIN_TYPES: Final = {"kvm": "kvm", "tcg": "qemu"}
"""QEMU's accelerator -> libvirt's word for it."""


class KvmGuest:
    """Runs the guest by the libvirt at `uri`.

    `directory` must have the same path for this process and for libvirt, and QEMU's user must reach it.
    """

    def __init__(self, uri: str, directory: Path, deadline_seconds: float) -> None:
        self._connection = ReconnectingConnection(uri)
        self._directory = directory
        self._deadline = deadline_seconds

    def probe(self, emulator: str) -> KvmProbe:
        """Return whether a tiny guest finished its work in time, and not later than an emulated one.

        Blocks for up to one and a half times the deadline.

        Raises:
            HypervisorUnavailable: libvirtd does not answer.
        """

        def run(accelerator: str, seconds: float) -> KvmProbe:
            return self.run(emulator, _DOMAIN_TYPES[accelerator], seconds)

        return held_against_emulation(run, self._deadline)

    def run(self, emulator: str, domain_type: str, deadline_seconds: float) -> KvmProbe:
        """Run the guest as a domain of this type, `kvm` or `qemu`."""
        identity = str(uuid.uuid4())
        image, said = (self._directory / f"probe-{identity}.{end}" for end in ("img", "out"))
        image.write_bytes(serial_boot_image())
        said.touch()
        xml = tostring(_domain(identity, emulator, domain_type, image, said), encoding="unicode")
        try:
            with self._connection.use("run the KVM probe") as connection:
                return self._run(connection, xml, said, deadline_seconds)
        finally:
            image.unlink(missing_ok=True)
            said.unlink(missing_ok=True)
            self._connection.close()

    def _run(
        self, connection: Connection, xml: str, said: Path, deadline_seconds: float
    ) -> KvmProbe:
        try:
            domain = connection.createXML(xml, libvirt.VIR_DOMAIN_START_AUTODESTROY)
        except libvirt.libvirtError as error:
            return KvmProbe(
                works=False, message=f"libvirt: ...{str(error.get_error_message())[-230:]}"
            )
        try:
            works = self._await(said, deadline_seconds)
        finally:
            with suppress(libvirt.libvirtError):  # it may have ended by itself
                domain.destroy()
        message = "guest code ran" if works else too_late(deadline_seconds)
        return KvmProbe(works=works, message=message)

    def _await(self, said: Path, deadline_seconds: float) -> bool:
        wait = threading.Event()
        for _ in range(int(deadline_seconds / _POLL_SECONDS)):
            if said.read_bytes().startswith(_SAID):
                return True
            wait.wait(_POLL_SECONDS)
        return False


def _domain(identity: str, emulator: str, domain_type: str, image: Path, said: Path) -> Any:  # noqa: ANN401 - an element
    return E.domain(
        E.name(f"numavm-probe-{identity[:8]}"),
        E.uuid(identity),
        E.memory("16", unit="MiB"),
        E.vcpu("1"),
        E.os(E.type("hvm", arch="x86_64", machine="pc")),
        E.cpu(mode="host-passthrough" if domain_type == "kvm" else "maximum"),
        E.devices(
            E.emulator(emulator),
            E.disk(
                E.driver(name="qemu", type="raw"),
                E.source(file=str(image)),
                E.target(dev="hda", bus="ide"),
                type="file",
                device="disk",
            ),
            E.serial(E.source(path=str(said)), E.target(port="0"), type="file"),
            E.memballoon(model="none"),
        ),
        type=domain_type,
    )
