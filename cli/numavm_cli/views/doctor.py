"""What a host lacks for NumaVM, each with the remedy. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from numavm_agent.topology.readings import CellReading
from numavm_api.base import StatusModel
from numavm_api.numahost import NumaHostStatus
from numavm_api.quantity import GIBIBYTE, format_bytes

_LIBVIRT: Final = (9, 0)
_QEMU: Final = (7, 2)
"""The oldest versions that the suites run on."""
_CONTROLLERS: Final = ("cpuset", "memory")
_STYLES: Final = {"OK": "green", "Note": "yellow", "Problem": "bold red"}


class Level(StrEnum):
    """How much it matters."""

    OK = "OK"
    NOTE = "Note"
    """It works; something is slower, unsafe or not offered."""
    PROBLEM = "Problem"
    """NumaVM cannot do its work."""


class Finding(StatusModel):
    """One thing that was looked at."""

    check: str
    level: Level
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What this machine says of itself."""

    cells: Sequence[CellReading]
    kvm: bool | None
    """None: not probed."""
    kvm_message: str
    libvirt: str | None
    """Its version; None: it does not answer."""
    qemu: str | None
    hypervisor_message: str
    cgroup_controllers: frozenset[str] | None
    """Of cgroup v2; None: it is not mounted as the one hierarchy."""
    iommu_groups: int
    swap: bool
    ksm_across_cells: bool
    """Kernel samepage merging runs, and merges over host cells."""
    numa_balancing: bool
    kubelet: bool


def machine_findings(facts: MachineFacts) -> list[Finding]:
    """Return what this machine has and lacks, in the order in which to mend it."""
    return [
        _kvm(facts),
        _version("libvirt", facts.libvirt, _LIBVIRT, facts.hypervisor_message),
        _version("QEMU", facts.qemu, _QEMU, facts.hypervisor_message),
        _cgroup(facts.cgroup_controllers),
        _cells(facts.cells),
        _huge_pages(facts.cells),
        _iommu(facts.iommu_groups),
        *_habits(facts),
    ]


def host_findings(host: Mapping[str, Any]) -> list[Finding]:
    """Return what the agent of a host has reported as missing."""
    status = NumaHostStatus.model_validate(host.get("status") or {})
    found = [
        Finding(
            check=f"condition {one.type}",
            level=Level.OK if one.status == "True" else Level.PROBLEM,
            message=f"{one.reason}: {one.message}",
        )
        for one in status.conditions
    ]
    if not found:
        message = "its agent has never reported"
        remedy = "kubectl -n numavm-system get pods -o wide; see the log of the agent on that node"
        return [Finding(check="agent", level=Level.PROBLEM, message=message, remedy=remedy)]
    return [*found, *_capabilities(status), *_powers(status)]


def worst(findings: Sequence[Finding]) -> Level:
    """Return the gravest level."""
    levels = {one.level for one in findings}
    return next((one for one in (Level.PROBLEM, Level.NOTE) if one in levels), Level.OK)


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    """Return the findings as a table, remedies below what they mend."""
    table = Table.grid(padding=(0, 2))
    for one in findings:
        text = Text(one.message)
        if one.remedy:
            text.append(f"\n→ {one.remedy}", style="italic")
        table.add_row(
            Text(one.level, style=_STYLES[one.level]), Text(one.check, style="bold"), text
        )
    return table


def _kvm(facts: MachineFacts) -> Finding:
    check = "KVM"
    if facts.kvm is None:
        return Finding(check=check, level=Level.NOTE, message="not probed")
    if facts.kvm:
        return Finding(check=check, level=Level.OK, message="guest code ran")
    remedy = (
        "enable VT-x or AMD-V in the firmware (nested virtualization where this is a guest) and load kvm_intel or "
        "kvm_amd; or set spec.allowEmulation of the NumaHost, many times slower"
    )
    return Finding(check=check, level=Level.PROBLEM, message=facts.kvm_message, remedy=remedy)


def _version(name: str, version: str | None, oldest: tuple[int, int], otherwise: str) -> Finding:
    if version is None:
        remedy = "apt-get install libvirt-daemon-system qemu-system-x86, or as your distribution calls them"
        return Finding(check=name, level=Level.PROBLEM, message=otherwise, remedy=remedy)
    major, minor, *_ = (int(part) for part in version.split("."))
    if (major, minor) < oldest:
        wanted = ".".join(map(str, oldest))
        message = f"{version}; {wanted} is the oldest that NumaVM is tested with"
        return Finding(check=name, level=Level.NOTE, message=message, remedy="update it")
    return Finding(check=name, level=Level.OK, message=version)


