"""Configurators of CPUs: how many, which model, in which cells, on which host CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_agent.domain import cells
from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.model import Accelerator
from numavm_agent.domain.xml import Element, element
from numavm_api.cpu import Cpu
from numavm_api.cpuset import CpuSet
from numavm_api.pinning import Tuning

HOST_PASSTHROUGH: Final = "host-passthrough"
HOST_MODEL: Final = "host-model"


def vcpus(given: RenderInput) -> Iterator[Element]:
    """The most vCPUs there can be, and those powered on at boot.

    libvirt's `current` means the first so many; others are named one by one, where QEMU boots with
    the leading run and libvirt plugs the rest before the guest runs.
    """
    vm = given.effective
    online = vm.boot_vcpus
    yield element(
        "vcpu",
        str(vm.vcpus),
        placement="static",
        current=len(online) if len(online) < vm.vcpus else None,
    )
    leading = _leading_run(online)
    if leading < len(online):
        yield element("vcpus", *(_vcpu(vcpu, online, leading) for vcpu in range(vm.vcpus)))


def pinning(given: RenderInput) -> Iterator[Element]:
    """Weight and quota, a pin per vCPU, the emulator's for the start, realtime scheduling."""
    tuning = given.spec.domain.cpu.tuning or Tuning()
    yield element(
        "cputune",
        _number("shares", tuning.shares),
        _number("period", tuning.period_microseconds),
        _number("quota", tuning.quota_microseconds),
        *(
            element("vcpupin", vcpu=vcpu, cpuset=str(cpus))
            for vcpu, cpus in given.pins.vcpus.items()
        ),
        element("emulatorpin", cpuset=str(given.pins.emulator)),
        *(
            element("iothreadpin", iothread=number, cpuset=str(given.pins.of_io_thread(at)))
            for at, number in enumerate(given.effective.io_threads.ids)
        ),
        _realtime(given),
    )


def model_and_cells(given: RenderInput) -> Iterator[Element]:
    """CPU model, topology and guest cells: libvirt keeps all of it in `<cpu>`."""
    cpu = given.spec.domain.cpu
    yield element(
        "cpu",
        *_named_model(cpu),
        element(
            "topology",
            sockets=cpu.all_sockets,
            dies=cpu.dies,
            cores=cpu.cores,
            threads=cpu.threads,
        ),
        element("cache", level=cpu.cache.level, mode=cpu.cache.mode.value) if cpu.cache else None,
        *(
            element("feature", policy=feature.policy.value, name=feature.name)
            for feature in sorted(cpu.features, key=lambda feature: feature.name)
        ),
        cells.numa(given),
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


def _leading_run(online: CpuSet) -> int:
    """Return how many vCPUs from 0 on are on without a gap."""
    return next(vcpu for vcpu in range(len(online) + 1) if vcpu not in online)


def _vcpu(vcpu: int, online: CpuSet, leading: int) -> Element:
    """Return a vCPU by itself; QEMU boots with the first ones only, which then cannot be unplugged."""
    return element(
        "vcpu",
        id_=vcpu,
        enabled="yes" if vcpu in online else "no",
        hotpluggable="no" if vcpu < leading else "yes",
    )


def _realtime(given: RenderInput) -> Element | None:
    realtime = given.effective.realtime
    if realtime is None:
        return None
    return element(
        "vcpusched", vcpus=str(realtime.vcpus), scheduler="fifo", priority=realtime.priority
    )


def _number(tag: str, value: int | None) -> Element | None:
    return None if value is None else element(tag, str(value))
