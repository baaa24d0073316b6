"""The manifest of a VM that stays where it is: today's host, host cells and CPUs written into its spec. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from numavm_api.base import API_VERSION
from numavm_api.cpu import CellDistances
from numavm_api.errors import RejectedError
from numavm_api.numavm import KIND
from numavm_api.placement import CpuPlacement, PlacedCell, Placement
from numavm_api.quantity import format_bytes
from numavm_api.vm_status import NumaVMStatus

HOSTNAME_LABEL: Final = "kubernetes.io/hostname"
_OWN_ANNOTATION: Final = "kubectl.kubernetes.io/last-applied-configuration"

Document = dict[str, Any]


def frozen_manifest(vm: Mapping[str, Any]) -> Document:
    """Return a manifest that can be placed only as the VM is placed now.

    The node is named by its label `kubernetes.io/hostname`, each guest cell by its host cells; with dedicated CPUs each
    vCPU is pinned by hand to the pCPU that it has.

    Raises:
        RejectedError: the VM has no claim.
    """
    metadata = vm["metadata"]
    status = NumaVMStatus.model_validate(vm.get("status") or {})
    if status.placement is None or status.node_name is None:
        raise RejectedError(
            f"NumaVM {metadata['namespace']}/{metadata['name']}: status.placement is empty: it has no place to freeze; "
            "wait until it is Scheduled"
        )
    spec = deepcopy(dict(vm["spec"]))
    spec["nodeSelector"] = {**spec.get("nodeSelector", {}), HOSTNAME_LABEL: status.node_name}
    cpu = spec["domain"].setdefault("cpu", {})
    cpu["numa"] = _numa(cpu.get("numa"), status.placement)
    if status.placement.cpu_placement is CpuPlacement.DEDICATED:
        cpu["pinning"] = {**cpu.get("pinning", {}), "vcpus": _pins(status.placement)}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": _metadata(metadata),
        "spec": spec,
    }


def _metadata(metadata: Mapping[str, Any]) -> Document:
    kept: Document = {"name": metadata["name"], "namespace": metadata["namespace"]}
    annotations = {
        key: value
        for key, value in metadata.get("annotations", {}).items()
        if key != _OWN_ANNOTATION
    }
    for field, value in (("labels", metadata.get("labels")), ("annotations", annotations)):
        if value:
            kept[field] = value
    return kept


def _numa(numa: Document | None, placement: Placement) -> Document:
    """Return the guest's cells with their host cells; cells that were derived or left out are declared."""
    declared = {cell["id"]: cell for cell in (numa or {}).get("cells", [])}
    kept = {
        key: value for key, value in (numa or {}).items() if key in {"distances", "interconnects"}
    }
    if "guestMappingPassthrough" in (
        numa or {}
    ):  # derived cells have the distances of where they are
        kept["distances"] = CellDistances.FROM_HOST.value
    return {**kept, "cells": [_cell(cell, declared.get(cell.id)) for cell in placement.cells]}


def _cell(cell: PlacedCell, declared: Document | None) -> Document:
    base: Document = dict(declared or {})
    if declared is None:
        base = {"id": cell.id, "memory": format_bytes(cell.memory)}
        if cell.vcpus:
            base["cpus"] = str(cell.vcpus)
    base["hostBinding"] = {"hostCells": str(cell.host_cells), "mode": cell.mode.value}
    return base


def _pins(placement: Placement) -> list[Document]:
    return [
        {"vcpu": vcpu, "cpuset": str(cpus)}
        for cell in placement.cells
        for vcpu, cpus in zip(cell.vcpus, cell.pcpus, strict=True)
    ]
