"""The two CustomResourceDefinitions: names, columns, subresource, selectable field, schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numavm_api import numahost, numavm
from numavm_api.base import GROUP, VERSION
from numavm_api.generate.structural import structural_schema
from numavm_api.vm_status import NumaVMStatus

Manifest = dict[str, Any]


def numavm_crd() -> Manifest:
    """Return the CustomResourceDefinition of NumaVM."""
    schema = _root(
        "A virtual machine whose guest NUMA cells mirror real host cells.",
        structural_schema(numavm.NumaVMSpec, of_spec=True),
        structural_schema(NumaVMStatus, of_spec=False),
    )
    schema["required"] = ["spec"]
    version = _version(
        schema,
        columns=[
            _column("Status", ".status.printableStatus", "One word for people."),
            _column("Ready", _condition("Ready", "status"), "The VM is as its spec wants it."),
            _column("Node", ".status.nodeName", "The Kubernetes node that runs it."),
            _column("NUMA", ".status.placement.summary", "Guest cell -> host cells."),
            _column("Aligned", _condition("NumaAligned", "status"), "The kernel confirms it."),
            _age(),
            _column("vCPUs", ".status.currentCPUTopology.vcpus", "vCPUs that are on.", wide=True),
            _column("Memory", ".status.memory.guestCurrent", "Memory it has now.", wide=True),
            _column("Reason", _condition("Ready", "reason"), "Why Ready is so.", wide=True),
        ],
    )
    version["selectableFields"] = [{"jsonPath": ".status.nodeName"}]
    return _crd(numavm.KIND, numavm.PLURAL, ("nvm",), "Namespaced", version)


def numahost_crd() -> Manifest:
    """Return the CustomResourceDefinition of NumaHost."""
    schema = _root(
        "One Kubernetes node of the same name: what the administrator allows NumaVM there, and what the host has.",
        structural_schema(numahost.NumaHostSpec, of_spec=True),
        structural_schema(numahost.NumaHostStatus, of_spec=False),
    )
    version = _version(
        schema,
        columns=[
            _column("Ready", _condition("Ready", "status"), "NumaVMs may be placed here."),
            _column("Cells", ".status.summary.cells", "Host cells."),
            _column("CPUs", ".status.summary.cpus", "Dedicated CPUs, free/total."),
            _column("Memory", ".status.summary.memory", "Memory, free/total."),
            _column("Hugepages", ".status.summary.hugepages", "Huge pages, free/total."),
            _column("VMs", ".status.summary.vms", "VMs that run here."),
            _age(),
        ],
    )
    return _crd(numahost.KIND, numahost.PLURAL, ("nhost",), "Cluster", version)


def _root(description: str, spec: Manifest, status: Manifest) -> Manifest:
    return {
        "type": "object",
        "description": description,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }


def _version(schema: Manifest, *, columns: Sequence[Manifest]) -> Manifest:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": list(columns),
        "schema": {"openAPIV3Schema": schema},
    }


def _crd(
    kind: str, plural: str, short_names: Sequence[str], scope: str, version: Manifest
) -> Manifest:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "numavm"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": list(short_names),
                "categories": ["all", "numavm"] if scope == "Namespaced" else ["numavm"],
            },
            "scope": scope,
            "versions": [version],
        },
    }


def _column(name: str, json_path: str, description: str, *, wide: bool = False) -> Manifest:
    column: Manifest = {
        "name": name,
        "type": "integer" if json_path.endswith(".vcpus") else "string",
        "description": description,
        "jsonPath": json_path,
    }
    return {**column, "priority": 1} if wide else column


def _age() -> Manifest:
    return {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'
