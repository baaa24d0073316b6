"""Manifests with devices: good ones, and rows of bad ones for `support.manifests`."""

# ruff: noqa: E501 - a table: one row is one case

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Spec = dict[str, Any]
Row = tuple[str, Spec, str, Any, tuple[str, ...]]
"""Name, good spec, path of the change, value, what the refusal says."""

_CELLS = [
    {"id": 0, "cpus": "0", "memory": "1Gi"},
    {"id": 1, "cpus": "1", "memory": "1Gi"},
]

_BOUND = {
    "name": "m0",
    "cell": 0,
    "size": "1Gi",
    "dimm": {},
    "hostBinding": {"hostCells": "0"},
}

WITH_MODULES: Spec = {
    "domain": {
        "cpu": {"sockets": 2, "numa": {"cells": _CELLS}},
        "memory": {
            "maxGuest": "8Gi",
            "slots": 4,
            "balloon": {"target": "2Gi", "statsPeriodSeconds": 5},
        },
        "devices": {
            "memory": [
                {"name": "m0", "cell": 0, "size": "1Gi", "dimm": {"slot": 2}},
                {
                    "name": "m1",
                    "cell": 1,
                    "size": "512Mi",
                    "virtioMem": {"requested": "128Mi", "block": "4Mi"},
                },
                {
                    "name": "m2",
                    "cell": 1,
                    "size": "256Mi",
                    "nvdimm": {"path": "/var/lib/numavm/nv.img", "label": "128Ki"},
                },
                {"name": "m3", "size": "256Mi", "virtioPmem": {"path": "/var/lib/numavm/pm.img"}},
            ]
        },
    }
}
"""A module of each kind, the first in slot 2, and a balloon."""

BEHIND_EXPANDERS: Spec = {
    "domain": {
        "cpu": {"sockets": 2, "dedicatedCpuPlacement": True, "numa": {"cells": _CELLS}},
        "ioThreads": {
            "threads": [{"id": 1}, {"id": 4, "poolMin": 1, "poolMax": 8}],
            "placement": "Dedicated",
        },
        "devices": {
            "disks": [
                {"name": "root", "bootOrder": 1, "cell": 1, "cache": "none", "io": "native"},
                {"name": "data", "dedicatedIOThread": True, "pciAddress": "0000:00:07.0"},
                {"name": "iso", "cdrom": {"bus": "sata"}, "bootOrder": 2},
            ],
            "interfaces": [{"name": "net0", "cell": 0}],
            "hostDevices": [
                {"name": "nic", "cell": 1, "source": {"address": "0000:65:00.0"}},
                {
                    "name": "gpu",
                    "source": {"selector": {"vendor": "10de", "device": "20b0"}},
                    "numaAffinity": "Preferred",
                },
            ],
            "pciExpanders": [
                {"name": "first", "cell": 0, "busNr": 128, "pciAddress": "0000:00:06.0"}
            ],
        },
    },
    "networks": [{"name": "net0", "user": {}}],
    "volumes": [
        {"name": name, "hostDisk": {"path": f"/var/lib/numavm/{name}.img"}}
        for name in ("root", "data", "iso")
    ],
}
"""Machine q35: disks, a card and host devices behind the buses of their cells."""

ON_PC: Spec = {
    "domain": {
        "machine": {"type": "pc"},
        "cpu": {"sockets": 2, "numa": {"cells": _CELLS}},
        "memory": {"balloon": {"cell": 1, "pciAddress": "0000:01:06.0"}},
        "devices": {"pciExpanders": [{"name": "pxb", "cell": 1, "busNr": 254}]},
    }
}
"""The article's balloon on an expander."""

GOOD_DEVICES: Mapping[str, Spec] = {
    "modules-and-balloon": WITH_MODULES,
    "behind-expanders": BEHIND_EXPANDERS,
    "balloon-on-pc": ON_PC,
}

_DEVICES = "domain.devices"
_MEMORY = "domain.memory"

