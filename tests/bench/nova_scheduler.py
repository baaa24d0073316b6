"""Nova as its scheduler asks it: through its own filter, its weighers and its state of a host. Runs like `nova_fleet`.

Nova's are NUMATopologyFilter, RAMWeigher, CPUWeigher, HostWeightHandler and HostState.consume_from_request, as its
manager calls them for one request. Ours around them: the sums that Placement filters by, and giving back. Left out, to
its favour: the other filters and weighers that are on by default, reading host states from the database for each
request, and the second fit on the compute host.
"""

from __future__ import annotations

from typing import Any

import nova.conf
from nova import objects
from nova.scheduler import host_manager, weights
from nova.scheduler.filters.numa_topology_filter import NUMATopologyFilter
from nova.scheduler.weights.cpu import CPUWeigher
from nova.scheduler.weights.ram import RAMWeigher
from nova.virt import hardware
from nova_fleet import instance_of, sums_of, topology_of


class Scheduler:
    """A fleet as Nova's scheduler sees it."""

    def __init__(self, hosts: list[dict[str, Any]]) -> None:
        """Take the fleet: per host its cells."""
        nova.conf.CONF([], project="nova", default_config_files=[])
        self._hosts = [_host_state(at, topology_of(host)) for at, host in enumerate(hosts)]
        self._filter = NUMATopologyFilter()
        self._weighers = [RAMWeigher(), CPUWeigher()]
        self._handler = weights.HostWeightHandler()
        self._held: dict[str, tuple[Any, Any]] = {}

    def place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Place a VM: filter by sums, then by Nova's filter, weigh, consume."""
        spec = _spec(wanted)
        with_room = [host for host in self._hosts if _has_room(host, spec)]
        for host in with_room:
            host.allocation_candidates = [{"mappings": {}}]
        passing = list(self._filter.filter_all(with_room, spec))
        if not passing:
            return {"refused": "NUMA" if with_room else "full"}
        best = self._handler.get_weighed_objects(self._weighers, passing, spec)[0].obj
        best.consume_from_request(spec)
        self._held[wanted["uid"]] = (best, spec)
        return {
            "host": self._hosts.index(best),
            "cells": [cell.id for cell in spec.numa_topology.cells],
        }

    def leave(self, uid: str) -> None:
        """Give back what a VM holds."""
        host, spec = self._held.pop(uid)
        host.numa_topology = hardware.numa_usage_from_instance_numa(
            host.numa_topology, spec.numa_topology, free=True
        )
        host.free_ram_mb += spec.memory_mb
        host.vcpus_used -= spec.vcpus


def _host_state(number: int, topology: Any) -> Any:
    state = host_manager.HostState(f"host-{number}", f"host-{number}", None)
    state.numa_topology = topology
    state.vcpus_total, state.free_ram_mb = sums_of(topology)
    state.ram_allocation_ratio = state.cpu_allocation_ratio = 1.0
    return state


def _has_room(host: Any, spec: Any) -> bool:
    return bool(
        host.vcpus_total - host.vcpus_used >= spec.vcpus and host.free_ram_mb >= spec.memory_mb
    )


def _spec(wanted: dict[str, Any]) -> Any:
    flavor = objects.Flavor(
        vcpus=wanted["vcpus"],
        memory_mb=wanted["mib"],
        root_gb=0,
        ephemeral_gb=0,
        extra_specs={"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "prefer"},
    )
    return objects.RequestSpec(
        flavor=flavor,
        image=objects.ImageMeta(properties=objects.ImageMetaProps()),
        numa_topology=instance_of(wanted),
        pci_requests=None,
        instance_uuid=wanted["uid"],
        requested_resources=None,
    )
