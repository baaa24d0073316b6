"""CEL rules of the schema on devices: memory modules, the balloon, disks, I/O threads, host devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from numavm_api.generate.rule import DOTS, Rule, bytes_of
from numavm_api.quantity import BASE_PAGE, KIBIBYTE, MEBIBYTE
from numavm_api.rules_balloon import DEAD_BEHIND_EXPRESS
from numavm_api.rules_memory import HUGE_PAGE_SIZES

_KINDS: Final = ("dimm", "virtioMem", "nvdimm", "virtioPmem")
_COUNT: Final = " + ".join(f"(has(self.{kind}) ? 1 : 0)" for kind in _KINDS)
_SIZE: Final = bytes_of("self.size")
_BLOCK: Final = bytes_of("self.block")
_REQUESTED: Final = bytes_of("self.virtioMem.requested")
_LABEL: Final = bytes_of("self.label")
_ALIGN: Final = bytes_of("self.alignSize")
_TARGET: Final = bytes_of("self.target")
_CEILING: Final = bytes_of("self.maxGuest")

_HUGE: Final = ", ".join(map(str, HUGE_PAGE_SIZES))

_MODULE: Final = (
    Rule(
        f"{_COUNT} == 1",
        "self.name + ' is not exactly one of dimm, virtioMem, nvdimm and virtioPmem: set one, such as dimm: {}'",
    ),
    Rule(
        "has(self.virtioPmem) || has(self.cell)",
        "'nothing, but a memory module belongs to a guest cell: set it'",
        ".cell",
    ),
    Rule(
        "!has(self.virtioPmem) || !has(self.cell)",
        "'virtio-pmem belongs to no guest cell: leave cell out'",
        ".cell",
    ),
    Rule(
        f"{_SIZE} > 0 && {_SIZE} % {2 * MEBIBYTE} == 0",
        "string(self.size) + ' is no positive multiple of 2Mi'",
        ".size",
    ),
    Rule(
        "!has(self.hostBinding) && !has(self.hugepages) || has(self.dimm) || has(self.virtioMem)",
        "self.name + ' is on a file of the host, which is page cache and bound to no host cell: leave hostBinding and hugepages"
        " out'",
    ),
    Rule(
        f"!has(self.virtioMem) || {_REQUESTED} <= {_SIZE}",
        "string(self.virtioMem.requested) + ' is more than size ' + string(self.size) + ': lower it, or raise size'",
        ".virtioMem.requested",
    ),
)

_BALLOON: Final = (
    Rule(
        f"!has(self.target) || {_TARGET} > 0 && {_TARGET} % {MEBIBYTE} == 0",
        "string(self.target) + ' is no positive multiple of 1Mi'",
        ".target",
    ),
)

_MEMORY: Final = (
    Rule(
        f"!has(self.maxGuest) || {_CEILING} > 0 && {_CEILING} % {MEBIBYTE} == 0",
        "string(self.maxGuest) + ' is no positive multiple of 1Mi'",
        ".maxGuest",
    ),
    Rule(
        "!has(self.slots) || has(self.maxGuest)",
        "'set, but without maxGuest nothing can be plugged into slots: set maxGuest, or leave slots out'",
        ".slots",
    ),
)

_VIRTIO_ONLY: Final = (
    "!has(self.cdrom) && (!has(self.disk) || self.disk.bus == 'virtio')"
    " || !has(self.cell) && !has(self.pciAddress) && (!has(self.dedicatedIOThread) || !self.dedicatedIOThread)"
)

_DISK: Final = (
    Rule(
        "!has(self.disk) || !has(self.cdrom)",
        "'disk is set too, and an entry is one of the two: leave one out'",
        ".cdrom",
    ),
    Rule(
        _VIRTIO_ONLY,
        "self.name + ' is on another bus than virtio, and only a virtio disk is a PCI device of its own:"
        " leave cell, pciAddress and dedicatedIOThread out, or set disk.bus to virtio'",
    ),
    Rule(
        "!has(self.io) || self.io != 'native' || has(self.cache) && self.cache in ['none', 'directsync']",
        "'native needs cache none or directsync: set cache to none, or leave io out'",
        ".io",
    ),
)

DEVICE_RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    "MemoryDevice": _MODULE,
    "ModulePages": (
        Rule(
            f"{bytes_of('self.pageSize')} in [{_HUGE}]",
            "string(self.pageSize) + ' is no huge page size: a power of two from 2Mi to 16Gi'",
            ".pageSize",
        ),
    ),
    "VirtioMem": (
        Rule(
            # A power of two has no remainder of the largest one that int64 has.
            f"!has(self.block) || {_BLOCK} >= {2 * MEBIBYTE} && {2**62} % {_BLOCK} == 0",
            "string(self.block) + ' is no power of two of at least 2Mi'",
            ".block",
        ),
    ),
    "Nvdimm": (
        Rule(
            f"!has(self.label) || {_LABEL} >= {128 * KIBIBYTE} && {_LABEL} % {KIBIBYTE} == 0",
            "string(self.label) + ' is no multiple of 1Ki of at least 128Ki'",
            ".label",
        ),
        Rule(
            f"!has(self.alignSize) || {_ALIGN} >= {BASE_PAGE} && {2**62} % {_ALIGN} == 0",
            "string(self.alignSize) + ' is no power of two of at least 4Ki'",
            ".alignSize",
        ),
        Rule(
            f"!self.path.matches('{DOTS}')",
            "self.path + ' has a component . or ..: write the path without it'",
            ".path",
        ),
    ),
    "VirtioPmem": (
        Rule(
            f"!self.path.matches('{DOTS}')",
            "self.path + ' has a component . or ..: write the path without it'",
            ".path",
        ),
    ),
    "Balloon": _BALLOON,
    "Memory": _MEMORY,
    "Disk": _DISK,
    "IoThreads": (
        Rule(
            "has(self.count) != has(self.threads)",
            "'not one of count and threads: set one of the two'",
        ),
    ),
    "IoThread": (
        Rule(
            "!has(self.poolMin) || !has(self.poolMax) || self.poolMin <= self.poolMax",
            "'more than poolMax: make poolMin poolMax or less'",
            ".poolMin",
        ),
    ),
    "PermittedPciDevice": (
        Rule(
            "has(self.address) ? !has(self.vendor) && !has(self.device) : has(self.vendor) && has(self.device)",
            "'neither address alone nor vendor with device: set one of the two'",
        ),
    ),
    "Network": (
        Rule(
            "[has(self.user), has(self.bridge), has(self.network)].exists_one(kind, kind)",
            "'not one of user, bridge and network: set one of the three'",
        ),
    ),
    "HostDeviceSource": (
        Rule(
            "has(self.address) != has(self.selector)",
            "'not one of address and selector: set one of the two'",
        ),
    ),
}
"""By the name of the model whose objects they look at."""

MACHINE_RULE: Final = Rule(
    "!has(self.memory.balloon) || !has(self.memory.balloon.cell)"
    " || self.machine.type.startsWith('pc') && !self.machine.type.startsWith('pc-q35')",
    f"'set, but the machine is ' + self.machine.type + ', and {DEAD_BEHIND_EXPRESS}: leave cell out, or set machine.type to pc'",
    ".memory.balloon.cell",
)
DEDICATED_IO_RULE: Final = Rule(
    "!has(self.ioThreads) || self.ioThreads.placement != 'Dedicated' || self.cpu.dedicatedCpuPlacement",
    "'Dedicated needs dedicated CPUs: set cpu.dedicatedCpuPlacement to true or leave placement out'",
    ".ioThreads.placement",
)
