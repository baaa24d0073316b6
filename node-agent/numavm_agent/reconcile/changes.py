"""What a change of the spec needs, field by field: nothing, a restart, or not even that. Pure.

The one place that decides it: the agent acts on it, RestartRequired lists it, `numavm diff` shows it before anything is
applied. Both sides are compared with their defaults, so that an upgrade of NumaVM changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from numavm_agent.reconcile.device_changes import device_memory, with_device_defaults
from numavm_agent.reconcile.module_changes import module_changes, modules_as_wanted
from numavm_api.backing import Switch
from numavm_api.balloon import Balloon
from numavm_api.cpu import CellDistances, GuestNuma, HostBinding
from numavm_api.cpuset import CpuSet
from numavm_api.derived import settled
from numavm_api.effective import EffectiveCell, EffectiveVM, effective
from numavm_api.growth import as_boot_memory, as_modules, grown_cells
from numavm_api.hmat import Bandwidth, Interconnects, Latency
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.quantity import BASE_PAGE, format_bytes

TAKEN_UP: Final = frozenset(
    {
        "runStrategy",
        "terminationGracePeriodSeconds",
        "restartToken",
        "priorityClassName",
        "driftPolicy",
    }
)
"""Fields of the spec that say what NumaVM does, not what the domain is: they hold from the next turn of the loop on."""
_NOTHING: Final = "nothing"
_NAMED_BY: Final = ("name", "id")
"""What an entry of a list is called by, so that re-ordering a list is no change."""
_OF_A_CELL: Final = ("id", "cpus", "memory")
"""What a cell has of its own; derived cells have the rest in common, said of the whole guest."""
_HOST_CELLS: Final = re.compile(r"domain\.cpu\.numa\.cells\[\d+\]\.hostBinding\.hostCells")
_PINS: Final = "domain.cpu.pinning.vcpus."
_BALLOON: Final = frozenset(
    {"domain.memory.balloon.target", "domain.memory.balloon.statsPeriodSeconds"}
)
_VCPU_FIELDS: Final = ("sockets", "max_sockets", "vcpus", "online_vcpus")
_VCPUS: Final = frozenset({"domain.cpu.sockets", "domain.cpu.onlineVcpus"})
NO_CPUS: Final = CpuSet()
_EMULATOR_PIN: Final = "domain.cpu.pinning.emulator"


class Effect(StrEnum):
    """When a change is applied."""

    LIVE = "Live"
    """On the running VM."""
    RESTART = "Restart"
    """At the next start."""
    REFUSED = "Refused"
    """Not at all: the spec is not accepted, or there is no room."""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field whose value differs."""

    path: str
    """`spec.domain.memory.guest`."""
    old: str
    new: str
    effect: Effect
    why: str = ""
    """Why it is not applied live, where that depends on more than the field."""

    def __str__(self) -> str:
        reason = f" ({self.why})" if self.why else ""
        return f"{self.path}: {self.old} -> {self.new}{reason}"


def field_changes(
    running: NumaVMSpec,
    wanted: NumaVMSpec,
    *,
    why_fixed: str | None = None,
    removable: CpuSet = NO_CPUS,
) -> list[FieldChange]:
    """Return every field that differs, in the order of the fields' paths.

    Args:
        running: The spec that the domain was built from. The number of derived cells must be said in both (`settled`).
        wanted: The spec as it is to be.
        why_fixed: Why memory of the running VM cannot be moved; None: it can.
        removable: vCPUs that QEMU can take out.
    """
    old, new = dict(_leaves(as_boot_memory(running))), dict(_leaves(wanted))
    grown = _grown_paths(running, wanted)
    wished = as_modules(running, wanted)
    isolated = wanted.domain.cpu.isolate_emulator_thread
    switches = switches_vcpus(running, wanted, removable)
    changed = module_changes(running, wished).names
    modules = tuple(f"domain.devices.memory[{name}]." for name in changed)
    has_balloon = None not in (running.domain.memory.balloon, wanted.domain.memory.balloon)
    return [
        _change(
            path,
            old.get(path, _NOTHING),
            new.get(path, _NOTHING),
            why_fixed,
            emulator_isolated=isolated,
            live_below=(_PINS, *modules),
            live_paths=grown
            | (_VCPUS if switches else frozenset())
            | (_BALLOON if has_balloon else frozenset()),
        )
        for path in sorted(old.keys() | new.keys())
        if old.get(path, _NOTHING) != new.get(path, _NOTHING)
    ]


