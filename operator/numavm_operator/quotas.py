"""How much the VMs of a namespace may hold: Kubernetes' ResourceQuotas, by resource names of NumaVM's own.

Kubernetes counts pods by itself, and objects by `count/numavms.numavm.io`; what a NumaVM takes of hosts it cannot know.
It takes any name with a domain into `spec.hard`, though, and leaves it alone: so that the same object, with the same
rights, says that too. What counts is what is held: a halted VM holds nothing. A quota made smaller than what is held
takes nothing away.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from numavm_api.placement import Placement
from numavm_api.quantity import format_bytes
from numavm_operator.objects import Vm, VmKey


class Resource(StrEnum):
    """What can be limited, as it stands in `spec.hard`."""

    VCPUS = "numavm.io/vcpus"
    """vCPUs that claims have room for."""
    DEDICATED_CPUS = "numavm.io/dedicated-cpus"
    """CPUs of hosts that VMs have to themselves."""
    MEMORY = "numavm.io/memory"
    """Guest memory with its modules; QEMU's own is left out."""


@dataclass(frozen=True, slots=True)
class Quota:
    """One ResourceQuota, as far as it is about NumaVMs."""

    key: VmKey
    """Its namespace and name."""
    resource_version: int
    hard: Mapping[Resource, int]


def read_quota(raw: Mapping[str, Any]) -> Quota:
    """Return the ResourceQuota in `raw`; amounts were checked by the API server."""
    metadata = raw["metadata"]
    hard = (raw.get("spec") or {}).get("hard") or {}
    return Quota(
        key=VmKey(metadata["namespace"], metadata["name"]),
        resource_version=int(metadata["resourceVersion"]),
        hard={one: _whole(hard[one]) for one in Resource if one in hard},
    )


def _whole(amount: object) -> int:
    return int(parse_quantity(amount))  # type: ignore[no-untyped-call]  # kubernetes ships no types for it


def held_by(placement: Placement | None) -> Counter[Resource]:
    """Return what a claim counts for."""
    if placement is None:
        return Counter()
    cells = placement.cells
    return Counter(
        {
            Resource.VCPUS: sum(len(cell.room) for cell in cells),
            Resource.DEDICATED_CPUS: len(placement.held_cpus),
            Resource.MEMORY: sum(cell.memory + (cell.plugged or 0) for cell in cells),
        }
    )


class Quotas:
    """The quotas of each namespace, and what its VMs hold."""

    def __init__(self) -> None:
        self._quotas: dict[str, dict[str, Quota]] = defaultdict(dict)
        self._held: dict[str, Counter[Resource]] = defaultdict(Counter)

    def quota_changed(self, key: VmKey, quota: Quota | None) -> None:
        """Take in a ResourceQuota, or that it is gone."""
        if quota is not None and quota.hard:
            self._quotas[key.namespace][key.name] = quota
        else:
            self._quotas[key.namespace].pop(key.name, None)

    def vm_changed(self, key: VmKey, old: Vm | None, new: Vm | None) -> None:
        """Take in what a NumaVM holds now."""
        held = self._held[key.namespace]
        held.subtract(held_by(old.status.placement if old is not None else None))
        held.update(held_by(new.status.placement if new is not None else None))

    def limits(self, namespace: str) -> bool:
        """Tell whether a namespace has any such quota."""
        return bool(self._quotas.get(namespace))

    def excess(self, vm: Vm, wanted: Placement) -> str | None:
        """Return which quota a claim would break, by how much, and the edit that helps; None: none.

        Of a VM that holds a claim already only the growth counts.
        """
        namespace = vm.key.namespace
        growth = held_by(wanted)
        growth.subtract(held_by(vm.status.placement))
        held = self._held[namespace]
        found = [
            _sentence(quota, one, held[one], growth[one])
            for _, quota in sorted(self._quotas.get(namespace, {}).items())
            for one in quota.hard
            if growth[one] > 0 and held[one] + growth[one] > quota.hard[one]
        ]
        return " ".join(found) or None


def _sentence(quota: Quota, resource: Resource, held: int, growth: int) -> str:
    hard = quota.hard[resource]
    return (
        f"ResourceQuota {quota.key.name} has {resource} {_amount(resource, hard)}, of which the namespace's NumaVMs "
        f"hold {_amount(resource, held)}, and this one wants {_amount(resource, growth)} more: raise the quota to "
        f"{_amount(resource, held + growth)}, or halt VMs that hold {_amount(resource, held + growth - hard)}."
    )


def _amount(resource: Resource, amount: int) -> str:
    return format_bytes(amount) if resource is Resource.MEMORY else str(amount)
