"""All admission policies."""

from __future__ import annotations

from typing import Any

from numavm_api.generate.device_policy import DEVICES
from numavm_api.generate.power_policies import (
    BRIDGES,
    HAND_PINS,
    HOST_DEVICES,
    HOST_PATHS,
    LOCKED_MEMORY,
    NETWORKS,
    REALTIME,
    TEARDOWN,
)
from numavm_api.generate.spec_policy import HOST_SPEC, SPEC
from numavm_api.generate.vain_policy import VAIN_WISHES
from numavm_api.generate.writer_policies import HOST_STATUS, HOSTS, LEASES, MAIN, VM_STATUS


def policies() -> list[dict[str, Any]]:
    """Return every policy, each followed by its binding."""
    every = (
        SPEC,
        DEVICES,
        HOST_SPEC,
        VM_STATUS,
        MAIN,
        HOSTS,
        HOST_STATUS,
        LEASES,
        HOST_PATHS,
        REALTIME,
        LOCKED_MEMORY,
        HAND_PINS,
        HOST_DEVICES,
        BRIDGES,
        NETWORKS,
        TEARDOWN,
        VAIN_WISHES,
    )
    return [manifest for policy in every for manifest in policy.to_api()]
