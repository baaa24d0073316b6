"""Whole objects through a real API server: reports, the largest VM, the agents' field selector."""

from collections.abc import Mapping
from types import UnionType
from typing import Any, get_args

import pytest
from kubernetes import client

from numavm_api.base import StatusModel
from numavm_api.numahost import NumaHostStatus
from numavm_api.numavm import NumaVMSpec
from numavm_api.reading import read_spec
from numavm_api.vm_status import NumaVMStatus
from support.cluster import Callers
from support.custom_objects import NumaHosts, NumaVMs
from support.manifests import NO_CELLS, cell

_CLAIM: Mapping[str, Any] = {
    "id": "7f3c9a",
    "epoch": 12,
    "requestHash": "ab" * 16,
    "cpuPlacement": "Dedicated",
    "summary": "0->1",
    "cells": [
        {
            "id": 0,
            "hostCells": "1",
            "mode": "Strict",
            "memory": "8Gi",
            "pageSize": "1Gi",
            "vcpus": "0-1",
            "pcpus": ["2", "18"],
            "plugged": "1Gi",
            "heldVcpus": "0-1",
        }
    ],
    "dedicatedCpus": "2-3,18-19",
    "emulatorCpus": "19",
    "ioThreadCpus": ["3"],
    "devices": [{"name": "nic", "address": "0000:65:00.0", "hostCell": 1, "cell": 0}],
    "modules": [
        {
            "name": "m1",
            "cell": 0,
            "hostCells": "0",
            "mode": "Strict",
            "memory": "1Gi",
            "pageSize": "2Mi",
        }
    ],
    "overhead": "220Mi",
    "overheadCell": 1,
}
CLAIM: Mapping[str, Any] = {**_CLAIM, "previous": {**_CLAIM, "id": "5d"}}
OPERATORS_PART: Mapping[str, Any] = {
    "observedGeneration": 3,
    "printableStatus": "Running",
    "nodeName": "host-a",
    "reservedNodeName": "host-a",
    "placement": CLAIM,
    "derivedCells": 2,
    "refusals": [
        {
            "nodeName": "host-b",
            "placementId": "5d",
            "reason": "HugePagesTaken",
            "message": "cell 0: 4 pages of 1Gi asked, 2 free",
            "hostResourceVersion": "812",
            "time": "2026-01-01T00:00:00Z",
            "count": 2,
        }
    ],
}
BALLOON: Mapping[str, Any] = {
    "target": "6Gi",
    "actual": "7Gi",
    "available": "7900Mi",
    "usable": "5Gi",
    "unused": "4Gi",
    "lastUpdate": "2026-01-01T00:00:04Z",
    "stale": False,
}
MODULE: Mapping[str, Any] = {
    "name": "m0",
    "model": "virtio-mem",
    "cell": 0,
    "size": "2Gi",
    "requested": "1Gi",
    "current": "1Gi",
}
AGENTS_PART: Mapping[str, Any] = {
    "domain": {
        "nodeName": "host-a",
        "uuid": "0d9a9b4e-6d3c-4c4e-8f0a-2a3f2f0c7f11",
        "name": "ns_db_0d9a9b4e",
        "state": "Running",
        "type": "KVM",
        "machine": "pc-q35-7.2",
        "placementId": "7f3c9a",
        "observedGeneration": 3,
        "restartToken": "1",
        "startedAt": "2026-01-01T00:00:01Z",
        "bootId": "b",
        "starts": 1,
        "failures": 0,
        "retryAt": "2026-01-01T00:00:01Z",
        "shutoffReason": "Stopped",
        "pausedReason": "User",
        "released": "5d",
        "refused": {"placementId": "5d", "reason": "CpuTaken", "message": "CPU 2", "time": "x"},
    },
    "currentCPUTopology": {
        "sockets": 1,
        "dies": 1,
        "cores": 1,
        "threads": 2,
        "vcpus": 2,
        "onlineVcpus": "0-1",
        "removableVcpus": "1",
    },
    "memory": {
        "guestAtBoot": "8Gi",
        "guestRequested": "8Gi",
        "guestCurrent": "8Gi",
        "balloon": BALLOON,
        "devices": [MODULE],
    },
    "operation": {
        "kind": "ReHome",
        "placementId": "7f3c9a",
        "from": "0->0",
        "to": "0->1",
        "step": "Move",
        "percent": 40,
        "message": "2 pages of guest cell 0 are held by somebody",
    },
    "numa": {
        "cells": [
            {
                "id": 0,
                "hostCells": "1",
                "vcpus": "0-1",
                "pcpus": "2,18",
                "resident": [{"hostCell": 1, "bytes": 8589934592}],
                "pinned": True,
                "aligned": True,
            }
        ],
        "verifiedAt": "2026-01-01T00:00:05Z",
    },
}
HOST_REPORT: Mapping[str, Any] = {
    "observedGeneration": 1,
    "bootId": "b",
    "agentVersion": "0.1.0",
    "highestEpoch": 12,
    "capabilities": {
        "kvm": False,
        "kvmMessage": "/dev/kvm is missing",
        "memoryMoves": False,
        "memoryMovesMessage": "cgroup v1",
        "emulationAllowed": True,
        "libvirtVersion": "9.0.0",
        "qemuVersion": "7.2.22",
        "machineTypes": ["pc-q35-7.2"],
        "maxVcpus": 288,
    },
    "cells": [
        {
            "id": 0,
            "cpus": [{"id": 0, "siblings": "0,2", "socket": 0, "lastLevelCache": 0}],
            "memory": {"total": "4Gi", "free": "3Gi", "allocatable": "3Gi"},
            "hugepages": [{"pageSize": "2Mi", "total": 8, "free": 4, "allocatable": 4}],
            "distances": [{"cell": 0, "value": 10}],
            "class": "DRAM",
            "figures": {
                "initiators": "0",
                "readLatencyNanoseconds": 80,
                "writeLatencyNanoseconds": 90,
                "readBytesPerSecond": "100Gi",
                "writeBytesPerSecond": "50Gi",
                "caches": [
                    {
                        "level": 1,
                        "associativity": "Direct",
                        "policy": "Writeback",
                        "size": "16Gi",
                        "lineBytes": 64,
                    }
                ],
            },
        }
    ],
    "pools": {
        "dedicated": "2",
        "shared": "",
        "sharedFollowsDedicated": True,
        "housekeeping": "0",
        "foreign": "4-5",
    },
    "others": {
        "kubelet": {
            "exclusiveCpus": "4",
            "allocatableCpus": "4-7",
            "memory": [{"cell": 0, "pageSize": "2Mi", "amount": "1Gi"}],
            "allocatableMemory": [{"cell": 0, "pageSize": "4Ki", "amount": "2Gi"}],
        },
        "domainCpus": "5",
    },
    "permitted": {
        "directories": ["/var/lib/numavm"],
        "realtime": True,
        "lockedMemory": True,
        "bridges": ["br0"],
        "networks": ["default"],
        "pciDevices": [{"address": "0000:65:00.0"}, {"vendor": "8086", "device": "10d3"}],
    },
    "pciDevices": [
        {
            "address": "0000:65:00.0",
            "cell": -1,
            "vendor": "8086",
            "device": "1572",
            "class": "020000",
            "iommuGroup": 7,
        }
    ],
    "claims": [
        {"uid": "0d9a", "namespace": "ns", "name": "db", "orphan": True, "placement": CLAIM}
    ],
    "summary": {"cells": "1", "cpus": "1/1"},
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "AgentReady",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
    ],
}