def _cgroup(controllers: frozenset[str] | None) -> Finding:
    check = "cgroup v2"
    if controllers is None:
        return Finding(
            check=check,
            level=Level.NOTE,
            message="not the one hierarchy: pages are read from numa_maps only, and nothing is re-homed live",
            remedy="boot with systemd.unified_cgroup_hierarchy=1",
        )
    missing = [one for one in _CONTROLLERS if one not in controllers]
    if missing:
        message = f"controllers {', '.join(missing)} are missing"
        remedy = "take cgroup_disable= off the kernel command line"
        return Finding(check=check, level=Level.NOTE, message=message, remedy=remedy)
    return Finding(check=check, level=Level.OK, message=", ".join(sorted(controllers)))


def _cells(cells: Sequence[CellReading]) -> Finding:
    total = sum(cell.memory.total for cell in cells) / GIBIBYTE
    message = f"{len(cells)} cells, {sum(len(cell.cpus) for cell in cells)} CPUs, {total:.1f} GiB"
    if len(cells) > 1:
        return Finding(check="NUMA", level=Level.OK, message=message)
    return Finding(
        check="NUMA",
        level=Level.NOTE,
        message=f"{message}: there is nothing to choose",
        remedy="switch off node interleaving in the firmware, if this machine has several sockets or dies",
    )


def _huge_pages(cells: Sequence[CellReading]) -> Finding:
    pools = [
        f"cell {cell.id}: {pool.total} of {format_bytes(pool.page_size)} ({pool.free} free)"
        for cell in cells
        for pool in cell.page_pools
        if pool.total
    ]
    if pools:
        return Finding(check="huge pages", level=Level.OK, message="; ".join(pools))
    return Finding(
        check="huge pages",
        level=Level.NOTE,
        message="no pool on any cell: VMs that ask for huge pages find no room",
        remedy="echo N > /sys/devices/system/node/nodeX/hugepages/hugepages-2048kB/nr_hugepages, or hugepages= at boot",
    )


def _iommu(groups: int) -> Finding:
    if groups:
        return Finding(check="IOMMU", level=Level.OK, message=f"{groups} groups")
    return Finding(
        check="IOMMU",
        level=Level.NOTE,
        message="no groups: no host device can be given to a VM",
        remedy="enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on (AMD: on by itself)",
    )


def _habits(facts: MachineFacts) -> Iterator[Finding]:
    """Yield what the kernel is set to do that works against what VMs are promised."""
    if facts.kubelet:
        yield Finding(
            check="kubelet",
            level=Level.NOTE,
            message="runs here: no CPU is handed out until the NumaHost names some",
            remedy="keep CPUs from it by reservedSystemCPUs, and name them in spec.dedicatedCpus of the NumaHost",
        )
    if facts.swap:
        message = "is on: guest memory in base pages may be swapped out"
        yield Finding(check="swap", level=Level.NOTE, message=message, remedy="swapoff --all")
    if facts.ksm_across_cells:
        yield Finding(
            check="samepage merging",
            level=Level.NOTE,
            message="merges pages of different host cells: merged ones are no longer where they were promised",
            remedy="echo 2 > /sys/kernel/mm/ksm/run; echo 0 > /sys/kernel/mm/ksm/merge_across_nodes",
        )
    if facts.numa_balancing:
        message = "automatic NUMA balancing is on: it costs page faults, and moves pages of VMs that are not bound"
        remedy = "sysctl kernel.numa_balancing=0, where every VM is bound"
        yield Finding(check="NUMA balancing", level=Level.NOTE, message=message, remedy=remedy)


def _capabilities(status: NumaHostStatus) -> Iterator[Finding]:
    able = status.capabilities
    if able is None:
        return
    if able.kvm:
        yield Finding(check="KVM", level=Level.OK, message="guest code ran")
    else:
        level = Level.NOTE if able.emulation_allowed else Level.PROBLEM
        remedy = "" if able.emulation_allowed else "mend KVM, or set spec.allowEmulation"
        message = able.kvm_message or "does not work"
        yield Finding(check="KVM", level=level, message=message, remedy=remedy)
    yield _version("libvirt", able.libvirt_version, _LIBVIRT, "")
    yield _version("QEMU", able.qemu_version, _QEMU, "")


def _powers(status: NumaHostStatus) -> Iterator[Finding]:
    directories = status.permitted.directories
    if directories:
        yield Finding(check="directories", level=Level.OK, message=", ".join(directories))
        return
    yield Finding(
        check="directories",
        level=Level.NOTE,
        message="none is permitted: no VM with a disk image or a kernel on the host comes here",
        remedy="name some in spec.permitted.directories of the NumaHost",
    )