def _grown_paths(running: NumaVMSpec, wanted: NumaVMSpec) -> frozenset[str]:
    """Return the fields of boot memory that follow by modules."""
    grown = grown_cells(running, wanted)
    now = {cell.id: cell.memory for cell in effective(as_boot_memory(running)).cells}
    changed = {
        cell.id for cell in effective(wanted).cells if cell.memory != now.get(cell.id, cell.memory)
    }
    paths = {f"domain.cpu.numa.cells[{cell}].memory" for cell in grown}
    return frozenset(paths | ({"domain.memory.guest"} if changed <= grown else set()))


def pending_changes(
    running: NumaVMSpec,
    wanted: NumaVMSpec,
    *,
    why_fixed: str | None = None,
    removable: CpuSet = NO_CPUS,
) -> list[str]:
    """Return every field that waits for a restart, as `spec.path: old -> new`."""
    changes = field_changes(running, wanted, why_fixed=why_fixed, removable=removable)
    return [str(change) for change in changes if change.effect is Effect.RESTART]


def applied_live(
    running: NumaVMSpec,
    wanted: NumaVMSpec,
    placement: Placement,
    *,
    removable: CpuSet | None = NO_CPUS,
) -> NumaVMSpec:
    """Return `running` with what of `wanted` holds under a claim without a restart.

    Balloon target and period of its figures. Host cells of guest cells, where the claim has them there, written with
    each cell's own binding, which goes before the whole guest's. CPUs chosen by hand, where the claim's are among them.
    vCPUs and memory modules, where the claim has room for them.

    Args:
        running: The spec that the domain has.
        wanted: The spec as it is to be.
        placement: The claim.
        removable: vCPUs that QEMU can take out; None: nothing is to be taken from the guest, no module either.
    """
    wanted = as_modules(settled(running, placement), settled(wanted, placement))
    cpu = running.domain.cpu
    memory = running.domain.memory
    numa = _bound_as_wanted(running, wanted, placement)
    pinning = wanted.domain.cpu.pinning if _allows(wanted, placement) else cpu.pinning
    balloon = _asked_as_wanted(running, wanted)
    cpus = _on_as_wanted(running, wanted, placement, removable)
    changed = cpu.model_copy(update={"numa": numa, "pinning": pinning, **cpus})
    modules = modules_as_wanted(running, wanted, placement, removes=removable is not None)
    devices = running.domain.devices
    if modules != devices.memory:
        devices = devices.model_copy(update={"memory": modules})
    if (changed, balloon, devices) == (cpu, memory.balloon, running.domain.devices):
        return running
    update = {
        "devices": devices,
        "cpu": changed,
        "memory": memory.model_copy(update={"balloon": balloon}),
    }
    return running.model_copy(update={"domain": running.domain.model_copy(update=update)})


def switches_vcpus(running: NumaVMSpec, wanted: NumaVMSpec, removable: CpuSet) -> bool:
    """Tell whether the same guest is to have others of its vCPUs on, and those that go can be taken out."""
    now, then = running.domain.cpu, wanted.domain.cpu
    same = (now.max_vcpus, now.dies, now.cores, now.threads) == (
        then.max_vcpus,
        then.dies,
        then.cores,
        then.threads,
    )
    differs = now.boot_vcpus != then.boot_vcpus
    return same and differs and now.boot_vcpus - then.boot_vcpus <= removable


def _on_as_wanted(
    running: NumaVMSpec, wanted: NumaVMSpec, placement: Placement, removable: CpuSet | None
) -> dict[str, object]:
    """Return what says which vCPUs are on, where the claim has room for all that are wanted."""
    then = wanted.domain.cpu
    held = CpuSet.union_of(cell.room for cell in placement.cells)
    switches = switches_vcpus(running, wanted, removable or NO_CPUS)
    if not switches or not then.boot_vcpus <= held:
        return {}
    return {name: getattr(then, name) for name in _VCPU_FIELDS}


