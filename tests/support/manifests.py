"""NumaVM manifests for tests: good ones, and a bad one for each rule, with what its refusal must say.

A bad manifest is a good one with a change at one path, so that nothing else can be the cause.
"""

# ruff: noqa: E501 - a table: one row is one case

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from support.device_manifests import BY_OPERATOR, BY_POLICY, BY_SCHEMA, GOOD_DEVICES

Spec = dict[str, Any]

REMOVED = object()
"""As a value in a change: the field is taken away."""


class Refuser(StrEnum):
    """Who is the first to refuse."""

    SCHEMA = "the schema"
    """The API server, by type, pattern, bound or CEL rule."""
    POLICY = "a policy"
    """The API server, by an admission policy."""
    OPERATOR = "the operator"
    """`read_spec`, shown as `Accepted=False`."""


def cell(number: int, cpus: str, memory: str = "1Gi", **more: Any) -> Spec:
    """Return a guest cell."""
    return {"id": number, "cpus": cpus, "memory": memory, **more}


TWO_CELLS: Spec = {
    "domain": {
        "cpu": {
            "sockets": 2,
            "cores": 2,
            "threads": 2,
            "dedicatedCpuPlacement": True,
            "numa": {"cells": [cell(0, "0-3"), cell(1, "4-7")]},
        }
    }
}
"""Two guest cells of two cores with two threads and 1Gi each, dedicated CPUs."""

NO_CELLS: Spec = {"domain": {"cpu": {"cores": 2}, "memory": {"guest": "512Mi"}}}
"""The smallest: two shared vCPUs, no NUMA wish."""

WITH_DEVICES: Spec = {
    "domain": {
        "cpu": {"cores": 2},
        "memory": {"guest": "1Gi"},
        "devices": {
            "disks": [
                {"name": "root", "bootOrder": 1},
                {"name": "data", "disk": {"bus": "sata"}, "bootOrder": 2},
            ],
            "interfaces": [
                {"name": "net0", "macAddress": "52:54:00:00:00:01"},
                {"name": "net1", "model": "e1000e"},
            ],
        },
    },
    "networks": [{"name": "net0", "user": {}}, {"name": "net1", "user": {}}],
    "volumes": [
        {"name": "root", "hostDisk": {"path": "/var/lib/numavm/root.img"}},
        {"name": "data", "hostDisk": {"path": "/var/lib/numavm/data.img"}},
    ],
}
"""Two disks and two interfaces."""

KERNEL_BOOT: Spec = {
    "domain": {
        "memory": {"guest": "1.5Gi"},
        "firmware": {
            "kernelBoot": {
                "kernel": "/boot/vmlinuz",
                "initrd": "/boot/initrd.img",
                "args": "console=ttyS0 quiet",
            }
        },
    }
}

