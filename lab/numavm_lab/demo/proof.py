"""Where a VM is, three times over: by its status, by the kernel of its host, by the guest itself.

The kernel's and the guest's words are read here anew, with no code of the agent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from numavm_api.cpuset import CpuSet
from numavm_api.quantity import format_bytes
from numavm_lab.controlplane.manifests import kubectl
from numavm_lab.errors import LabError
from numavm_lab.guest import Report, parse_reports
from numavm_lab.hosts import LabHost
from numavm_lab.kernel_view import KernelView, kernel_view
from numavm_lab.stack import Stack

SERIAL_LOGS = "/var/log/libvirt/qemu"


def show_proof(console: Console, stack: Stack, vm: dict[str, Any]) -> None:
    """Print where the VM is, and what the kernel and the guest say of it.

    Raises:
        LabError: the VM is on no host, or its host has no such process.
    """
    metadata, status = vm["metadata"], vm.get("status", {})
    if "placement" not in status:
        raise LabError(f"{metadata['name']} is on no host: {status.get('printableStatus')}")
    host = stack.lab.host(status["nodeName"])
    view = kernel_view(host, metadata["uid"])
    if view is None:
        raise LabError(f"{metadata['name']}: no QEMU process on {host.name}")
    console.print(f"\n[bold]{metadata['name']} is on {host.name}[/bold]")
    console.print(placement_table(status["placement"], view))
    console.print(kernel_lines(view), highlight=False)
    console.print(guest_lines(guest_report(host, metadata["uid"])), highlight=False)
    console.print()
    wide = kubectl(stack.plane, "get", "nvm", "--all-namespaces", "-o", "wide")
    console.print(wide.rstrip(), soft_wrap=True, highlight=False)


def placement_table(placement: dict[str, Any], view: KernelView) -> Table:
    """Return the map guest cell -> host cells, promised beside found."""
    affinity = view.vcpu_affinity()
    table = Table(title="promised, and what the kernel says", title_justify="left")
    for heading in (
        "guest cell",
        "vCPUs",
        "host cells",
        "pCPUs promised",
        "threads allowed on",
        "memory",
    ):
        table.add_column(heading)
    for cell in placement["cells"]:
        vcpus = CpuSet.parse(cell["vcpus"])
        table.add_row(
            str(cell["id"]),
            str(vcpus),
            cell["hostCells"],
            ", ".join(cell.get("pcpus", [])) or "shared",
            ", ".join(str(affinity.get(vcpu, "no thread")) for vcpu in vcpus),
            f"{cell['memory']}, {cell['pageSize']} pages, {cell['mode']}",
        )
    return table


def kernel_lines(view: KernelView) -> str:
    """Return what numa_maps says, policy by policy."""
    lines = [f"kernel (/proc/{view.pid}/numa_maps): resident guest memory"]
    for policy, nodeset in sorted({(one.policy, str(one.nodeset)) for one in view.mappings}):
        alike = [m for m in view.mappings if (m.policy, str(m.nodeset)) == (policy, nodeset)]
        lines.append(f"  {policy}:{nodeset}  " + _amounts(one.resident_bytes for one in alike))
    return "\n".join(lines)


def _amounts(resident: Iterable[dict[int, int]]) -> str:
    total: dict[int, int] = {}
    for by_cell in resident:
        for cell, amount in by_cell.items():
            total[cell] = total.get(cell, 0) + amount
    return ", ".join(f"{format_bytes(total[cell])} on N{cell}" for cell in sorted(total))


def guest_console(host: LabHost, uid: str) -> str:
    """Return what a guest has printed on its serial console; nothing where it printed none."""
    script = f'cat {SERIAL_LOGS}/*_"$1"*serial*.log'
    return host.exec(["sh", "-c", script, "serial", uid[:8]], check=False).stdout


def guest_report(host: LabHost, uid: str) -> Report | None:
    """Return the guest's newest report on its serial console, or None where it made none."""
    reports = parse_reports(guest_console(host, uid))
    return reports[-1] if reports else None


def guest_lines(report: Report | None) -> str:
    """Return what the guest says of its own nodes."""
    if report is None:
        return "guest: no report on its serial console (yet)"
    lines = ["guest (/sys/devices/system/node): what it sees itself"]
    lines += [
        f"  node{node.id}: CPUs {node.cpus}, {node.memory_kib // 1024} MiB, "
        f"distances {node.distances}"
        for node in report.nodes
    ]
    return "\n".join(lines)
