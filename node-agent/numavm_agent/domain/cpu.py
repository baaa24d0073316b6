"""Configurators of CPUs: how many, which model, in which cells, on which host CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.model import Accelerator
from numavm_agent.domain.units import kib
from numavm_agent.domain.xml import Element, element
from numavm_api.cpu import Cpu
from numavm_api.memory import MemoryAccess

HOST_PASSTHROUGH: Final = "host-passthrough"
HOST_MODEL: Final = "host-model"


def vcpus(given: RenderInput) -> Iterator[Element]:
    """All vCPUs are powered on at boot."""
    yield element("vcpu", str(given.effective.vcpus), placement="static")


def pinning(given: RenderInput) -> Iterator[Element]:
    """One pin per vCPU, and the emulator's for the start (see `pins.starting_pins`)."""
    yield element(
        "cputune",
        *(
            element("vcpupin", vcpu=vcpu, cpuset=str(cpus))
            for vcpu, cpus in given.pins.vcpus.items()
        ),
        element("emulatorpin", cpuset=str(given.pins.emulator)),
        *(
            element("iothreadpin", iothread=number, cpuset=str(given.pins.of_io_thread(at)))
            for at, number in enumerate(given.effective.io_threads.ids)
        ),
    )


def model_and_cells(given: RenderInput) -> Iterator[Element]:
    """CPU model, topology and guest cells: libvirt keeps all of it in `<cpu>`."""
    cpu = given.spec.domain.cpu
    yield element(
        "cpu",
        *_named_model(cpu),
        element(
            "topology", sockets=cpu.sockets, dies=cpu.dies, cores=cpu.cores, threads=cpu.threads
        ),
        element("numa", *_guest_cells(given)),
        **_model_attributes(cpu, given.host.accelerator),
    )


def _model_attributes(cpu: Cpu, accelerator: Accelerator) -> dict[str, str]:
    match cpu.model, accelerator:
        case "host-passthrough", Accelerator.KVM:
            return {"mode": HOST_PASSTHROUGH, "check": "none", "migratable": "on"}
        case "host-passthrough", Accelerator.TCG:
            # There is no host CPU to pass through: all that the emulator can do is the nearest.
            return {"mode": "maximum", "check": "none", "migratable": "on"}
        case "host-model", _:
            return {"mode": HOST_MODEL, "check": "partial"}
        case _:
            return {"mode": "custom", "match": "exact", "check": "partial"}


def _named_model(cpu: Cpu) -> Iterator[Element]:
    if cpu.model not in (HOST_PASSTHROUGH, HOST_MODEL):
        yield element("model", cpu.model, fallback="forbid")


def _guest_cells(given: RenderInput) -> Iterator[Element]:
    """Every vCPU up to the maximum is in a cell: libvirt puts others into cell 0 (measured)."""
    # memAccess is said for shared memory only, which is always memfd's: beside another source
    # libvirt takes the word, whatever it says, for a wish to keep guest memory in a file on disk
    # (measured).
    shared = given.effective.backing.access is MemoryAccess.SHARED
    for cell in given.effective.cells:
        yield element(
            "cell",
            id_=cell.id,
            cpus=str(cell.vcpus) if cell.vcpus else None,
            memory=kib(cell.memory),
            unit="KiB",
            memAccess="shared" if shared else None,
        )