BY_SCHEMA: tuple[Row, ...] = (
    ("module-of-no-kind", WITH_MODULES, f"{_DEVICES}.memory.0", {"name": "m0", "cell": 0, "size": "1Gi"}, ("devices.memory[0]", "m0", "dimm, virtioMem, nvdimm")),
    ("module-of-two-kinds", WITH_MODULES, f"{_DEVICES}.memory.0.nvdimm", {"path": "/a/b"}, ("devices.memory[0]", "m0", "exactly one")),
    ("module-without-cell", WITH_MODULES, f"{_DEVICES}.memory.0", {"name": "m0", "size": "1Gi", "dimm": {}}, ("devices.memory[0].cell", "nothing", "guest cell")),
    ("pmem-in-a-cell", WITH_MODULES, f"{_DEVICES}.memory.3.cell", 1, ("devices.memory[3].cell", "virtio-pmem", "leave cell out")),
    ("module-size-odd", WITH_MODULES, f"{_DEVICES}.memory.0.size", "1025Mi", ("devices.memory[0].size", "1025Mi", "2Mi")),
    ("module-name-hostile", WITH_MODULES, f"{_DEVICES}.memory.0.name", "m'/><x", ("devices.memory[0].name", "m'/><x")),
    ("module-name-twice", WITH_MODULES, f"{_DEVICES}.memory.1.name", "m0", ("devices.memory[1]", "Duplicate", "m0")),
    ("module-slot-far", WITH_MODULES, f"{_DEVICES}.memory.0.dimm.slot", 256, ("devices.memory[0].dimm.slot", "256", "255")),
    ("virtio-mem-requested-too-much", WITH_MODULES, f"{_DEVICES}.memory.1.virtioMem.requested", "1Gi", ("devices.memory[1].virtioMem.requested", "1Gi", "512Mi")),
    ("virtio-mem-block-odd", WITH_MODULES, f"{_DEVICES}.memory.1.virtioMem.block", "6Mi", ("devices.memory[1].virtioMem.block", "6Mi", "power of two")),
    ("virtio-mem-block-small", WITH_MODULES, f"{_DEVICES}.memory.1.virtioMem.block", "1Mi", ("devices.memory[1].virtioMem.block", "1Mi", "2Mi")),
    ("nvdimm-label-small", WITH_MODULES, f"{_DEVICES}.memory.2.nvdimm.label", "64Ki", ("devices.memory[2].nvdimm.label", "64Ki", "128Ki")),
    ("nvdimm-path-dots", WITH_MODULES, f"{_DEVICES}.memory.2.nvdimm.path", "/var/../etc/x", ("devices.memory[2].nvdimm.path", "/var/../etc/x", "..")),
    ("pmem-path-hostile", WITH_MODULES, f"{_DEVICES}.memory.3.virtioPmem.path", '/a"b', ("devices.memory[3].virtioPmem.path", '/a\\"b')),
    ("nvdimm-alignment-odd", WITH_MODULES, f"{_DEVICES}.memory.2.nvdimm.alignSize", "3Mi", ("devices.memory[2].nvdimm.alignSize", "3Mi", "power of two")),
    ("nvdimm-with-pages", WITH_MODULES, f"{_DEVICES}.memory.2.hugepages", {"pageSize": "2Mi"}, ("devices.memory[2]", "m2", "page cache")),
    ("nvdimm-bound", WITH_MODULES, f"{_DEVICES}.memory.2.hostBinding", {"hostCells": "0"}, ("devices.memory[2]", "m2", "page cache")),
    ("module-in-base-pages", WITH_MODULES, f"{_DEVICES}.memory.0.hugepages", {"pageSize": "4Ki"}, ("devices.memory[0].hugepages.pageSize", "4Ki", "2Mi")),
    ("module-binding-without-cells", WITH_MODULES, f"{_DEVICES}.memory.0.hostBinding", {}, ("devices.memory[0].hostBinding.hostCells", "Required")),
    ("slots-without-maximum", WITH_MODULES, _MEMORY, {"slots": 4}, ("spec.domain.memory.slots", "maxGuest")),
    ("slots-too-many", WITH_MODULES, f"{_MEMORY}.slots", 257, ("spec.domain.memory.slots", "257", "256")),
    ("maximum-odd", WITH_MODULES, f"{_MEMORY}.maxGuest", "8388609Ki", ("spec.domain.memory.maxGuest", "8388609Ki", "1Mi")),
    ("balloon-target-zero", WITH_MODULES, f"{_MEMORY}.balloon.target", 0, ("spec.domain.memory.balloon.target", "0", "1Mi")),
    ("balloon-model-unknown", WITH_MODULES, f"{_MEMORY}.balloon.model", "xen", ("spec.domain.memory.balloon.model", "xen", "virtio")),
    ("balloon-period-zero", WITH_MODULES, f"{_MEMORY}.balloon.statsPeriodSeconds", 0, ("balloon.statsPeriodSeconds", "0", "1")),
    ("balloon-behind-pcie", ON_PC, "domain.machine.type", "q35", ("spec.domain.memory.balloon.cell", "q35", "interrupts", "measured")),
    ("balloon-address-hostile", ON_PC, f"{_MEMORY}.balloon.pciAddress", "0000:01:06.0'", ("balloon.pciAddress", "0000:01:06.0'")),
    ("disk-and-cdrom", BEHIND_EXPANDERS, f"{_DEVICES}.disks.2.disk", {"bus": "sata"}, ("disks[2].cdrom", "one of the two")),
    ("cdrom-with-cell", BEHIND_EXPANDERS, f"{_DEVICES}.disks.2.cell", 0, ("disks[2]", "iso", "virtio")),
    ("scsi-with-own-thread", BEHIND_EXPANDERS, f"{_DEVICES}.disks.1.disk", {"bus": "scsi"}, ("disks[1]", "data", "virtio")),
    ("native-with-cache", BEHIND_EXPANDERS, f"{_DEVICES}.disks.0.cache", "writeback", ("disks[0].io", "native", "none or directsync")),
    ("cache-unknown", BEHIND_EXPANDERS, f"{_DEVICES}.disks.0.cache", "fast", ("disks[0].cache", "fast", "writeback")),
    ("count-and-threads", BEHIND_EXPANDERS, "domain.ioThreads.count", 2, ("spec.domain.ioThreads", "one of count and threads")),
    ("thread-id-twice", BEHIND_EXPANDERS, "domain.ioThreads.threads.1.id", 1, ("ioThreads.threads[1]", "Duplicate", "1")),
    ("thread-pool-backwards", BEHIND_EXPANDERS, "domain.ioThreads.threads.1.poolMin", 9, ("ioThreads.threads[1].poolMin", "more than poolMax")),
    ("dedicated-threads-without-cpus", BEHIND_EXPANDERS, "domain.cpu.dedicatedCpuPlacement", False, ("spec.domain.ioThreads.placement", "Dedicated", "dedicatedCpuPlacement")),
    ("host-device-of-two-sources", BEHIND_EXPANDERS, f"{_DEVICES}.hostDevices.0.source.selector", {"vendor": "8086", "device": "10d3"}, ("hostDevices[0].source", "one of address and selector")),
    ("host-device-of-no-source", BEHIND_EXPANDERS, f"{_DEVICES}.hostDevices.0.source", {}, ("hostDevices[0].source", "one of address and selector")),
    ("host-device-address-hostile", BEHIND_EXPANDERS, f"{_DEVICES}.hostDevices.0.source.address", "65:00.0", ("hostDevices[0].source.address", "65:00.0")),
    ("host-device-vendor-long", BEHIND_EXPANDERS, f"{_DEVICES}.hostDevices.1.source.selector.vendor", "0x10de", ("selector.vendor", "0x10de")),
    ("host-device-affinity-unknown", BEHIND_EXPANDERS, f"{_DEVICES}.hostDevices.1.numaAffinity", "Near", ("hostDevices[1].numaAffinity", "Near", "Preferred")),
    ("bus-number-large", BEHIND_EXPANDERS, f"{_DEVICES}.pciExpanders.0.busNr", 255, ("pciExpanders[0].busNr", "255", "254")),
    ("expander-name-hostile", BEHIND_EXPANDERS, f"{_DEVICES}.pciExpanders.0.name", "a b", ("pciExpanders[0].name", "a b")),
)  # fmt: skip

