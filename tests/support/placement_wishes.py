"""Everything else that a VM can ask for, drawn at random on top of `placement_random`, and hosts that have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from numavm_api.backing import Allocation
from numavm_api.cpuset import CpuSet
from numavm_api.effective import (
    DerivedCells,
    EffectiveCell,
    EffectiveHostDevice,
    EffectiveVM,
)
from numavm_api.effective_iothreads import EffectiveIoThreads
from numavm_api.effective_modules import EffectiveModule, ModuleKind
from numavm_api.hmat import HostCellClass
from numavm_api.host_devices import NumaAffinity
from numavm_api.iothreads import IoThread
from numavm_api.numavm import LastLevelCache
from numavm_api.placement import PlacedDevice, Placement
from numavm_api.quantity import BASE_PAGE, GIBIBYTE, MEBIBYTE, Bytes
from support.placement_rules import whole_pages

PAGES = (Bytes(4096), Bytes(2 * MEBIBYTE), Bytes(GIBIBYTE))
KINDS = (("8086", "10d3"), ("10de", "2330"))
Hosts = list[dict[str, Any]]


def roomy(random: Random, host: dict[str, Any]) -> dict[str, Any]:
    """Take the dullest reasons for a refusal off a host, so that the wishes decide."""
    host["status"]["capabilities"] |= {"kvm": True, "emulationAllowed": True}
    for cell in host["status"]["cells"]:
        cell["memory"] = dict.fromkeys(("total", "free", "allocatable"), 4 * GIBIBYTE)
        cell["hugepages"] = [
            {"pageSize": size, "total": pages, "free": pages, "allocatable": pages}
            for size, pages in (("2Mi", random.choice([64, 512])), ("1Gi", random.choice([0, 2])))
        ]
    return host


def with_devices(random: Random, host: dict[str, Any]) -> dict[str, Any]:
    """Give a host a few PCI devices, in cells, in none (-1), some of them in one IOMMU group."""
    ids = [cell["id"] for cell in host["status"]["cells"]]
    devices = []
    for number in range(random.choice([0, 2, 3, 4])):
        vendor, device = random.choice(KINDS)
        devices.append(
            {
                "address": f"0000:{number:02x}:00.0",
                "cell": random.choice([*ids, -1]),
                "vendor": vendor,
                "device": device,
                "class": "020000",
            }
            | random.choice([{}, {"iommuGroup": random.randint(1, 3)}])
        )
    for at, cell in enumerate(host["status"]["cells"]):
        for cpu in cell["cpus"]:
            cpu["socket"] = at // 2
    host["status"]["pciDevices"] = devices
    permitted = [{"vendor": vendor, "device": device} for vendor, device in KINDS]
    if random.random() < 0.2:
        permitted = [{"address": "0000:00:00.0"}, *permitted[1:]]
    host["status"]["permitted"] = {**host["status"].get("permitted", {}), "pciDevices": permitted}
    return host


def with_held_devices(
    random: Random, host: dict[str, Any], claims: list[Placement]
) -> list[Placement]:
    """Let some of the claims hold devices."""
    free = [device["address"] for device in host["status"]["pciDevices"]]
    found = []
    for claim in claims:
        devices = []
        if free and random.random() < 0.4:
            address = free.pop(random.randrange(len(free)))
            devices.append(PlacedDevice(name="held", address=address, host_cell=-1))
        found.append(claim.model_copy(update={"devices": devices}))
    return found


def with_wishes(random: Random, vm: EffectiveVM, hosts: Hosts) -> EffectiveVM:
    """Return the VM with one or two more wishes."""
    for wish in random.sample(WISHES, random.choice([1, 1, 2])):
        vm = wish(random, vm, hosts)
    return vm


def _pinned(random: Random, vm: EffectiveVM, hosts: Hosts) -> EffectiveVM:
    cpus = _cpus(hosts)
    if not cpus or vm.vcpus > 5:
        return vm
    if random.random() < 0.5:
        cpus = random.choice([one for one in _cpus_by_cell(hosts) if one])
    some = random.sample(range(vm.vcpus), random.randint(1, vm.vcpus))
    one = random.sample(cpus, random.randint(min(len(cpus), 3), min(len(cpus), 6)))
    same = random.random() < 0.5
    pins = {
        vcpu: CpuSet.of(
            *(one if same else random.sample(cpus, random.randint(1, min(len(cpus), 4))))
        )
        for vcpu in some
    }
    return replace(vm, vcpu_candidates=pins)


def _emulator(random: Random, vm: EffectiveVM, hosts: Hosts) -> EffectiveVM:
    cpus = _cpus(hosts)
    if not cpus or vm.vcpus > 5:
        return vm
    return replace(
        vm,
        emulator_candidates=CpuSet.of(*random.sample(cpus, random.randint(1, min(len(cpus), 4)))),
    )


def _io_threads(random: Random, vm: EffectiveVM, hosts: Hosts) -> EffectiveVM:
    if not vm.dedicated:
        return vm
    count = random.randint(1, 3)
    cpus = _cpus(hosts)
    pins = {}
    if cpus and random.random() < 0.4:
        pins = {random.randint(1, count): CpuSet.of(*random.sample(cpus, min(len(cpus), 4)))}
    return replace(
        vm,
        dedicated_io_threads=count,
        io_threads=EffectiveIoThreads(
            tuple(IoThread(id=at + 1) for at in range(count)), dedicated=True
        ),
        io_thread_candidates=pins,
    )


def _whole_caches(_random: Random, vm: EffectiveVM, _: Hosts) -> EffectiveVM:
    return replace(vm, last_level_cache=LastLevelCache.WHOLE) if vm.dedicated else vm


def _page_sizes(random: Random, vm: EffectiveVM, _: Hosts) -> EffectiveVM:
    def fall_back(cell: EffectiveCell) -> EffectiveCell:
        others = [size for size in PAGES if size != cell.page_size]
        return replace(cell, fallback_page_sizes=tuple(random.sample(others, random.randint(0, 2))))

    return replace(vm, cells=tuple(fall_back(cell) for cell in vm.cells))


def _devices(random: Random, vm: EffectiveVM, _: Hosts) -> EffectiveVM:
    def draw(number: int) -> EffectiveHostDevice:
        named = random.random() < 0.3
        addresses = {f"0000:{random.randint(0, 2):02x}:00.0" for _ in range(2)} if named else ()
        return EffectiveHostDevice(
            name=f"device-{number}",
            addresses=frozenset(addresses),
            selector=None if named else random.choice(KINDS),
            cell=random.choice([None, *(cell.id for cell in vm.cells)]),
            affinity=random.choice(list(NumaAffinity)),
        )

    return replace(vm, host_devices=tuple(draw(at) for at in range(random.choice([1, 1, 2, 3]))))


def _derived(random: Random, vm: EffectiveVM, hosts: Hosts) -> EffectiveVM:
    if vm.cells_declared:
        return vm
    cores = vm.vcpus // vm.threads_per_core
    count = random.choice([None, None, random.randint(1, min(cores, 4))])
    cell = vm.cells[0]
    ids = [cell["id"] for host in hosts for cell in host["status"]["cells"]]
    if random.random() < 0.3:
        cell = replace(cell, host_cells=CpuSet.of(*random.sample(ids, random.randint(1, len(ids)))))
    made = replace(vm, cells=(cell,), derived_cells=DerivedCells(count))
    return _with_stick(made, cell.plugged) if cell.plugged else made


def _maximum(random: Random, vm: EffectiveVM, _: Hosts) -> EffectiveVM:
    on = random.sample(range(vm.vcpus), random.randint(1, vm.vcpus))
    more = random.choice([None, 16 * MEBIBYTE, 256 * MEBIBYTE])
    return replace(
        vm,
        online_vcpus=CpuSet.of(*on),
        reserve_maximum=random.random() < 0.5,
        max_memory=None if more is None else Bytes(vm.memory + more),
    )


def _plugged(random: Random, vm: EffectiveVM, _: Hosts) -> EffectiveVM:
    at = random.randrange(len(vm.cells))
    more = Bytes(random.choice([2, 64, 256]) * MEBIBYTE)
    if vm.derived_cells is not None:
        return _with_stick(vm, more)
    cells = [replace(one, plugged=more) if at == n else one for n, one in enumerate(vm.cells)]
    return replace(vm, cells=tuple(cells))


def _with_stick(vm: EffectiveVM, size: Bytes) -> EffectiveVM:
    """Give a derived VM a module in its first cell: into which cell one goes is known when they are split."""
    whole = vm.cells[0]
    # A spec whose module is no multiple of the pages is refused before it is placed.
    size = Bytes(whole_pages(size, max([whole.page_size, *whole.fallback_page_sizes])))
    stick = EffectiveModule(
        name="stick", kind=ModuleKind.DIMM, cell=0, size=size, page_size=whole.page_size
    )
    return replace(vm, cells=(replace(whole, plugged=size),), modules=(stick,))


def _modules_apart(random: Random, vm: EffectiveVM, hosts: Hosts) -> EffectiveVM:
    """Give the VM a memory module on host cells of its own, or in pages of its own."""
    if not vm.cells_declared or vm.derived_cells is not None:
        return vm
    ids = sorted({cell["id"] for host in hosts for cell in host["status"]["cells"]})
    nodes = random.choice([None, random.sample(ids, min(len(ids), random.choice([1, 1, 2])))])
    size = Bytes(2 * MEBIBYTE) if nodes is None else random.choice([BASE_PAGE, 2 * MEBIBYTE])
    module = EffectiveModule(
        name="apart",
        kind=ModuleKind.DIMM,
        cell=random.choice(vm.cells).id,
        size=Bytes(random.choice([2, 64, 256]) * MEBIBYTE),
        page_size=Bytes(size),
        host_cells=None if nodes is None else CpuSet.of(*nodes),
        has_own_pages=nodes is None,
    )
    return replace(vm, modules=(module,))


def _memory_only(random: Random, vm: EffectiveVM, hosts: Hosts) -> EffectiveVM:
    """Give the VM a guest cell without vCPUs, perhaps bound to a host cell, perhaps one without CPUs."""
    if not vm.cells_declared:
        return vm
    ids = [cell["id"] for host in hosts for cell in host["status"]["cells"]]
    node = random.choice([None, random.choice(ids)])
    cell = replace(
        random.choice(vm.cells),
        id=len(vm.cells),
        vcpus=CpuSet(),
        host_cells=None if node is None else CpuSet.of(node),
        cell_class=random.choice([None, None, *HostCellClass]),
    )
    allocation = random.choice(list(Allocation))
    return replace(
        vm,
        cells=(*vm.cells, cell),
        backing=replace(vm.backing, allocation=allocation),
    )


Wish = Callable[[Random, EffectiveVM, Hosts], EffectiveVM]
WISHES: list[Wish] = [
    _pinned,
    _emulator,
    _io_threads,
    _whole_caches,
    _page_sizes,
    _devices,
    _derived,
    _maximum,
    _plugged,
    _modules_apart,
    _memory_only,
]


def _cpus(hosts: Hosts) -> list[int]:
    return sorted(
        {cpu["id"] for host in hosts for cell in host["status"]["cells"] for cpu in cell["cpus"]}
    )


def _cpus_by_cell(hosts: Hosts) -> list[list[int]]:
    return [
        [cpu["id"] for cpu in cell["cpus"]] for host in hosts for cell in host["status"]["cells"]
    ]