GOOD: Mapping[str, Spec] = {
    "two-cells": TWO_CELLS,
    "no-cells": NO_CELLS,
    "with-devices": WITH_DEVICES,
    "kernel-boot": KERNEL_BOOT,
    "huge-pages-by-cell": {
        "runStrategy": "RerunOnFailure",
        "nodeSelector": {"topology.kubernetes.io/zone": "a", "numa": ""},
        "placement": {"cellSharing": "Allow"},
        "domain": {
            "machine": {"type": "pc-q35-7.2"},
            "cpu": {
                "cores": 4,
                "model": "host-model",
                "numa": {
                    "hostBinding": {"mode": "Preferred"},
                    "cells": [
                        cell(1, "0,2", "1Gi", hugepages={"pageSize": "1Gi"}),
                        cell(0, "1,3", 1073741824, hugepages={"pageSize": "2Mi"}),
                    ],
                },
            },
            "memory": {"guest": "2Gi", "backing": {"source": "Memfd", "access": "Shared"}},
        },
    },
    "where-it-may-go": {
        **NO_CELLS,
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "zone", "operator": "In", "values": ["a", "b"]},
                                {"key": "cores", "operator": "Gt", "values": ["15"]},
                            ]
                        },
                        {
                            "matchFields": [
                                {"key": "metadata.name", "operator": "In", "values": ["host-a"]}
                            ]
                        },
                    ]
                },
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 10,
                        "preference": {"matchExpressions": [{"key": "fast", "operator": "Exists"}]},
                    }
                ],
            }
        },
        "tolerations": [
            {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "team", "value": "numa"},
        ],
        "priorityClassName": "urgent",
    },
    "as-much-as-may-be-added": {
        **TWO_CELLS,
        "placement": {
            "reserveMaximum": True,
            "lastLevelCache": "Whole",
            "cellSharing": "Allow",
            "spread": [
                {"labelSelector": {"matchLabels": {"app": "db"}}},
                {"labelSelector": {"matchLabels": {"app": "web", "tier": "a"}}, "over": "Cell"},
            ],
        },
    },
    "everything-about-cells": {
        "domain": {
            "cpu": {
                "sockets": 2,
                "cores": 2,
                "onlineVcpus": "0,2-3",
                "model": "EPYC",
                "features": [{"name": "avx2", "policy": "optional"}],
                "cache": {"level": 3, "mode": "emulate"},
                "tuning": {
                    "shares": 2048,
                    "periodMicroseconds": 100000,
                    "quotaMicroseconds": 50000,
                },
                "pinning": {
                    "cpuset": "1-4,^3,6",
                    "vcpus": [{"vcpu": 1, "cpuset": "0-4,^2"}],
                    "emulator": "0-6",
                },
                "numa": {
                    "cells": [
                        cell(
                            0, "0-1", distances=[{"cell": 1, "value": 21}, {"cell": 2, "value": 40}]
                        ),
                        cell(1, "2-3", access="Shared"),
                        {
                            "id": 2,
                            "memory": "1Gi",
                            "hugepages": {"pageSize": "2Mi", "fallback": ["4Ki"]},
                            "caches": [{"level": 1, "size": "8Ki", "lineBytes": 64}],
                        },
                    ],
                    "interconnects": {
                        "latencies": [
                            {
                                "initiator": 0,
                                "target": 2,
                                "type": "Access",
                                "latencyNanoseconds": 90,
                            },
                            {
                                "initiator": 0,
                                "target": 2,
                                "cacheLevel": 1,
                                "type": "Access",
                                "latencyNanoseconds": 20,
                            },
                        ],
                        "bandwidths": [
                            {
                                "initiator": 0,
                                "target": 2,
                                "type": "Access",
                                "bytesPerSecond": "10Gi",
                            }
                        ],
                    },
                },
            },
            "memory": {"backing": {"allocationThreads": 2, "coreDump": "Disabled", "locked": True}},
        },
    },
    "derived": {
        "domain": {
            "cpu": {
                "sockets": 2,
                "maxSockets": 4,
                "dedicatedCpuPlacement": True,
                "realtime": {"mask": "1", "priority": 2},
                "numa": {
                    "guestMappingPassthrough": {"cells": 2},
                    "hostBinding": {"mode": "Preferred"},
                },
            },
            "memory": {"guest": "2Gi", "backing": {"source": "File", "discard": "Enabled"}},
        },
    },
    "bound-by-hand": {
        "runStrategy": "Halted",
        "restartToken": "2026-01-01T00:00:00Z",
        "terminationGracePeriodSeconds": 0,
        "domain": {
            "type": "TCG",
            "cpu": {
                "sockets": 2,
                "dedicatedCpuPlacement": True,
                "threadPolicy": "Isolate",
                "isolateEmulatorThread": True,
                "numa": {
                    "hostBinding": {"hostCells": "0-3,^2", "mode": "Restrictive"},
                    "cells": [
                        cell(0, "0", hostBinding={"hostCells": "0-1"}),
                        cell(1, "1", hostBinding={"hostCells": "3"}),
                    ],
                },
            },
            "memory": {"guest": "2Gi"},
        },
    },
    **GOOD_DEVICES,
}
"""Accepted by everyone."""


@dataclass(frozen=True)
class BadManifest:
    """A good spec with one change that must be refused."""

    name: str
    base: Spec
    path: str
    """Where the change is made: `domain.cpu.numa.cells.1.cpus`."""
    value: Any
    """What is put there, or `REMOVED`."""
    refuser: Refuser
    says: tuple[str, ...]
    """Parts that the refusal has: field, value, limit."""

    @property
    def spec(self) -> Spec:
        """The bad spec."""
        return changed(self.base, self.path, self.value)

    def __str__(self) -> str:
        return self.name


def changed(base: Spec, path: str, value: Any) -> Spec:
    """Return a copy of a spec with the value at a path changed, or taken away."""
    result = copy.deepcopy(base)
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    parent: Any = result
    for step in steps:
        parent = parent[step] if isinstance(step, int) else parent.setdefault(step, {})
    if value is REMOVED:
        del parent[last]
    else:
        parent[last] = value
    return result


