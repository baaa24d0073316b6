"""A VM's one screen, as text."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from numavm_api.conditions import Condition
from numavm_api.quantity import format_bytes
from numavm_cli.views.vm import PlacedView, ResidentRow, ThreadRow, VmView

_YES = {"True": "green", "False": "red", "Unknown": "yellow"}
_BAD_WHEN_TRUE = frozenset({"RestartRequired", "SoftwareEmulation", "Paused"})
"""Conditions of which True is the news."""
_WRAPPED = frozenset({"MESSAGE", "NOTE"})


def vm_screen(vm: VmView) -> RenderableType:
    """Return everything about a VM, most important first; parts about which nothing is known are left out."""
    parts: list[RenderableType] = [_head(vm)]
    if vm.cells:
        parts.append(_titled("Placement and proof", _placement(vm)))
    if vm.devices:
        parts.append(_titled("Host devices", _devices(vm)))
    if vm.resident:
        parts.append(_titled("Memory per host cell, MiB (as numastat -p)", _numastat(vm.resident)))
    if vm.threads:
        parts.append(_titled("vCPU threads (as taskset -cp)", _taskset(vm.threads)))
    if vm.pending:
        parts.append(
            _titled("Pending until a restart", Text("\n".join(f"  {one}" for one in vm.pending)))
        )
    parts.append(_titled("Conditions", _conditions(vm.conditions)))
    if vm.refusals:
        parts.append(_titled("Refused claims", _refusals(vm)))
    if vm.events:
        parts.append(_titled("Events", _events(vm)))
    return Group(*parts)


def _head(vm: VmView) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    rows = (
        ("Name", f"{vm.namespace}/{vm.name}"),
        ("Status", f"{vm.status} (runStrategy {vm.run_strategy})"),
        ("Node", vm.node_name or "none"),
        (
            "Domain",
            ", ".join(filter(None, (vm.domain_state, vm.domain_type, vm.machine))) or "none",
        ),
        ("Started", vm.started_at or "never"),
        ("Claim", f"{vm.placement_id} ({vm.summary})" if vm.placement_id else "none"),
        ("Emulator", _emulator(vm)),
        ("Verified", vm.verified_at or "never"),
    )
    for name, value in rows:
        grid.add_row(Text(name, style="bold"), value)
    return grid


def _emulator(vm: VmView) -> str:
    if vm.placement_id is None:
        return "none"
    cpus = f"CPU {vm.emulator_cpus}" if vm.emulator_cpus else "floats over shared CPUs"
    return f"{cpus}; {format_bytes(vm.overhead or 0)} of its own on host cell {vm.overhead_cell}"


def _placement(vm: VmView) -> Table:
    table = _table("CELL", "VCPUS", "HOST CELLS", "MODE", "MEMORY", "PAGES", "PINNED", "ALIGNED")
    for cell in vm.cells:
        table.add_row(*_placed(cell), _word(cell.pinned), _word(cell.aligned))
    return table


def _placed(cell: PlacedView) -> tuple[str, ...]:
    sizes = format_bytes(cell.memory), format_bytes(cell.page_size)
    return (str(cell.cell), str(cell.vcpus), str(cell.host_cells), cell.mode, *sizes)


def _devices(vm: VmView) -> Table:
    table = _table("NAME", "ADDRESS", "HOST CELL", "GUEST CELL")
    for one in vm.devices:
        host = str(one.host_cell) if one.host_cell >= 0 else "none"
        table.add_row(one.name, one.address, host, "none" if one.cell is None else str(one.cell))
    return table


def _numastat(rows: list[ResidentRow]) -> Table:
    nodes = sorted({node for row in rows for node in row.megabytes})
    table = _table("", *(f"Node {node}" for node in nodes), "Total")
    for row in rows:
        figures = [f"{row.megabytes.get(node, 0):.2f}" for node in nodes]
        table.add_row(row.name, *figures, f"{row.total:.2f}")
    sums = [sum(row.megabytes.get(node, 0) for row in rows) for node in nodes]
    table.add_row("Total", *(f"{one:.2f}" for one in sums), f"{sum(sums):.2f}", style="bold")
    return table


def _taskset(rows: Iterable[ThreadRow]) -> Table:
    table = _table("VCPU", "CELL", "PROMISED", "CELL'S THREADS ALLOWED ON", "CONFIRMED")
    for row in rows:
        promised = str(row.promised) if row.promised is not None else "shared CPUs"
        allowed = str(row.allowed) if row.allowed is not None else "not read"
        table.add_row(str(row.vcpu), str(row.cell), promised, allowed, _word(row.confirmed))
    return table


def _conditions(conditions: Iterable[Condition]) -> RenderableType:
    table = _table("TYPE", "STATUS", "REASON", "SINCE", "MESSAGE")
    for one in conditions:
        style = _style_of(one)
        table.add_row(
            one.type,
            Text(one.status, style=style),
            one.reason,
            one.last_transition_time,
            one.message,
        )
    return table if table.rows else Text("  none: neither operator nor agent has seen it")


def _style_of(condition: Condition) -> str:
    if condition.type in _BAD_WHEN_TRUE:
        return "yellow" if condition.status == "True" else ""
    return _YES.get(condition.status, "")


def _refusals(vm: VmView) -> Table:
    table = _table("HOST", "REASON", "TIMES", "LAST", "MESSAGE")
    for one in vm.refusals:
        table.add_row(one.node_name, one.reason, str(one.count), one.time, one.message)
    return table


def _events(vm: VmView) -> Table:
    table = _table("LAST", "TYPE", "REASON", "TIMES", "NOTE")
    for one in vm.events:
        table.add_row(one.time, one.type, one.reason, str(one.count), one.note)
    return table


def _word(confirmed: bool | None) -> Text:  # noqa: FBT001 - a value, no switch
    if confirmed is None:
        return Text("not read", style="yellow")
    return Text("yes", style="green") if confirmed else Text("NO", style="bold red")


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading not in _WRAPPED)
    return table


def _titled(title: str, body: RenderableType) -> RenderableType:
    return Group(Text(), Text(title, style="bold underline"), body)
