"""This machine as a NumaHost, made by the agent's own reading and reporting."""

from __future__ import annotations

import datetime as dt
import socket
from importlib.metadata import version
from typing import Any

from numavm_agent.libvirt.adapter import LibvirtHypervisor
from numavm_agent.reconcile.host_probe import Qemu
from numavm_agent.reconcile.host_report import HostView, host_status
from numavm_agent.topology.allocatable import OwnResident, report_cells
from numavm_agent.topology.host import read_host
from numavm_agent.topology.kvm import probe_kvm
from numavm_api.base import API_VERSION
from numavm_api.numahost import KIND, NumaHostSpec, NumaHostStatus
from numavm_api.pools import NOBODY, effective_pools


def captured_host(libvirt_uri: str) -> dict[str, Any]:
    """Return this machine as a NumaHost object, with the pools it has by default and no claims.

    Raises:
        NumaVMError: the kernel or libvirt does not answer.
    """
    spec = NumaHostSpec()
    topology = read_host()
    cells = report_cells(topology.cells, spec, OwnResident())
    view = HostView(
        agent_version=version("numavm"),
        generation=1,
        spec=spec,
        topology=topology,
        cells=cells,
        pools=effective_pools(spec, cells),
        others=NOBODY,
        claims=(),
        highest_epoch=0,
        qemu=_qemu(libvirt_uri),
    )
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": socket.gethostname()},
        "spec": spec.to_api(),
        "status": host_status(view, NumaHostStatus(), now=now).to_api(),
    }


def _qemu(libvirt_uri: str) -> Qemu:
    hypervisor = LibvirtHypervisor(libvirt_uri)
    try:
        emulator = hypervisor.capabilities()
        return Qemu(
            libvirt_version=hypervisor.libvirt_version(),
            qemu_version=hypervisor.qemu_version(),
            emulator=emulator,
            kvm=probe_kvm(emulator.emulator),
        )
    finally:
        hypervisor.close()