def _asked_as_wanted(running: NumaVMSpec, wanted: NumaVMSpec) -> Balloon | None:
    """Return the running guest's balloon with the target and the period that are wanted; no device comes or goes."""
    now, then = running.domain.memory.balloon, wanted.domain.memory.balloon
    if now is None or then is None:
        return now
    names = ("target", "stats_period_seconds")
    return now.model_copy(update={name: getattr(then, name) for name in names})


def _bound_as_wanted(
    running: NumaVMSpec, wanted: NumaVMSpec, placement: Placement
) -> GuestNuma | None:
    numa = running.domain.cpu.numa
    if numa is None or not numa.cells:
        return numa
    placed = {cell.id: cell.host_cells for cell in placement.cells}
    now = {cell.id: cell for cell in effective(running).cells}
    then = {cell.id: cell.host_cells for cell in effective(wanted).cells}
    bound = {
        cell.id: then[cell.id]
        for cell in now.values()
        if cell.id in then
        and then[cell.id] != cell.host_cells
        and then[cell.id] in (None, placed.get(cell.id))
    }
    if not bound:
        return numa
    whole = numa.host_binding
    if whole is not None:
        whole = whole.model_copy(update={"host_cells": None})
    cells = [
        cell.model_copy(
            update={
                "host_binding": HostBinding(
                    host_cells=bound.get(cell.id, now[cell.id].host_cells), mode=now[cell.id].mode
                )
            }
        )
        for cell in numa.cells
    ]
    return numa.model_copy(update={"cells": cells, "host_binding": whole})


def _allows(wanted: NumaVMSpec, placement: Placement) -> bool:
    """Tell whether the CPUs of a claim are among those that the spec allows by hand."""
    vm = effective(wanted)
    own = {
        vcpu: pcpus
        for cell in placement.cells
        for vcpu, pcpus in zip(cell.vcpus, cell.pcpus, strict=False)
    }
    allowed = vm.vcpu_candidates
    emulator = vm.emulator_candidates
    return all(pcpus <= allowed[vcpu] for vcpu, pcpus in own.items() if vcpu in allowed) and (
        emulator is None or placement.emulator_cpus <= emulator
    )


def _change(
    path: str,
    old: str,
    new: str,
    why_fixed: str | None,
    *,
    emulator_isolated: bool,
    live_below: tuple[str, ...],
    live_paths: frozenset[str],
) -> FieldChange:
    effect, why = Effect.RESTART, ""
    re_pins = path == _EMULATOR_PIN and not emulator_isolated
    re_pins = re_pins or path.startswith(live_below)
    if path.partition(".")[0] in TAKEN_UP or re_pins or path in live_paths:
        effect = Effect.LIVE
    elif _HOST_CELLS.fullmatch(path):
        # Taken away, the binding leaves the choice to NumaVM: the VM may stay where it is.
        stays = new == _NOTHING
        effect = Effect.LIVE if why_fixed is None or stays else Effect.RESTART
        why = "" if effect is Effect.LIVE else why_fixed or ""
    return FieldChange(f"spec.{path}", old, new, effect, why)


def _leaves(spec: NumaVMSpec) -> Iterator[tuple[str, str]]:
    for field, value in _with_defaults(spec).items():
        yield from _flatten(field, value)


def _with_defaults(spec: NumaVMSpec) -> dict[str, Any]:
    """Return the spec with the defaults of its models and those across fields: a default written out is no change."""
    document = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    vm = effective(spec)
    backing = vm.backing
    document["domain"]["memory"] = {
        **device_memory(spec, vm),
        "guest": format_bytes(vm.memory),
        "backing": {
            **document["domain"]["memory"]["backing"],
            "source": backing.source,
            "locked": backing.locked,
        },
    }
    with_device_defaults(document["domain"], spec, vm)
    ways = ("maxSockets", "vcpus", "onlineVcpus", "pinning", "realtime")
    cpu = {key: part for key, part in document["domain"]["cpu"].items() if key not in ways}
    document["domain"]["cpu"] = cpu | _cpus(spec, vm)
    if vm.cells_declared:
        document["domain"]["cpu"]["numa"] = _numa(spec, vm)
    elif vm.cells[0].page_size != BASE_PAGE:
        document["domain"]["memory"]["hugepages"] = _hugepages(vm.cells[0])
    return document


