"""CEL rules of the schema: what two or three fields of one object have to do with each other.

The API server checks them also while the operator is down, and even where the admission policies are missing. It budgets a
schema's rules and messages at worst case: a message can repeat a string field, but neither format a number nor join a list,
and looking at every pair of entries or every part of a cpuset is refused. Rules that need that are in
`numavm_api.generate.spec_policy`. The whole list is `numavm_api.validation`. A message names value and limit; the field is the
path that the server puts before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from numavm_api.generate.device_rules import DEDICATED_IO_RULE, DEVICE_RULES, MACHINE_RULE
from numavm_api.generate.rule import DOTS, Rule, bytes_of
from numavm_api.quantity import BASE_PAGE, MEBIBYTE
from numavm_api.rules_memory import HUGE_PAGE_SIZES


def huge_pages_in(domain: str) -> str:
    """Return the expression that tells whether any memory of a domain is in huge pages."""
    whole, cells = f"{domain}.memory.hugepages", f"{domain}.cpu.numa.cells"
    return (
        f"(has({whole}) && {bytes_of(f'{whole}.pageSize')} > {BASE_PAGE} || has({domain}.cpu.numa)"
        f" && {cells}.exists(c, has(c.hugepages) && {bytes_of('c.hugepages.pageSize')} > {BASE_PAGE}))"
    )


QUANTITY_RULES: Final = (
    Rule(
        "type(self) == int || isQuantity(self) && quantity(self).asApproximateFloat() < 9.2e18"
        " && double(int(quantity(self).asApproximateFloat())) == quantity(self).asApproximateFloat()",
        "string(self) + ' is not a whole number of bytes below 2^63: write it such as 512Mi or 8Gi'",
    ),
)

_GUEST: Final = bytes_of("self.memory.guest")
_GUEST_PAGE: Final = bytes_of("self.memory.hugepages.pageSize")
_CELL: Final = bytes_of("self.memory")
_CELL_PAGE: Final = bytes_of("self.hugepages.pageSize")
_PAGES: Final = ", ".join(map(str, HUGE_PAGE_SIZES))


def _path_rule(name: str, *, optional: bool = False) -> Rule:
    absent = f"!has(self.{name}) || " if optional else ""
    return Rule(
        f"{absent}!self.{name}.matches('{DOTS}')",
        f"self.{name} + ' has a component . or ..: write the path without it'",
        f".{name}",
    )


_DOMAIN_RULES: Final = (
    Rule(
        "has(self.memory.guest) || has(self.cpu.numa) && self.cpu.numa.cells.size() > 0",
        "'nothing, but a VM needs memory: set spec.domain.memory.guest, or spec.domain.cpu.numa.cells with their memory'",
        ".memory.guest",
    ),
    Rule(
        f"!has(self.memory.guest) || has(self.cpu.numa) && self.cpu.numa.cells.size() > 0 || {_GUEST} > 0 && {_GUEST} % {MEBIBYTE} == 0",
        "string(self.memory.guest) + ' is no positive multiple of 1Mi'",
        ".memory.guest",
    ),
    Rule(
        "!has(self.memory.guest) || has(self.cpu.numa) && self.cpu.numa.cells.size() > 0 || !has(self.memory.hugepages)"
        f" || {_GUEST_PAGE} > 0 && {_GUEST} % {_GUEST_PAGE} == 0",
        "string(self.memory.guest) + ' is no multiple of the page size ' + string(self.memory.hugepages.pageSize)",
        ".memory.guest",
    ),
    Rule(
        "!has(self.memory.backing.source) || self.memory.backing.source != 'Anonymous' || !"
        + huge_pages_in("self"),
        "'Anonymous, but huge pages come from a memfd: leave source out, or set it to Memfd, or drop hugepages'",
        ".memory.backing.source",
    ),
    Rule(
        "self.memory.backing.allocation != 'OnDemand' || !" + huge_pages_in("self"),
        "'OnDemand, but a huge page that is missing later kills the VM: leave allocation out or drop hugepages'",
        ".memory.backing.allocation",
    ),
    MACHINE_RULE,
    DEDICATED_IO_RULE,
)
_CPU_RULES: Final = (
    Rule(
        "self.dedicatedCpuPlacement || self.threadPolicy == 'Prefer'",
        "self.threadPolicy + ' needs dedicated CPUs: set dedicatedCpuPlacement to true or leave threadPolicy out'",
        ".threadPolicy",
    ),
    Rule(
        "self.dedicatedCpuPlacement || !self.isolateEmulatorThread",
        "'true needs dedicated CPUs: set dedicatedCpuPlacement to true or leave isolateEmulatorThread out'",
        ".isolateEmulatorThread",
    ),
    Rule(
        "self.dedicatedCpuPlacement || !has(self.realtime)",
        "'realtime needs dedicated CPUs: set dedicatedCpuPlacement to true or leave realtime out'",
        ".realtime",
    ),
    Rule(
        "!has(self.maxSockets) || self.maxSockets >= self.sockets",
        "'maxSockets is less than sockets: raise it, or lower sockets'",
        ".maxSockets",
    ),
    Rule(
        "!has(self.vcpus) || !has(self.onlineVcpus)",
        "'vcpus and onlineVcpus both say which vCPUs are on at boot: leave one out'",
        ".vcpus",
    ),
    Rule(
        "!has(self.maxSockets) || self.maxSockets == self.sockets || !has(self.vcpus) && !has(self.onlineVcpus)",
        "'maxSockets above sockets, and vcpus or onlineVcpus, both say which vCPUs are off at boot: leave one out'",
        ".maxSockets",
    ),
    Rule(
        "!has(self.vcpus) || self.vcpus <= self.sockets * self.dies * self.cores * self.threads",
        "'vcpus is more than sockets*dies*cores*threads: lower it, or raise sockets'",
        ".vcpus",
    ),
    Rule(
        "!has(self.cache) || self.cache.mode != 'passthrough' || self.model == 'host-passthrough'",
        "'passthrough needs model host-passthrough, but model is ' + self.model + ': change one of the two'",
        ".cache.mode",
    ),
)
_NUMA_RULES: Final = (
    Rule(
        "has(self.guestMappingPassthrough) != (self.cells.size() > 0)",
        "'cells are declared or derived: set either cells or guestMappingPassthrough, or leave numa out'",
        ".cells",
    ),
    Rule(
        "self.cells.size() == 0 || self.cells.exists(c, has(c.cpus))",
        "'no cell has cpus, but only beside one that has may others be memory only: give the vCPUs to cells'",
        ".cells",
    ),
    Rule(
        "self.distances == 'Declared' || self.cells.all(c, c.distances.size() == 0)",
        "'FromHost, but cells declare distances too: leave one of the two out'",
        ".distances",
    ),
    Rule(
        "!has(self.guestMappingPassthrough) || !has(self.interconnects)",
        "'interconnects beside guestMappingPassthrough, but derived cells have the figures of their host cells: leave one out'",
        ".interconnects",
    ),
)
_CELL_RULES: Final = (
    Rule(
        f"{_CELL} > 0 && {_CELL} % {MEBIBYTE} == 0",
        "string(self.memory) + ' is no positive multiple of 1Mi'",
        ".memory",
    ),
    Rule(
        f"!has(self.hugepages) || {_CELL_PAGE} > 0 && {_CELL} % {_CELL_PAGE} == 0",
        "string(self.memory) + ' is no multiple of the page size ' + string(self.hugepages.pageSize)",
        ".memory",
    ),
    Rule(
        "!has(self.cpus) || !has(self.hostCellClass) || self.hostCellClass == 'DRAM'",
        "self.hostCellClass + ', but host cells of that class have no CPUs: leave hostCellClass out, or give such memory a cell"
        " without cpus'",
        ".hostCellClass",
    ),
    Rule(
        "self.distances.all(d, (d.cell == self.id) == (d.value == 10))",
        "'a distance to another cell is 11 to 255, and 10 is the one to itself: change or leave out the entry'",
        ".distances",
    ),
)

MODEL_RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    **DEVICE_RULES,
    "Domain": _DOMAIN_RULES,
    "Cpu": _CPU_RULES,
    "GuestCell": _CELL_RULES,
    "GuestNuma": _NUMA_RULES,
    "CpuCache": (
        Rule(
            "(self.mode == 'emulate') == (has(self.level) && self.level == 3)"
            " && (self.mode == 'emulate' || !has(self.level))",
            "'libvirt takes level 3 with mode emulate, and no level with ' + self.mode + ' otherwise'",
            ".level",
        ),
    ),
    "Bandwidth": (
        Rule(
            f"{bytes_of('self.bytesPerSecond')} > 0 && {bytes_of('self.bytesPerSecond')} % {MEBIBYTE} == 0",
            "string(self.bytesPerSecond) + ' is no positive multiple of 1Mi'",
            ".bytesPerSecond",
        ),
    ),
    "MemorySideCache": (
        Rule(
            f"{bytes_of('self.size')} > 0 && {bytes_of('self.size')} % 1024 == 0",
            "string(self.size) + ' is no positive number of whole KiB'",
            ".size",
        ),
    ),
    "HugePages": (
        Rule(
            f"{bytes_of('self.pageSize')} in [{BASE_PAGE}, {_PAGES}]",
            "string(self.pageSize) + ' is no page size: a page is 4Ki, or a power of two from 2Mi to 16Gi'",
            ".pageSize",
        ),
        Rule(
            f"self.fallback.all(f, {bytes_of('f')} in [{BASE_PAGE}, {_PAGES}] && {bytes_of('f')} != {bytes_of('self.pageSize')})",
            "'each is 4Ki, or a power of two from 2Mi to 16Gi, and another size than pageSize: correct the list'",
            ".fallback",
        ),
    ),
    "Backing": (
        Rule(
            "self.access != 'Shared' || !has(self.source) || self.source != 'Anonymous'",
            "'Anonymous, but access Shared needs memory that another process can map: leave source out or set it to Memfd'",
            ".source",
        ),
        Rule(
            "self.discard == 'Disabled' || has(self.source) && self.source == 'File'",
            "'Enabled, but only a file has content to throw away: leave discard out, or set source to File'",
            ".discard",
        ),
    ),
    "Firmware": (
        Rule(
            "!has(self.kernelBoot) || !has(self.bootloader)",
            "'kernelBoot and bootloader are both set, and a VM boots in one way: leave one out'",
            ".kernelBoot",
        ),
    ),
    "NodeSelectorRequirement": (
        Rule(
            "self.operator in ['In', 'NotIn'] ? size(self.values) > 0 : self.operator in ['Gt', 'Lt']"
            " ? size(self.values) == 1 && self.values[0].matches('^-?[0-9]{1,18}$') : size(self.values) == 0",
            "'In and NotIn need values, Gt and Lt one whole number, Exists and DoesNotExist none; the operator is '"
            " + self.operator",
            ".values",
        ),
    ),
    "Toleration": (
        Rule(
            "has(self.key) || self.operator == 'Exists'",
            "self.operator + ', but every key is named by Exists: set a key'",
            ".operator",
        ),
        Rule(
            "!has(self.value) || self.operator == 'Equal'",
            "self.value + ', but operator Exists takes none: leave value out'",
            ".value",
        ),
    ),
    "NumaVMSpec": (
        Rule(
            "self.placement.lastLevelCache == 'Prefer' || self.domain.cpu.dedicatedCpuPlacement",
            "'Whole needs dedicated CPUs: set spec.domain.cpu.dedicatedCpuPlacement to true or leave lastLevelCache out'",
            ".placement.lastLevelCache",
        ),
    ),
    "KernelBoot": (_path_rule("kernel"), _path_rule("initrd", optional=True)),
    "HostDisk": (_path_rule("path"),),
    "Permitted": (
        Rule(
            f"self.directories.all(d, !d.matches('{DOTS}'))",
            "'one has a component . or ..: write the directories without it'",
            ".directories",
        ),
    ),
}
"""By the name of the model whose objects they look at."""
