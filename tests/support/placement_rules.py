"""What a VM is to get, worked out from the rules by hand: shared by the checker and the oracle, not by the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from math import ceil
from typing import Any

from numavm_api.cpu import BindingMode, ThreadPolicy
from numavm_api.cpuset import CpuSet
from numavm_api.effective import EffectiveCell, EffectiveHostDevice, EffectiveVM
from numavm_api.effective_modules import EffectiveModule
from numavm_api.host_devices import NumaAffinity
from numavm_api.numavm import CellSharing
from numavm_api.quantity import Bytes


def whole_pages(amount: float, page: int) -> int:
    return ceil(amount / page) * page


def split(vm: EffectiveVM, count: int) -> EffectiveVM:
    """Return a derived VM over `count` cells: cores dealt out, memory by vCPU share in whole pages, modules by cell."""
    whole = vm.cells[0]
    page = max([whole.page_size, *whole.fallback_page_sizes])
    cores, pages = vm.vcpus // vm.threads_per_core, ceil(whole.memory / page)
    members: list[list[int]] = [[] for _ in range(count)]
    for core in range(cores):
        first = core * vm.threads_per_core
        members[core * count // cores] += range(first, first + vm.threads_per_core)
    cells, before = [], 0
    for at, vcpus in enumerate(members):
        so_far = pages * sum(len(some) for some in members[: at + 1]) // vm.vcpus
        cells.append(
            replace(
                whole,
                id=at,
                vcpus=CpuSet.of(*vcpus),
                memory=Bytes((so_far - before) * page),
                plugged=Bytes(sum(one.size for one in vm.modules if one.cell == at)),
                host_cells=None,
                among=whole.host_cells,
            )
        )
        before = so_far
    return replace(
        vm,
        cells=tuple(cells),
        cells_declared=True,
        cell_sharing=CellSharing.NEVER,
        derived_cells=None,
    )


def counts_of(vm: EffectiveVM) -> list[int]:
    """Return over how many cells a derived VM may be split: a cell has a core and a page."""
    assert vm.derived_cells is not None
    if vm.derived_cells.count is not None:
        return [vm.derived_cells.count]
    whole = vm.cells[0]
    page = max([whole.page_size, *whole.fallback_page_sizes])
    most = min(16, vm.vcpus // vm.threads_per_core, ceil(whole.memory / page))
    return list(range(1, most + 1))


def needs_cpu(vm: EffectiveVM, cell: EffectiveCell) -> list[int]:
    """Return the vCPUs of a cell that are to get room: on at boot, or all; with Require whole guest cores."""
    if vm.reserve_maximum or vm.online_vcpus is None:
        return sorted(cell.vcpus)
    on = set(vm.online_vcpus)
    if vm.dedicated and vm.thread_policy is ThreadPolicy.REQUIRE:
        size = vm.threads_per_core
        on = {v for v in cell.vcpus if any(w // size == v // size for w in on & set(cell.vcpus))}
    return sorted(on & set(cell.vcpus))


def modules_apart(vm: EffectiveVM) -> list[EffectiveModule]:
    """Return the modules with host cells or pages of their own; the others are beside their cell's boot memory."""
    return [one for one in vm.modules if one.host_cells is not None or one.has_own_pages]


def beside_boot_memory(vm: EffectiveVM, cell: EffectiveCell, page: int) -> int:
    """Return modules, and with reserveMaximum the cell's share of what may still be added."""
    amount = whole_pages(cell.plugged, page)
    total = sum(one.memory for one in vm.cells)
    if vm.reserve_maximum and vm.max_memory and total:
        there = sum(one.plugged for one in vm.cells) + sum(one.size for one in modules_apart(vm))
        more = max(0, vm.max_memory - total - there)
        amount += ceil(ceil(more * cell.memory / total) / page) * page
    return amount