def _cpus(spec: NumaVMSpec, vm: EffectiveVM) -> dict[str, Any]:
    """Return the parts of `cpu` that can be said in several ways, each in one."""
    cpu = spec.domain.cpu
    document: dict[str, Any] = {}
    document["maxSockets"] = cpu.all_sockets
    if cpu.all_sockets == cpu.sockets and vm.online_vcpus is not None:
        document["onlineVcpus"] = str(vm.online_vcpus)
    if cpu.pinning is not None:
        pins = {str(vcpu): str(cpus) for vcpu, cpus in vm.vcpu_candidates.items()}
        emulator = {"emulator": str(vm.emulator_candidates)} if vm.emulator_candidates else {}
        threads = {str(number): str(cpus) for number, cpus in vm.io_thread_candidates.items()}
        document["pinning"] = {"vcpus": pins, "ioThreads": threads, **emulator}
    if vm.realtime is not None:
        document["realtime"] = {"mask": str(vm.realtime.vcpus), "priority": vm.realtime.priority}
    return document


def _numa(spec: NumaVMSpec, vm: EffectiveVM) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if vm.derived_cells is not None:
        whole = _cell(vm.cells[0])
        document = {name: part for name, part in whole.items() if name not in _OF_A_CELL}
        document["guestMappingPassthrough"] = {"cells": vm.derived_cells.count or "the fewest"}
    else:
        document["cells"] = [_cell(cell) for cell in vm.cells]
        if vm.distances_from_host:
            document["distances"] = CellDistances.FROM_HOST
    if vm.distances is not None:
        document["distances"] = {f"{a}->{b}": value for (a, b), value in vm.distances.items()}
    numa = spec.domain.cpu.numa
    if numa is not None and numa.interconnects is not None:
        document["interconnects"] = _interconnects(numa.interconnects)
    return document


def _interconnects(links: Interconnects) -> dict[str, Any]:
    """Return each figure by what it is of: their order means nothing."""
    return {
        name: {_accesses(figure): figure.model_dump(mode="json") for figure in figures}
        for name, figures in (("latencies", links.latencies), ("bandwidths", links.bandwidths))
    }


def _accesses(figure: Latency | Bandwidth) -> str:
    level = f" level {figure.cache_level}" if figure.cache_level else ""
    return f"{figure.initiator}->{figure.target} {figure.type}{level}"


def _cell(cell: EffectiveCell) -> dict[str, Any]:
    binding: dict[str, str] = {"mode": cell.mode}
    if cell.host_cells is not None:
        binding |= {"hostCells": str(cell.host_cells)}
    document: dict[str, Any] = {
        "id": cell.id,
        "cpus": str(cell.vcpus) or "none",
        "memory": format_bytes(cell.memory),
        "hostBinding": binding,
        "access": cell.access,
        "discard": Switch.ENABLED if cell.discard else Switch.DISABLED,
        "caches": {
            str(cache.level): cache.model_dump(mode="json", by_alias=True) for cache in cell.caches
        },
    }
    if cell.cell_class is not None:
        document["hostCellClass"] = cell.cell_class
    if cell.page_size != BASE_PAGE:
        document["hugepages"] = _hugepages(cell)
    return document


def _hugepages(cell: EffectiveCell) -> dict[str, str]:
    sizes = {"pageSize": format_bytes(cell.page_size)}
    if cell.fallback_page_sizes:
        sizes["fallback"] = ", ".join(map(format_bytes, cell.fallback_page_sizes))
    return sizes


def _flatten(path: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - JSON is any value
    match value:
        case dict():
            for key, inner in value.items():
                yield from _flatten(f"{path}.{key}", inner)
        case list():
            for index, inner in enumerate(value):
                yield from _flatten(f"{path}[{_name_of(inner, index)}]", inner)
        case _:
            yield path, str(value)


def _name_of(entry: Any, index: int) -> str:  # noqa: ANN401 - JSON is any value
    if isinstance(entry, dict):
        for key in _NAMED_BY:
            if key in entry:
                return str(entry[key])
    return str(index)
