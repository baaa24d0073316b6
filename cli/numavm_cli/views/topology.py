"""A host's map as text: CPUs by core with their owners' letters, memory as bars, devices. Pure.

Each VM of a host has a letter and a colour; without colours the letters alone tell everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from numavm_api.cpuset import CpuSet
from numavm_api.quantity import BASE_PAGE, format_bytes
from numavm_cli.views.host import CellView, CpuUse, CpuView, HostView, PagesView

_COLOURS: Final = (
    "bright_cyan",
    "bright_magenta",
    "bright_yellow",
    "bright_green",
    "bright_blue",
    "bright_red",
    "cyan",
    "magenta",
    "yellow",
    "green",
)
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BAR_WIDTH: Final = 32
_ROLE: Final = {CpuUse.EMULATOR: "e", CpuUse.IO_THREAD: "io", CpuUse.KEPT_FREE: "-"}
_POOLS: Final = {
    CpuUse.FREE: (".", "free", "default"),
    CpuUse.SHARED: ("~", "shared pool", "blue"),
    CpuUse.HOUSEKEEPING: ("h", "housekeeping", "dim"),
    CpuUse.FOREIGN: ("x", "taken by others", "red"),
    CpuUse.UNUSED: ("_", "in no pool", "dim"),
}
"""How a CPU that no VM holds is shown, and what that means."""


def host_map(host: HostView) -> RenderableType:
    """Return the map of one host."""
    marks = _marks(host)
    heading = Text(f"{host.name}  ", style="bold")
    heading.append(
        f"Ready={host.ready} ({host.reason})", style="green" if host.ready == "True" else "red"
    )
    parts: list[RenderableType] = [heading, *(_cell(cell, marks) for cell in host.cells)]
    parts.append(_legend(host, marks))
    if host.devices:
        parts.append(_devices(host, marks))
    return Group(*parts, Text())


def bar(page: PagesView, width: int = _BAR_WIDTH) -> str:
    """Return a bar of what may be handed out: held by VMs, taken by nobody, out of reach.

    A cell whose `allocatable` is less than what is held shows all of it as held.
    """
    total = max(page.total, 1)
    held = min(width, -(-page.held * width // total))
    offered = max(held, min(width, page.allocatable * width // total))
    return "█" * held + "░" * (offered - held) + "·" * (width - offered)


def _marks(host: HostView) -> dict[str, tuple[str, str]]:
    """Return VM -> its letter and colour; past Z: A1, B1."""
    return {
        vm.name: (
            _LETTERS[index % 26] + (str(index // 26) if index >= len(_LETTERS) else ""),
            _COLOURS[index % len(_COLOURS)],
        )
        for index, vm in enumerate(host.vms)
    }


def _cell(cell: CellView, marks: Mapping[str, tuple[str, str]]) -> RenderableType:
    distances = " ".join(f"{other}:{value}" for other, value in sorted(cell.distances.items()))
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    grid.add_row(f"  cell {cell.id}", Text(f"distances {distances}", style="dim"))
    if cell.cpus:
        grid.add_row("  CPUs", _cpus(cell.cpus, marks))
    else:
        grid.add_row("  CPUs", Text("none: memory only", style="dim"))
    for page in cell.pages:
        grid.add_row(f"  {_size_of(page)}", _amounts(page))
    if cell.floating:
        grid.add_row("  float", _floating(cell.floating, marks))
    return grid


def _size_of(page: PagesView) -> str:
    return "memory" if page.page_size == BASE_PAGE else format_bytes(page.page_size)


def _cpus(cpus: Sequence[CpuView], marks: Mapping[str, tuple[str, str]]) -> Text:
    """Return the CPUs, threads of a core in one pair of brackets, wrapped between cores only."""
    text = Text()
    for core in _by_core(cpus):
        inner = Text("[")
        for index, cpu in enumerate(core):
            inner.append("\u00a0" if index else "")
            inner.append_text(_cpu(cpu, marks))
        inner.append("]")
        text.append_text(inner).append(" ")
    return text


def _by_core(cpus: Sequence[CpuView]) -> Iterator[list[CpuView]]:
    cores: dict[CpuSet, list[CpuView]] = {}
    for cpu in cpus:
        cores.setdefault(cpu.siblings, []).append(cpu)
    yield from cores.values()


def _cpu(cpu: CpuView, marks: Mapping[str, tuple[str, str]]) -> Text:
    text = Text(f"{cpu.id}:", style="dim")
    if cpu.vm is None:
        sign, _, style = _POOLS[cpu.use]
        return text.append(sign, style=style)
    letter, colour = marks[cpu.vm]
    role = str(cpu.vcpu) if cpu.vcpu is not None else _ROLE.get(cpu.use, "")
    return text.append(f"{letter}{role}", style=f"bold {colour}")


def _amounts(page: PagesView) -> Text:
    text = Text(bar(page), style="cyan")
    words = (
        f" {human(page.held)} held, {human(max(0, page.allocatable - page.held))} to give"
        f" of {human(page.total)}"
    )
    return text.append(words, style="default")


def human(amount: int) -> str:
    """Return an amount of memory for people, rounded to one decimal: `1.5Gi`."""
    for suffix, size in (("Ti", 1024**4), ("Gi", 1024**3), ("Mi", 1024**2), ("Ki", 1024)):
        if amount >= size:
            return f"{amount / size:.1f}".removesuffix(".0") + suffix
    return str(amount)


def _floating(floating: Mapping[str, int], marks: Mapping[str, tuple[str, str]]) -> Text:
    text = Text()
    for vm, count in sorted(floating.items()):
        letter, colour = marks[vm]
        text.append(f"{letter} {count} vCPU  ", style=colour)
    return text


def _legend(host: HostView, marks: Mapping[str, tuple[str, str]]) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for vm in host.vms:
        letter, colour = marks[vm.name]
        state = (
            "orphan: no such NumaVM"
            if vm.orphan
            else ""
            if vm.running
            else "claimed, not reported yet"
        )
        table.add_row(
            Text(f"  {letter}", style=f"bold {colour}"),
            vm.name,
            vm.summary,
            vm.cpu_placement,
            state,
        )
    used = {cpu.use for cell in host.cells for cpu in cell.cpus}
    signs = [f"{sign} {meaning}" for use, (sign, meaning, _) in _POOLS.items() if use in used]
    roles = "after a letter: vCPU number, e emulator, io I/O thread, - kept free"
    note = "  " + ", ".join([*signs, *([roles] if host.vms else [])])
    return Group(table, Text(note, style="dim"))


def _devices(host: HostView, marks: Mapping[str, tuple[str, str]]) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for device in host.devices:
        cell = f"cell {device.cell}" if device.cell >= 0 else "no cell"
        group = (
            f"IOMMU group {device.iommu_group}"
            if device.iommu_group is not None
            else "no IOMMU group"
        )
        table.add_row(
            "  PCI",
            device.address,
            cell,
            f"{device.vendor}:{device.device}",
            f"class {device.class_code}",
            group,
            _holder(device.vm, marks),
        )
    return table


def _holder(vm: str | None, marks: Mapping[str, tuple[str, str]]) -> Text:
    if vm is None:
        return Text()
    letter, colour = marks[vm]
    return Text(f"{letter} {vm}", style=colour)