def pages_by_node(mode: BindingMode, nodes: Sequence[int], pages: int) -> dict[int, int]:
    """Return the pages that memory books on each node of its nodeset (design, "Booking")."""
    if mode is BindingMode.INTERLEAVE:
        return dict.fromkeys(nodes, -(-pages // len(nodes)))
    if mode is BindingMode.PREFERRED:
        return {nodes[0]: pages}
    return dict.fromkeys(nodes, pages)


def groups(vm: EffectiveVM, cell: EffectiveCell) -> list[list[int]]:
    """Return the vCPUs in the groups that the thread policy looks at."""
    numbers = needs_cpu(vm, cell)
    size = max(vm.threads_per_core, 2) if vm.thread_policy is ThreadPolicy.REQUIRE else 1
    return [numbers[at : at + size] for at in range(0, len(numbers), size)]


def allowed(vm: EffectiveVM, vcpus: Sequence[int], cpus: Sequence[int]) -> bool:
    """Tell whether these CPUs, in some order, are ones that the user allows these vCPUs."""
    anything = CpuSet.of(*cpus)
    pins = [vm.vcpu_candidates.get(vcpu, anything) for vcpu in vcpus]
    return any(
        all(cpu in pin for cpu, pin in zip(order, pins, strict=True))
        for order in permutations(cpus)
    )


class DeviceFacts:
    """The host devices, and who may have which."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self.devices: dict[str, Mapping[str, Any]] = {
            device["address"]: device for device in status.get("pciDevices", [])
        }
        self.permitted = status.get("permitted", {}).get("pciDevices", [])
        self.sockets = {
            cell["id"]: {cpu["socket"] for cpu in cell["cpus"]} for cell in status["cells"]
        }

    def free(self, held: set[str]) -> list[str]:
        """Return the addresses no part of whose IOMMU group is held."""
        groups = {self.devices[one].get("iommuGroup") for one in held if one in self.devices}
        return [
            address
            for address, device in self.devices.items()
            if address not in held
            and self._is_permitted(device)
            and (device.get("iommuGroup") is None or device["iommuGroup"] not in groups)
        ]

    def _is_permitted(self, device: Mapping[str, Any]) -> bool:
        """A permission names an address, or vendor and device: either way all it names must agree."""
        return any(
            all(device[part] == value for part, value in one.items()) for one in self.permitted
        )

    def of_kind(self, wish: EffectiveHostDevice, address: str) -> bool:
        """Tell whether a device is of the kind asked for."""
        device = self.devices[address]
        if wish.addresses:
            return address in wish.addresses
        return wish.selector is None or wish.selector == (device["vendor"], device["device"])

    def near(self, wish: EffectiveHostDevice, address: str, nodes: Sequence[int]) -> bool:
        """Tell whether a device is as near as asked for; for Preferred, as it would rather be."""
        cell = self.devices[address]["cell"]
        if wish.affinity is NumaAffinity.NONE:
            return True
        if cell not in self.sockets:
            return False
        if wish.affinity is NumaAffinity.SAME_SOCKET:
            return cell in nodes or any(self.sockets[cell] & self.sockets[one] for one in nodes)
        return cell in nodes

    def ways(
        self,
        wishes: Sequence[EffectiveHostDevice],
        nodes_of: Sequence[Sequence[int]],
        held: set[str],
    ) -> Iterator[int]:
        """Yield, for every way to give all wishes a device, how many preferred ones are not near."""
        if not wishes:
            yield 0
            return
        wish, rest = wishes[0], wishes[1:]
        free = self.free(held)
        everywhere = sorted({node for nodes in nodes_of for node in nodes})
        nodes = everywhere if wish.cell is None else nodes_of[wish.cell]
        soft = wish.affinity is NumaAffinity.PREFERRED
        for address in free:
            near = self.near(wish, address, nodes)
            if self.of_kind(wish, address) and (near or soft):
                # Of one IOMMU group a VM may have several.
                left = DeviceFacts.__new__(DeviceFacts)
                left.sockets, left.permitted = self.sockets, self.permitted
                left.devices = {at: one for at, one in self.devices.items() if at != address}
                for astray in left.ways(rest, nodes_of, held):
                    yield astray + (not near)