def left_out(model: type[StatusModel], given: Mapping[str, Any], path: str) -> list[str]:
    """Return the fields of a model that an example does not have, so that it cannot fall behind."""
    missing = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key not in given:
            missing.append(f"{path}.{key}")
            continue
        value = given[key][0] if isinstance(given[key], list) and given[key] else given[key]
        for part in models_in(field.annotation):
            missing += left_out(part, value, f"{path}.{key}")
    return missing


def models_in(annotation: Any) -> list[type[StatusModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, UnionType):
        try:
            if issubclass(annotation, StatusModel):
                return [annotation]
        except TypeError:
            pass
    return [found for part in get_args(annotation) for found in models_in(part)]


def test_the_examples_have_every_field() -> None:
    vm = {**OPERATORS_PART, **AGENTS_PART, "conditions": HOST_REPORT["conditions"]}

    assert left_out(NumaVMStatus, vm, "NumaVM.status") == []
    assert left_out(NumaHostStatus, HOST_REPORT, "NumaHost.status") == []


def test_a_status_comes_back_as_it_was_written(callers: Callers, namespace: str) -> None:
    operator = NumaVMs(callers.operator(), namespace)
    NumaVMs(callers.admin(), namespace).create("db", NO_CELLS)
    sent = NumaVMStatus.model_validate({**OPERATORS_PART, **AGENTS_PART})
    written = sent.to_api()
    operator.apply_status("db", {key: written[key] for key in OPERATORS_PART}, "claim")
    agent = NumaVMs(callers.agent("host-a"), namespace)
    agent.apply_status("db", {key: written[key] for key in AGENTS_PART}, "numavm-agent")

    stored = agent.get("db")["status"]
    assert sent == NumaVMStatus.model_validate(stored)
    assert stored == {**OPERATORS_PART, **AGENTS_PART}


def test_a_host_report_comes_back_as_it_was_written(callers: Callers) -> None:
    hosts = NumaHosts(callers.agent("host-full"))
    hosts.create("host-full")
    sent = NumaHostStatus.model_validate(HOST_REPORT)
    stored = hosts.apply_status("host-full", sent.to_api())["status"]

    assert sent == NumaHostStatus.model_validate(stored)
    assert stored == HOST_REPORT


def test_nothing_but_defaults_is_written_by_an_empty_report(callers: Callers) -> None:
    hosts = NumaHosts(callers.agent("host-empty"))
    hosts.create("host-empty")
    stored = hosts.apply_status("host-empty", NumaHostStatus().to_api())["status"]

    assert NumaHostStatus() == NumaHostStatus.model_validate(stored)


def test_agents_select_their_vms_by_node(callers: Callers, namespace: str) -> None:
    admin = NumaVMs(callers.admin(), namespace)
    operator = NumaVMs(callers.operator(), namespace)
    for name, node in (("one", "host-a"), ("two", "host-b"), ("three", None)):
        admin.create(name, NO_CELLS)
        if node:
            operator.apply_status(name, {"nodeName": node}, "claim")
    custom = client.CustomObjectsApi(callers.agent("host-a"))
    found = custom.list_namespaced_custom_object(
        "numavm.io", "v1alpha1", namespace, "numavms", field_selector="status.nodeName=host-a"
    )

    assert [item["metadata"]["name"] for item in found["items"]] == ["one"]


def largest() -> dict[str, Any]:
    """Return a spec with as much of everything as there may be, vCPUs dealt out one by one."""
    disks = [f"disk-{number}" for number in range(32)]
    cards = [f"card-{number}" for number in range(16)]
    return {
        "nodeSelector": {f"example.com/label-{number}": "x" * 63 for number in range(16)},
        "domain": {
            "cpu": {
                "sockets": 8,
                "cores": 64,
                "dedicatedCpuPlacement": True,
                "numa": {
                    "hostBinding": {"hostCells": "0-15"},
                    "cells": [
                        cell(
                            number,
                            ",".join(str(vcpu) for vcpu in range(number, 512, 16)),
                            "64Gi",
                            hostBinding={"hostCells": str(number), "mode": "Strict"},
                            hugepages={"pageSize": "1Gi"},
                        )
                        for number in range(16)
                    ],
                },
            },
            "memory": {"guest": "1Ti"},
            "devices": {
                "disks": [
                    {"name": name, "bootOrder": order} for order, name in enumerate(disks, start=1)
                ],
                "interfaces": [
                    {"name": name, "macAddress": f"52:54:00:00:00:{order:02x}"}
                    for order, name in enumerate(cards, start=1)
                ],
            },
        },
        "volumes": [
            {"name": name, "hostDisk": {"path": f"/{'d' * 480}/{name}.img"}} for name in disks
        ],
        "networks": [{"name": name, "user": {}} for name in cards],
    }


def test_the_largest_vm_stays_within_the_budget_of_every_rule(
    callers: Callers, namespace: str
) -> None:
    """A rule that runs out of budget refuses: that must not happen to what is sound."""
    stored = NumaVMs(callers.admin(), namespace).create("largest", largest())["spec"]

    assert isinstance(read_spec(stored), NumaVMSpec)


def test_a_hostile_cpuset_is_refused_and_does_no_harm(callers: Callers, namespace: str) -> None:
    """As long as may be, in every cell: refused by rule or by budget, and the server answers on."""
    spec = largest()
    for one in spec["domain"]["cpu"]["numa"]["cells"]:
        one["cpus"] = ",".join(["0-9999"] * 146)
    vms = NumaVMs(callers.admin(), namespace)
    with pytest.raises(client.exceptions.ApiException) as refused:
        vms.create("hostile", spec)
    vms.create("after", NO_CELLS)

    assert refused.value.status in {403, 422}
