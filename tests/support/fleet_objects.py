"""A NumaHost and NumaVMs as the API server has them, small enough to check views of them by hand.

host-a has two cells of four CPUs: cores {0,1} {2,3} on cell 0, {4,5} {6,7} on cell 1. CPUs 0 and 4 are the host's own.
VM `db` holds 2 and 3 (its vCPUs 0 and 1) and 6 for its emulator, 7 is kept free; `web` floats on cell 1.
"""

from typing import Any

Document = dict[str, Any]
DB_UID, WEB_UID = "00000000-0000-4000-8000-00000000000d", "00000000-0000-4000-8000-00000000000e"


def db_placement() -> Document:
    """Return the claim of `db`."""
    return {
        "id": "c1",
        "epoch": 3,
        "requestHash": "h",
        "cpuPlacement": "Dedicated",
        "summary": "0->0",
        "cells": [
            {
                "id": 0,
                "hostCells": "0",
                "mode": "Strict",
                "memory": "1Gi",
                "pageSize": "2Mi",
                "vcpus": "0-1",
                "pcpus": ["2", "3"],
            }
        ],
        "dedicatedCpus": "2-3,6-7",
        "emulatorCpus": "6",
        "overhead": "256Mi",
        "overheadCell": 1,
    }


def web_placement() -> Document:
    """Return the claim of `web`."""
    return {
        "id": "c2",
        "epoch": 3,
        "requestHash": "h",
        "cpuPlacement": "Shared",
        "summary": "0->1",
        "cells": [
            {
                "id": 0,
                "hostCells": "1",
                "mode": "Preferred",
                "memory": "512Mi",
                "pageSize": "4Ki",
                "vcpus": "0-2",
            }
        ],
        "overhead": "128Mi",
        "overheadCell": 1,
    }


def host_a() -> Document:
    """Return host-a, which reports `db` and does not yet know of `web`."""
    return {
        "apiVersion": "numavm.io/v1alpha1",
        "kind": "NumaHost",
        "metadata": {"name": "host-a"},
        "spec": {},
        "status": {
            "highestEpoch": 3,
            "cells": [_cell(0), _cell(1)],
            "pools": {
                "dedicated": "1-3,5-7",
                "shared": "1,5",
                "sharedFollowsDedicated": True,
                "housekeeping": "0,4",
                "foreign": "",
            },
            "capabilities": {
                "kvm": False,
                "kvmMessage": "/dev/kvm does not exist",
                "emulationAllowed": True,
                "libvirtVersion": "9.0.0",
                "qemuVersion": "7.2.22",
                "maxVcpus": 255,
            },
            "pciDevices": [
                {
                    "address": "0000:65:00.0",
                    "cell": 1,
                    "vendor": "8086",
                    "device": "10d3",
                    "class": "020000",
                    "iommuGroup": 7,
                }
            ],
            "claims": [
                {
                    "uid": DB_UID,
                    "namespace": "prod",
                    "name": "db",
                    "placement": db_placement(),
                }
            ],
            "conditions": [_condition("Ready", "True", "AgentReady")],
        },
    }


def db() -> Document:
    """Return the NumaVM `db`, which runs."""
    return {
        "apiVersion": "numavm.io/v1alpha1",
        "kind": "NumaVM",
        "metadata": {
            "namespace": "prod",
            "name": "db",
            "uid": DB_UID,
            "resourceVersion": "7",
            "generation": 2,
            "labels": {"app": "db"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "finalizers": ["numavm.io/teardown"],
        },
        "spec": {
            "nodeSelector": {"disk": "fast"},
            "domain": {
                "cpu": {
                    "cores": 2,
                    "dedicatedCpuPlacement": True,
                    "isolateEmulatorThread": True,
                    "threadPolicy": "Isolate",
                    "numa": {
                        "cells": [
                            {
                                "id": 0,
                                "cpus": "0-1",
                                "memory": "1Gi",
                                "hugepages": {"pageSize": "2Mi"},
                            }
                        ]
                    },
                }
            },
        },
        "status": {
            "printableStatus": "Running",
            "nodeName": "host-a",
            "placement": db_placement(),
            "domain": {
                "nodeName": "host-a",
                "state": "Running",
                "type": "KVM",
                "machine": "pc-q35-7.2",
                "placementId": "c1",
                "startedAt": "2026-01-01T00:00:00Z",
            },
            "numa": {
                "verifiedAt": "2026-01-01T00:00:05Z",
                "cells": [
                    {
                        "id": 0,
                        "hostCells": "0",
                        "vcpus": "0-1",
                        "pcpus": "2-3",
                        "resident": [
                            {"hostCell": 0, "bytes": 1071644672},
                            {"hostCell": 1, "bytes": 2097152},
                        ],
                        "pinned": True,
                        "aligned": False,
                    }
                ],
            },
            "conditions": [
                _condition("Ready", "True", "Running"),
                _condition("NumaAligned", "False", "PagesMisplaced"),
                {
                    **_condition("RestartRequired", "True", "PendingChanges"),
                    "message": "Set another spec.restartToken to apply: "
                    "spec.domain.cpu.cores 2 -> 4; spec.domain.machine.type q35 -> pc",
                },
            ],
        },
    }


def web() -> Document:
    """Return the NumaVM `web`, which is claimed and not started."""
    return {
        "metadata": {"namespace": "prod", "name": "web", "uid": WEB_UID},
        "spec": {"domain": {"cpu": {"cores": 3}, "memory": {"guest": "512Mi"}}},
        "status": {"nodeName": "host-a", "placement": web_placement()},
    }


def _cell(number: int) -> Document:
    first = 4 * number
    return {
        "id": number,
        "cpus": [
            {
                "id": cpu,
                "siblings": f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}",
                "socket": number,
                "lastLevelCache": number,
            }
            for cpu in range(first, first + 4)
        ],
        "memory": {"total": "8Gi", "free": "5Gi", "allocatable": "5Gi"},
        "hugepages": [{"pageSize": "2Mi", "total": 1024, "free": 512, "allocatable": 1024}],
        "distances": [
            {"cell": number, "value": 10},
            {"cell": 1 - number, "value": 21},
        ],
    }


def _condition(kind: str, status: str, reason: str) -> Document:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
