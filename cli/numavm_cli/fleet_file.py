"""A fleet as `kubectl get nhost,node,nvm,priorityclass -A -o yaml` prints it: hosts, what is held, whose turn it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from numavm_api.errors import RejectedError
from numavm_operator.ledger import Ledger
from numavm_operator.objects import (
    Host,
    Node,
    PriorityClass,
    Vm,
    read_host,
    read_node,
    read_priority_class,
    read_vm,
)
from numavm_operator.placement import Fleet
from numavm_operator.turns import turn_in

_DEFAULTS: Mapping[str, Any] = {"resourceVersion": "1", "generation": 1}


@dataclass(frozen=True, slots=True)
class Cluster:
    """What was read."""

    hosts: Mapping[str, Host]
    vms: tuple[Vm, ...]
    fleet: Fleet
    priority_classes: tuple[PriorityClass, ...] = ()

    def kept_from(self, vm: Vm) -> dict[str, str]:
        """Return the hosts that are kept from a VM for others whose turn comes first, with whose they are."""
        turn = turn_in(self.priority_classes, vm)
        return {
            one.status.reserved_node_name: str(one.key)
            for one in self.vms
            if one.uid != vm.uid
            and one.status.placement is None
            and one.status.reserved_node_name is not None
            and turn_in(self.priority_classes, one) < turn
        }

    def vm(self, namespace: str, name: str) -> Vm:
        """Return a NumaVM.

        Raises:
            RejectedError: there is none of this name.
        """
        for one in self.vms:
            if (one.key.namespace, one.key.name) == (namespace, name):
                return one
        raise RejectedError(f"there is no NumaVM {namespace}/{name}")


def documents(file: Path) -> list[dict[str, Any]]:
    """Return every object in a file; lists are taken apart.

    Raises:
        RejectedError: the file cannot be read, or is no YAML.
    """
    try:
        found = list(yaml.safe_load_all(file.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise RejectedError(f"{file}: {error}") from error
    objects = [one for one in found if isinstance(one, dict)]
    return [item for one in objects for item in (one.get("items") or [one])]


def cluster_of(
    objects: Iterable[Mapping[str, Any]], unreachable: frozenset[str] = frozenset()
) -> Cluster:
    """Return the fleet of some objects: NumaHosts with their status, nodes, NumaVMs with what they hold, their classes.

    A host without a Node among the objects counts as having no labels and no taints.

    Args:
        objects: The objects; of other kinds none is looked at.
        unreachable: Hosts whose agents are silent.

    Raises:
        RejectedError: a NumaHost cannot be read, or has no status.
    """
    nodes: dict[str, Node] = {}
    hosts: dict[str, Host] = {}
    vms: list[Vm] = []
    classes: list[PriorityClass] = []
    for raw in map(_complete, objects):
        match raw.get("kind"):
            case "Node":
                nodes[raw["metadata"]["name"]] = read_node(raw)
            case "NumaHost":
                host = read_host(raw)
                hosts[host.name] = host
            case "NumaVM":
                vms.append(read_vm(raw))
            case "PriorityClass":
                classes.append(read_priority_class(raw))
    fleet = _fleet_of(hosts, nodes, vms, unreachable)
    return Cluster(hosts, tuple(vms), fleet, tuple(classes))


def _fleet_of(
    hosts: Mapping[str, Host],
    nodes: Mapping[str, Node],
    vms: Iterable[Vm],
    unreachable: frozenset[str],
) -> Fleet:
    ledger = Ledger(lambda: None)
    for vm in vms:
        ledger.vm_changed(None, vm)
    for name, host in hosts.items():
        if host.unreadable:
            raise RejectedError(f"NumaHost {name}: {host.unreadable}")
        reachable = name not in unreachable
        ledger.host_changed(name, host, node=nodes.get(name), reachable=reachable)
    return ledger.fleet


def _complete(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the parts of its metadata that only an API server gives."""
    metadata = {**_DEFAULTS, **(raw.get("metadata") or {})}
    metadata.setdefault("name", "vm")
    if raw.get("kind") == "NumaVM":
        metadata.setdefault("namespace", "default")
        metadata.setdefault("uid", f"{metadata['namespace']}/{metadata['name']}")
    return {**raw, "metadata": metadata}