def numavm(name: str, spec: Spec, namespace: str | None = None) -> dict[str, Any]:
    """Return a NumaVM."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {
        "apiVersion": "numavm.io/v1alpha1",
        "kind": "NumaVM",
        "metadata": metadata,
        "spec": copy.deepcopy(spec),
    }


_CELLS = "domain.cpu.numa.cells"


def _affinity(operator: str, *values: str) -> dict[str, Any]:
    """Return a required node affinity of one expression."""
    expression = {"key": "zone", "operator": operator, "values": list(values)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def _by_schema() -> list[BadManifest]:
    def bad(name: str, base: Spec, path: str, value: Any, *says: str) -> BadManifest:
        return BadManifest(name, base, path, value, Refuser.SCHEMA, says)

    huge = changed(TWO_CELLS, "domain.memory.hugepages", {"pageSize": "2Mi"})
    return [
        bad("run-strategy-unknown", NO_CELLS, "runStrategy", "Sometimes", "spec.runStrategy", "Sometimes", "Always"),
        bad("grace-negative", NO_CELLS, "terminationGracePeriodSeconds", -1, "spec.terminationGracePeriodSeconds", "-1", "0"),
        bad("restart-token-long", NO_CELLS, "restartToken", "t" * 65, "spec.restartToken", "64"),
        bad("no-domain", NO_CELLS, "domain", REMOVED, "spec.domain", "Required"),
        bad("unknown-field", NO_CELLS, "domain.cpu.hyperthreads", 2, "spec.domain.cpu.hyperthreads", "unknown field"),
        bad("zero-sockets", NO_CELLS, "domain.cpu.sockets", 0, "spec.domain.cpu.sockets", "0", "1"),
        bad("too-many-threads", NO_CELLS, "domain.cpu.threads", 16, "spec.domain.cpu.threads", "16", "8"),
        bad("sockets-text", NO_CELLS, "domain.cpu.sockets", "two", "spec.domain.cpu.sockets", "integer"),
        bad("model-hostile", NO_CELLS, "domain.cpu.model", "x'/><evil", "spec.domain.cpu.model", "evil", "A-Za-z0-9"),
        bad("machine-unknown", NO_CELLS, "domain.machine.type", "virt", "spec.domain.machine.type", "virt", "q35"),
        bad("no-cells-at-all", TWO_CELLS, _CELLS, [], "spec.domain.cpu.numa.cells", "guestMappingPassthrough"),
        bad("declared-and-derived", TWO_CELLS, "domain.cpu.numa.guestMappingPassthrough", {}, "spec.domain.cpu.numa.cells", "guestMappingPassthrough"),
        bad("derived-without-memory", NO_CELLS, "domain", {"cpu": {"numa": {"guestMappingPassthrough": {}}}}, "spec.domain.memory.guest", "needs memory"),
        bad("interconnects-of-derived", NO_CELLS, "domain.cpu.numa", {"guestMappingPassthrough": {}, "interconnects": {}}, "spec.domain.cpu.numa.interconnects", "derived"),
        bad("no-cell-has-cpus", TWO_CELLS, _CELLS, [{"id": 0, "memory": "1Gi"}], "spec.domain.cpu.numa.cells", "cpus"),
        bad("distance-below-local", TWO_CELLS, f"{_CELLS}.0.distances", [{"cell": 1, "value": 9}], "cells[0].distances[0].value", "9", "10"),
        bad("distance-local-to-another", TWO_CELLS, f"{_CELLS}.0.distances", [{"cell": 1, "value": 10}], "cells[0].distances", "11 to 255"),
        bad("distance-past-255", TWO_CELLS, f"{_CELLS}.0.distances", [{"cell": 1, "value": 256}], "cells[0].distances[0].value", "256", "255"),
        bad("distances-twice-over", changed(TWO_CELLS, f"{_CELLS}.0.distances", [{"cell": 1, "value": 21}]), "domain.cpu.numa.distances", "FromHost", "spec.domain.cpu.numa.distances", "FromHost", "declare"),
        bad("latency-too-long", TWO_CELLS, "domain.cpu.numa.interconnects", {"latencies": [{"initiator": 0, "target": 0, "type": "Access", "latencyNanoseconds": 65535}]}, "latencies[0].latencyNanoseconds", "65535", "65534"),
        bad("bandwidth-odd", TWO_CELLS, "domain.cpu.numa.interconnects", {"bandwidths": [{"initiator": 0, "target": 0, "type": "Access", "bytesPerSecond": "1500Ki"}]}, "bandwidths[0].bytesPerSecond", "1500Ki", "1Mi"),
        bad("cache-level-four", TWO_CELLS, f"{_CELLS}.0.caches", [{"level": 4, "size": "8Ki", "lineBytes": 64}], "cells[0].caches[0].level", "4", "3"),
        bad("fallback-is-the-page-size", TWO_CELLS, f"{_CELLS}.0.hugepages", {"pageSize": "2Mi", "fallback": ["2048Ki"]}, "cells[0].hugepages.fallback", "another size"),
        bad("max-sockets-below", TWO_CELLS, "domain.cpu.maxSockets", 1, "spec.domain.cpu.maxSockets", "sockets"),
        bad("vcpus-twice-over", NO_CELLS, "domain.cpu", {"cores": 2, "vcpus": 1, "onlineVcpus": "0"}, "spec.domain.cpu.vcpus", "onlineVcpus"),
        bad("vcpus-beside-max-sockets", NO_CELLS, "domain.cpu", {"maxSockets": 2, "vcpus": 1}, "spec.domain.cpu.maxSockets", "vcpus"),
        bad("vcpus-past-the-maximum", NO_CELLS, "domain.cpu.vcpus", 3, "spec.domain.cpu.vcpus", "sockets"),
        bad("cache-emulated-at-level-one", NO_CELLS, "domain.cpu.cache", {"level": 1, "mode": "emulate"}, "spec.domain.cpu.cache.level", "3"),
        bad("cache-passthrough-of-a-model", changed(NO_CELLS, "domain.cpu.model", "EPYC"), "domain.cpu.cache", {"mode": "passthrough"}, "spec.domain.cpu.cache.mode", "host-passthrough", "EPYC"),
        bad("feature-policy-unknown", NO_CELLS, "domain.cpu.features", [{"name": "avx2", "policy": "maybe"}], "features[0].policy", "maybe", "require"),
        bad("realtime-without-dedicated", NO_CELLS, "domain.cpu.realtime", {}, "spec.domain.cpu.realtime", "dedicated"),
        bad("realtime-priority", TWO_CELLS, "domain.cpu.realtime", {"priority": 100}, "spec.domain.cpu.realtime.priority", "100", "99"),
        bad("shares-past-cgroup-v2", NO_CELLS, "domain.cpu.tuning", {"shares": 10001}, "spec.domain.cpu.tuning.shares", "10001", "10000"),
        bad("quota-too-short", NO_CELLS, "domain.cpu.tuning", {"quotaMicroseconds": 999}, "spec.domain.cpu.tuning.quotaMicroseconds", "999", "1000"),
        bad("class-without-cpus", TWO_CELLS, f"{_CELLS}.1.hostCellClass", "CXL", "numa.cells[1].hostCellClass", "CXL", "no CPUs"),
        bad("class-unknown", TWO_CELLS, f"{_CELLS}.1.hostCellClass", "PMEM", "numa.cells[1].hostCellClass", "PMEM", "HBM"),
        bad("discard-of-anonymous", NO_CELLS, "domain.memory.backing", {"discard": "Enabled"}, "spec.domain.memory.backing.discard", "Enabled", "file"),
        bad("cell-id-twice", TWO_CELLS, f"{_CELLS}.1.id", 0, "spec.domain.cpu.numa.cells[1]", "Duplicate", "0"),
        bad("cell-id-too-large", TWO_CELLS, f"{_CELLS}.1.id", 16, "cells[1].id", "16", "15"),
        bad("cpuset-text", TWO_CELLS, f"{_CELLS}.0.cpus", "zero to three", "cells[0].cpus", "zero to three", "[0-9]"),
        bad("cpuset-empty", TWO_CELLS, f"{_CELLS}.0.cpus", "", "cells[0].cpus", "[0-9]"),
        bad("cpuset-starts-with-exclusion", TWO_CELLS, f"{_CELLS}.0.cpus", "^3,0-2", "cells[0].cpus", "^3,0-2"),
        bad("cpuset-long", TWO_CELLS, f"{_CELLS}.0.cpus", "0," * 600 + "0", "cells[0].cpus", "1024"),
        bad("cell-memory-zero", TWO_CELLS, f"{_CELLS}.0.memory", 0, "cells[0].memory", "0", "1Mi"),
        bad("cell-memory-odd", TWO_CELLS, f"{_CELLS}.0.memory", "1025Ki", "cells[0].memory", "1025Ki", "1Mi"),
        bad("cell-memory-negative", TWO_CELLS, f"{_CELLS}.0.memory", -1, "cells[0].memory", "-1", "0"),
        bad("cell-memory-gb", TWO_CELLS, f"{_CELLS}.0.memory", "1GB", "cells[0].memory", "1GB"),
        bad("cell-memory-fraction", TWO_CELLS, f"{_CELLS}.0.memory", "0.5", "cells[0].memory", "0.5", "whole number"),
        bad("cell-memory-too-large", TWO_CELLS, f"{_CELLS}.0.memory", "99999999Pi", "cells[0].memory", "99999999Pi", "2^63"),
        bad("cell-memory-not-in-its-pages", TWO_CELLS, f"{_CELLS}.0.hugepages", {"pageSize": "16Gi"}, "cells[0].memory", "1Gi", "16Gi"),
        bad("page-size-odd", TWO_CELLS, f"{_CELLS}.0.hugepages", {"pageSize": "3Mi"}, "cells[0].hugepages.pageSize", "3Mi", "power of two"),
        bad("page-size-small", NO_CELLS, "domain.memory.hugepages", {"pageSize": "64Ki"}, "memory.hugepages.pageSize", "64Ki", "2Mi"),
        bad("binding-mode-unknown", TWO_CELLS, "domain.cpu.numa.hostBinding", {"mode": "strict"}, "numa.hostBinding.mode", "strict", "Strict"),
        bad("host-cells-text", TWO_CELLS, "domain.cpu.numa.hostBinding", {"hostCells": "all"}, "numa.hostBinding.hostCells", "all"),
        bad("no-memory", NO_CELLS, "domain.memory", {}, "spec.domain.memory.guest", "nothing", "needs memory"),
        bad("guest-odd", NO_CELLS, "domain.memory.guest", "1000k", "spec.domain.memory.guest", "1000k", "1Mi"),
        bad("guest-not-in-pages", changed(NO_CELLS, "domain.memory.hugepages", {"pageSize": "1Gi"}), "domain.memory.guest", "1536Mi", "spec.domain.memory.guest", "1536Mi", "1Gi"),
        bad("huge-pages-anonymous", huge, "domain.memory.backing", {"source": "Anonymous"}, "spec.domain.memory.backing.source", "Anonymous", "memfd"),
        bad("huge-pages-on-demand", huge, "domain.memory.backing", {"allocation": "OnDemand"}, "spec.domain.memory.backing.allocation", "OnDemand", "huge page"),
        bad("shared-anonymous", NO_CELLS, "domain.memory.backing", {"source": "Anonymous", "access": "Shared"}, "spec.domain.memory.backing.source", "Anonymous", "Shared"),
        bad("require-without-dedicated", NO_CELLS, "domain.cpu.threadPolicy", "Require", "spec.domain.cpu.threadPolicy", "Require", "dedicated"),
        bad("isolate-without-dedicated", NO_CELLS, "domain.cpu.threadPolicy", "Isolate", "spec.domain.cpu.threadPolicy", "Isolate", "dedicated"),
        bad("emulator-without-dedicated", NO_CELLS, "domain.cpu", {"isolateEmulatorThread": True}, "spec.domain.cpu.isolateEmulatorThread", "true", "dedicated"),
        bad("two-ways-to-boot", KERNEL_BOOT, "domain.firmware.bootloader", {"bios": {}}, "spec.domain.firmware.kernelBoot", "bootloader", "one way"),
        bad("kernel-dots", KERNEL_BOOT, "domain.firmware.kernelBoot.kernel", "/boot/../etc/shadow", "kernelBoot.kernel", "/boot/../etc/shadow", ".."),
        bad("initrd-dots", KERNEL_BOOT, "domain.firmware.kernelBoot.initrd", "/boot/./x", "kernelBoot.initrd", "/boot/./x", "component ."),
        bad("kernel-relative", KERNEL_BOOT, "domain.firmware.kernelBoot.kernel", "vmlinuz", "kernelBoot.kernel", "vmlinuz", "^/"),
        bad("kernel-blank", KERNEL_BOOT, "domain.firmware.kernelBoot.kernel", "/boot/a b", "kernelBoot.kernel", "/boot/a b"),
        bad("kernel-newline", KERNEL_BOOT, "domain.firmware.kernelBoot.kernel", "/boot/a\nb", "kernelBoot.kernel"),
        bad("args-newline", KERNEL_BOOT, "domain.firmware.kernelBoot.args", "quiet\ninit=/x", "kernelBoot.args", "quiet"),
        bad("args-long", KERNEL_BOOT, "domain.firmware.kernelBoot.args", "a" * 2048, "kernelBoot.args", "2047"),
        bad("volume-dots", WITH_DEVICES, "volumes.0.hostDisk.path", "/var/lib/../x", "spec.volumes[0].hostDisk.path", "/var/lib/../x", ".."),
        bad("disk-name-hostile", WITH_DEVICES, "domain.devices.disks.0.name", "../root", "disks[0].name", "../root"),
        bad("disk-name-twice", WITH_DEVICES, "domain.devices.disks.1.name", "root", "disks[1]", "Duplicate", "root"),
        bad("disk-bus-unknown", WITH_DEVICES, "domain.devices.disks.0.disk", {"bus": "ide"}, "disks[0].disk.bus", "ide", "virtio"),
        bad("boot-order-zero", WITH_DEVICES, "domain.devices.disks.0.bootOrder", 0, "disks[0].bootOrder", "0", "1"),
        bad("mac-multicast", WITH_DEVICES, "domain.devices.interfaces.0.macAddress", "01:00:5e:00:00:01", "interfaces[0].macAddress", "01:00:5e:00:00:01"),
        bad("network-of-no-kind", WITH_DEVICES, "networks.0", {"name": "net0"}, "spec.networks[0]", "one of user, bridge and network"),
        bad("network-of-two-kinds", WITH_DEVICES, "networks.0", {"name": "net0", "user": {}, "bridge": {"name": "br0"}}, "spec.networks[0]", "one of user, bridge and network"),
        bad("bridge-with-a-path", WITH_DEVICES, "networks.0", {"name": "net0", "bridge": {"name": "../br0"}}, "spec.networks[0].bridge.name", "../br0"),
        bad("bridge-name-too-long", WITH_DEVICES, "networks.0", {"name": "net0", "bridge": {"name": "b" * 16}}, "spec.networks[0].bridge.name", "15"),
        bad("affinity-in-nothing", NO_CELLS, "affinity", _affinity("In"), "matchExpressions[0].values", "need values"),
        bad("affinity-exists-with-values", NO_CELLS, "affinity", _affinity("Exists", "a"), "matchExpressions[0].values", "none"),
        bad("affinity-more-than-a-word", NO_CELLS, "affinity", _affinity("Gt", "many"), "matchExpressions[0].values", "whole number"),
        bad("toleration-of-everything", NO_CELLS, "tolerations", [{"value": "x"}], "spec.tolerations[0].operator", "Exists"),
        bad("toleration-exists-with-value", NO_CELLS, "tolerations", [{"key": "a", "operator": "Exists", "value": "x"}], "spec.tolerations[0].value", "x", "none"),
        bad("priority-class-no-name", NO_CELLS, "priorityClassName", "Not A Name", "spec.priorityClassName", "Not A Name"),
        bad("whole-cache-without-dedicated", NO_CELLS, "placement", {"lastLevelCache": "Whole"}, "spec.placement.lastLevelCache", "Whole", "dedicated"),
        bad("node-selector-large", NO_CELLS, "nodeSelector", {f"k{n}": "v" for n in range(17)}, "spec.nodeSelector", "16"),
    ]  # fmt: skip


def _by_policy() -> list[BadManifest]:
    def bad(name: str, base: Spec, path: str, value: Any, *says: str) -> BadManifest:
        return BadManifest(name, base, path, value, Refuser.POLICY, says)

    restrictive = {"mode": "Restrictive"}
    return [
        bad("too-many-vcpus", NO_CELLS, "domain.cpu.sockets", 300, "spec.domain.cpu.maxSockets", "600", "512"),
        bad("too-many-vcpus-for-pc", changed(NO_CELLS, "domain.machine.type", "pc"), "domain.cpu.sockets", 128, "spec.domain.cpu.maxSockets", "256", "255", "q35"),
        bad("cell-id-gap", TWO_CELLS, f"{_CELLS}.1.id", 2, "spec.domain.cpu.numa.cells[*].id", "0, 2", "0 to 1"),
        bad("vcpu-past-the-maximum", TWO_CELLS, f"{_CELLS}.1.cpus", "4-8", "cells[*].cpus", "4-8", "0 to 7"),
        bad("vcpu-in-two-cells", TWO_CELLS, f"{_CELLS}.1.cpus", "3-7", "cells[*].cpus", "3-7", "exactly one"),
        bad("vcpu-in-no-cell", TWO_CELLS, f"{_CELLS}.1.cpus", "4-6", "cells[*].cpus", "4-6", "7 of 8"),
        bad("cpuset-backwards", TWO_CELLS, f"{_CELLS}.1.cpus", "7-4", "cells[1].cpus", "7-4", "backwards"),
        bad("host-cells-backwards", TWO_CELLS, f"{_CELLS}.1.hostBinding", {"hostCells": "1-0"}, "cells[1].hostBinding.hostCells", "1-0", "backwards"),
        bad("host-cells-past-everything", TWO_CELLS, "domain.cpu.numa.hostBinding", {"hostCells": "0,20000"}, "numa.hostBinding.hostCells", "0,20000", "16383"),
        bad("restrictive-for-one", TWO_CELLS, f"{_CELLS}.1.hostBinding", restrictive, "cells[*].hostBinding.mode", "Strict, Restrictive", "all cells or for none"),
        bad("guest-is-not-the-sum", TWO_CELLS, "domain.memory.guest", "3Gi", "spec.domain.memory.guest", "3Gi", "2147483648"),
        bad("cells-not-in-pages", changed(TWO_CELLS, f"{_CELLS}.1.memory", "1536Mi"), "domain.memory.hugepages", {"pageSize": "1Gi"}, "cells[*].memory", "1536Mi", "1Gi"),
        bad("memory-too-large", NO_CELLS, "domain.memory.guest", "65Ti", "spec.domain.memory.guest", "65Ti", "64Ti"),
        bad("disk-without-volume", WITH_DEVICES, "domain.devices.disks.1.name", "swap", "spec.domain.devices.disks[*].name", "swap", "spec.volumes"),
        bad("volume-without-disk", WITH_DEVICES, "domain.devices.disks", [{"name": "root"}], "spec.volumes[*].name", "data", "spec.domain.devices.disks"),
        bad("interface-without-network", WITH_DEVICES, "domain.devices.interfaces.0.name", "net9", "spec.domain.devices.interfaces[*].name", "net9", "spec.networks"),
        bad("network-without-interface", WITH_DEVICES, "domain.devices.interfaces", [{"name": "net0"}], "spec.networks[*].name", "net1", "spec.domain.devices.interfaces"),
        bad("boot-order-twice", WITH_DEVICES, "domain.devices.disks.1.bootOrder", 1, "disks[*].bootOrder", "1, 1", "once"),
        bad("one-image-twice", WITH_DEVICES, "volumes.1.hostDisk.path", "/var/lib/numavm/root.img", "spec.volumes[*].hostDisk.path", "/var/lib/numavm/root.img", "one image"),
        bad("mac-twice", WITH_DEVICES, "domain.devices.interfaces.1.macAddress", "52:54:00:00:00:01", "interfaces[*].macAddress", "52:54:00:00:00:01", "one address"),
        bad("mac-zero", WITH_DEVICES, "domain.devices.interfaces.1.macAddress", "00:00:00:00:00:00", "interfaces[*].macAddress", "00:00:00:00:00:00", "no address"),
        bad("pin-past-the-maximum", NO_CELLS, "domain.cpu.pinning", {"vcpus": [{"vcpu": vcpu, "cpuset": "0"} for vcpu in range(4)]}, "pinning.vcpus[*].vcpu", "2, 3", "0 to 1"),
        bad("pin-backwards", NO_CELLS, "domain.cpu.pinning", {"cpuset": "4-1"}, "spec.domain.cpu.pinning.cpuset", "4-1", "backwards"),
        bad("interconnect-of-no-cell", TWO_CELLS, "domain.cpu.numa.interconnects", {"latencies": [{"initiator": 0, "target": 2, "type": "Access", "latencyNanoseconds": 5}]}, "spec.domain.cpu.numa.interconnects", "0, 1"),
        bad("distance-to-no-cell", TWO_CELLS, f"{_CELLS}.0.distances", [{"cell": 7, "value": 21}], "cells[*].distances", "0, 1"),
        bad("label-key", NO_CELLS, "nodeSelector", {"a b": "c"}, "spec.nodeSelector", "a b", "label key"),
        bad("label-value", NO_CELLS, "nodeSelector", {"zone": "a/b"}, "spec.nodeSelector", "a/b", "label value"),
    ]  # fmt: skip


def _by_operator() -> list[BadManifest]:
    def bad(name: str, base: Spec, path: str, value: Any, *says: str) -> BadManifest:
        return BadManifest(name, base, path, value, Refuser.OPERATOR, says)

    whole = changed(TWO_CELLS, "domain.cpu.numa.hostBinding", {"hostCells": "0"})
    cells = [cell(0, "0-2,5"), cell(1, "3-4,6-7")]
    hidden = [cell(0, "0-3,2-3"), cell(1, "4-6")]
    return [
        bad("exclusion-of-nothing", TWO_CELLS, f"{_CELLS}.1.cpus", "4-7,^3", "spec.domain.cpu.numa.cells[1].cpus", "4-7,^3", "not listed"),
        bad("exclusion-of-everything", TWO_CELLS, "domain.cpu.numa.hostBinding", {"hostCells": "1,^1"}, "spec.domain.cpu.numa.hostBinding.hostCells", "1,^1", "everything"),
        bad("vcpu-excluded-from-its-cell", TWO_CELLS, f"{_CELLS}.1.cpus", "4-7,^6-7", "cells[*].cpus", "0-5", "6-7"),
        bad("vcpu-missing-behind-an-overlap", TWO_CELLS, _CELLS, hidden, "cells[*].cpus", "0-6", "vCPU 7 of 8"),
        bad("pin-excludes-nothing", NO_CELLS, "domain.cpu.pinning", {"cpuset": "1-4,^7"}, "spec.domain.cpu.pinning.cpuset", "1-4,^7", "not listed"),
        bad("pin-of-no-io-thread", NO_CELLS, "domain.cpu.pinning", {"ioThreads": [{"id": 2, "cpuset": "1"}]}, "spec.domain.cpu.pinning.ioThreads[0].id", "2", "none"),
        bad("vcpu-0-off", NO_CELLS, "domain.cpu.onlineVcpus", "1", "spec.domain.cpu.onlineVcpus", "'1'", "vCPU 0", "'0,1'"),
        bad("cell-all-off", TWO_CELLS, "domain.cpu.vcpus", 4, "spec.domain.cpu.numa.cells[1].cpus", "'4-7'", "0-3"),
        bad("online-past-the-maximum", NO_CELLS, "domain.cpu.onlineVcpus", "0-2", "spec.domain.cpu.onlineVcpus", "'0-2'", "vCPU 2", "0 to 1"),
        bad("realtime-past-the-maximum", TWO_CELLS, "domain.cpu.realtime", {"mask": "8"}, "spec.domain.cpu.realtime.mask", "'8'", "0 to 7"),
        bad("realtime-with-merging", changed(TWO_CELLS, "domain.memory.backing", {"samePageMerging": "Enabled"}), "domain.cpu.realtime", {}, "spec.domain.memory.backing.samePageMerging", "Enabled", "realtime"),
        bad("cache-without-figures", TWO_CELLS, f"{_CELLS}.0.caches", [{"level": 1, "size": "8Ki", "lineBytes": 64}], "spec.domain.cpu.numa.cells[0].caches", "latencies and bandwidths", "target 0"),
        bad("cache-levels-with-a-gap", TWO_CELLS, f"{_CELLS}.0.caches", [{"level": 2, "size": "8Ki", "lineBytes": 64}], "cells[0].caches[*].level", "2", "without gaps"),
        bad("latency-twice", TWO_CELLS, "domain.cpu.numa.interconnects", {"latencies": [{"initiator": 0, "target": 1, "type": "Access", "latencyNanoseconds": ns} for ns in (5, 6)]}, "interconnects.latencies[1]", "0 -> 1", "earlier"),
        bad("latencies-both-ways", TWO_CELLS, "domain.cpu.numa.interconnects", {"latencies": [{"initiator": a, "target": 1 - a, "type": "Access", "latencyNanoseconds": 5} for a in (0, 1)]}, "interconnects.latencies[1]", "1 -> 0", "one direction"),
        bad("latency-of-no-cache", TWO_CELLS, "domain.cpu.numa.interconnects", {"latencies": [{"initiator": 0, "target": 1, "cacheLevel": 1, "type": "Access", "latencyNanoseconds": 5}]}, "latencies[0].cacheLevel", "1", "no memory-side cache"),
        bad("bandwidths-too-far-apart", TWO_CELLS, "domain.cpu.numa.interconnects", {"bandwidths": [{"initiator": 0, "target": target, "type": "Access", "bytesPerSecond": amount} for target, amount in ((0, "100Gi"), (1, "1Mi"))]}, "bandwidths[1].bytesPerSecond", "1Mi", "16 bits"),
        bad("file-shared", NO_CELLS, "domain.memory.backing", {"source": "File", "access": "Shared"}, "spec.domain.memory.backing.source", "File", "Shared"),
        bad("cell-discard-of-memfd", changed(TWO_CELLS, "domain.memory.backing", {"source": "Memfd"}), f"{_CELLS}.0.discard", "Enabled", "cells[0].discard", "Enabled", "file"),
        bad("class-taken-at-start", TWO_CELLS, _CELLS, [cell(0, "0-7"), {"id": 1, "memory": "1Gi", "hostCellClass": "HBM"}], "cells[1].hostCellClass", "HBM with allocation Immediate", "OnDemand"),
        bad("cell-shared-anonymous", changed(TWO_CELLS, "domain.memory.backing", {"source": "Anonymous"}), f"{_CELLS}.1.access", "Shared", "spec.domain.memory.backing.source", "Anonymous", "cells[1].access"),
        bad("core-torn-apart", TWO_CELLS, _CELLS, cells, "spec.domain.cpu.numa.cells[0].cpus", "0-2,5", "vCPU 3-4", "2 threads per core"),
        bad("nodesets-without-a-common-cell", whole, f"{_CELLS}.1.hostBinding", {"hostCells": "1"}, "spec.domain.cpu.numa.cells[1].hostBinding.hostCells", "'1'", "spec.domain.cpu.numa.hostBinding.hostCells '0'"),
    ]  # fmt: skip


def _of_devices() -> list[BadManifest]:
    return [
        BadManifest(name, base, path, value, refuser, says)
        for refuser, rows in (
            (Refuser.SCHEMA, BY_SCHEMA),
            (Refuser.POLICY, BY_POLICY),
            (Refuser.OPERATOR, BY_OPERATOR),
        )
        for name, base, path, value, says in rows
    ]


BAD: tuple[BadManifest, ...] = (*_by_schema(), *_by_policy(), *_by_operator(), *_of_devices())
"""Each refused, and by whom."""