BY_POLICY: tuple[Row, ...] = (
    ("modules-without-maximum", WITH_MODULES, _MEMORY, {}, ("spec.domain.memory.maxGuest", "nothing", "4294967296")),
    ("modules-past-the-maximum", WITH_MODULES, f"{_MEMORY}.maxGuest", "3Gi", ("spec.domain.memory.maxGuest", "3Gi", "4294967296")),
    ("more-modules-than-slots", WITH_MODULES, f"{_MEMORY}.slots", 3, ("spec.domain.memory.slots", "3", "4 modules", "virtio-mem")),
    ("module-in-an-unknown-cell", WITH_MODULES, f"{_DEVICES}.memory.0.cell", 2, ("devices.memory[name=m0].cell", "2", "0 to 1")),
    ("balloon-target-large", WITH_MODULES, f"{_MEMORY}.balloon.target", "4Gi", ("spec.domain.memory.balloon.target", "4Gi", "3221225472")),
    ("module-not-in-pages", WITH_MODULES, f"{_MEMORY}.hugepages", {"pageSize": "1Gi"}, ("spec.domain.devices.memory[*].size", "m1, m2", "page size")),
    ("module-not-in-its-own-pages", WITH_MODULES, f"{_DEVICES}.memory.0", {**_BOUND, "size": "514Mi", "hugepages": {"pageSize": "1Gi"}}, ("spec.domain.devices.memory[*].size", "m0", "page size")),
    ("disk-in-an-unknown-cell", BEHIND_EXPANDERS, f"{_DEVICES}.disks.0.cell", 5, ("devices.disks[name=root].cell", "5", "0 to 1")),
    ("expander-of-an-unknown-cell", BEHIND_EXPANDERS, f"{_DEVICES}.pciExpanders.0.cell", 2, ("devices.pciExpanders[name=first].cell", "2", "0 to 1")),
    ("balloon-in-an-unknown-cell", ON_PC, f"{_MEMORY}.balloon", {"cell": 3}, ("spec.domain.memory.balloon.cell", "3", "0 to 1")),
)  # fmt: skip

BY_OPERATOR: tuple[Row, ...] = (
    ("module-binding-where-nothing-is-bound", WITH_MODULES, "domain", {**WITH_MODULES["domain"], "cpu": {"sockets": 2, "numa": {"cells": _CELLS, "hostBinding": {"mode": "Restrictive"}}}, "devices": {"memory": [_BOUND]}}, ("devices.memory[0].hostBinding", "Restrictive", "another mode")),
    ("module-binding-without-declared-cells", WITH_MODULES, "domain", {"memory": {"guest": "2Gi", "maxGuest": "4Gi"}, "devices": {"memory": [_BOUND]}}, ("devices.memory[0].hostBinding", "m0", "declare")),
    ("module-binding-in-open-pages", WITH_MODULES, "domain", {**WITH_MODULES["domain"], "memory": {"maxGuest": "4Gi", "hugepages": {"pageSize": "2Mi", "fallback": ["4Ki"]}}, "devices": {"memory": [_BOUND]}}, ("devices.memory[0].hostBinding", "fallback", "hugepages too")),
    ("module-pages-of-anonymous", WITH_MODULES, "domain", {**WITH_MODULES["domain"], "memory": {"maxGuest": "8Gi", "backing": {"source": "Anonymous"}}, "devices": {"memory": [{**_BOUND, "hugepages": {"pageSize": "2Mi"}}]}}, ("spec.domain.memory.backing.source", "Anonymous", "memfd")),
    ("nvdimm-alignment-of-another-size", WITH_MODULES, f"{_DEVICES}.memory.2.nvdimm.alignSize", "512Mi", ("devices.memory[2].nvdimm.alignSize", "512Mi", "divides size 256Mi")),
    ("module-slot-past-the-slots", WITH_MODULES, f"{_DEVICES}.memory.0.dimm.slot", 4, ("devices.memory[0].dimm.slot", "4", "0 to 3")),
    ("requested-not-in-blocks", WITH_MODULES, f"{_DEVICES}.memory.1.virtioMem.requested", "129Mi", ("devices.memory[1].virtioMem.requested", "129Mi", "4Mi")),
    ("nvdimm-on-a-pmem-file", WITH_MODULES, f"{_DEVICES}.memory.2.nvdimm.path", "/var/lib/numavm/pm.img", ("devices.memory[3].virtioPmem.path", "pm.img", "one image")),
    ("address-on-no-bus", ON_PC, f"{_MEMORY}.balloon.pciAddress", "0000:02:06.0", ("spec.domain.memory.balloon.pciAddress", "0000:02:06.0", "01 (pxb)")),
    ("address-of-another-cell", ON_PC, f"{_MEMORY}.balloon.cell", 0, ("spec.domain.memory.balloon.pciAddress", "0000:01:06.0", "no bus of guest cell 0")),
    ("address-with-a-domain", ON_PC, f"{_MEMORY}.balloon", {"pciAddress": "0001:00:06.0"}, ("balloon.pciAddress", "0001:00:06.0", "domain")),
    ("address-on-the-chipset", ON_PC, f"{_MEMORY}.balloon", {"pciAddress": "0000:00:01.0"}, ("balloon.pciAddress", "0000:00:01.0", "03 to 1e")),
    ("address-twice", BEHIND_EXPANDERS, f"{_DEVICES}.disks.1.pciAddress", "0000:00:06.0", ("devices.pciExpanders[0].pciAddress", "0000:00:06.0", "there already")),
    ("express-bus-by-hand", BEHIND_EXPANDERS, f"{_DEVICES}.disks.1.pciAddress", "0000:03:00.0", ("disks[1].pciAddress", "0000:03:00.0", "q35")),
    ("bus-numbers-overlap", ON_PC, f"{_DEVICES}.pciExpanders", [{"name": "a", "cell": 0, "busNr": 20}, {"name": "b", "cell": 1, "busNr": 21}], ("pciExpanders[1].busNr", "21", "21 to 22")),
    ("bus-number-without-room-behind-it", BEHIND_EXPANDERS, f"{_DEVICES}.pciExpanders.0.busNr", 254, ("pciExpanders[0].busNr", "254", "254 to 256", "255")),
    ("bus-number-among-root-ports", BEHIND_EXPANDERS, f"{_DEVICES}.pciExpanders.0.busNr", 3, ("pciExpanders[0].busNr", "3", "above")),
    ("host-device-twice", BEHIND_EXPANDERS, f"{_DEVICES}.hostDevices.1.source", {"address": "0000:65:00.0"}, ("hostDevices[1].source.address", "0000:65:00.0", "given once")),
)  # fmt: skip
