"""NumaVMs for tests: making manifests, applying them, and waiting for what their status says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from numavm_api.base import API_VERSION, GROUP, VERSION
from numavm_api.numahost import PLURAL as HOSTS
from numavm_api.numavm import PLURAL
from support.wait import wait_for

WITNESS_DIRECTORY = "/var/lib/numavm/images/witness"
Manifest = dict[str, Any]


def vm_manifest(
    name: str,
    cells: Sequence[tuple[int, str]],
    *,
    boots: bool = False,
    hugepages: str | None = None,
    dedicated: bool = True,
    spec: Mapping[str, Any] | None = None,
    cpu: Mapping[str, Any] | None = None,
) -> Manifest:
    """Return a NumaVM with the given guest cells, each (vCPUs, memory).

    Without `boots` it has nothing to boot from and idles in its firmware, which is cheap; with it,
    it runs the witness guest.
    """
    first = 0
    declared = []
    for number, (vcpus, memory) in enumerate(cells):
        cpus = f"{first}-{first + vcpus - 1}" if vcpus > 1 else str(first)
        declared.append({"id": number, "cpus": cpus, "memory": memory})
        first += vcpus
    domain: dict[str, Any] = {
        "cpu": {
            "cores": first,
            "dedicatedCpuPlacement": dedicated,
            "numa": {"cells": declared},
            **(cpu or {}),
        }
    }
    if boots:
        domain["firmware"] = {
            "kernelBoot": {
                "kernel": f"{WITNESS_DIRECTORY}/vmlinuz",
                "initrd": f"{WITNESS_DIRECTORY}/initrd",
                "args": "console=ttyS0 quiet numavm.report=5",
            }
        }
    if hugepages:
        domain["memory"] = {"hugepages": {"pageSize": hugepages}}
    return {
        "apiVersion": API_VERSION,
        "kind": "NumaVM",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "domain": domain, **(spec or {})},
    }


@dataclass(frozen=True)
class Vms:
    """The NumaVMs of one namespace, as an administrator sees them."""

    api: client.ApiClient
    namespace: str

    def create(self, manifest: Manifest) -> Manifest:
        """Create a NumaVM and return it as the API server has it."""
        return self._objects().create_namespaced_custom_object(
            GROUP, VERSION, self.namespace, PLURAL, manifest
        )

    def get(self, name: str) -> Manifest:
        """Return a NumaVM; an empty one where there is none of this name."""
        try:
            return self._objects().get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name
            )
        except ApiException as error:
            if error.status == 404:
                return {}
            raise

    def all(self) -> list[Manifest]:
        """Return every NumaVM of the namespace."""
        return self._objects().list_namespaced_custom_object(
            GROUP, VERSION, self.namespace, PLURAL
        )["items"]

    def patch(self, name: str, **spec: Any) -> Manifest:
        """Merge-patch fields of a spec, and return the NumaVM."""
        return self._objects().patch_namespaced_custom_object(
            GROUP,
            VERSION,
            self.namespace,
            PLURAL,
            name,
            {"spec": spec},
            _content_type="application/merge-patch+json",
        )

    def delete(self, name: str) -> None:
        """Ask for a NumaVM's deletion; one that is gone already is fine."""
        try:
            self._objects().delete_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name
            )
        except ApiException as error:
            if error.status != 404:
                raise

    def delete_and_wait(self, *names: str, deadline_seconds: float = 180) -> None:
        """Delete NumaVMs (all of the namespace where none is named); wait until they are gone.

        A guest that does not answer has its grace period, 60 s where the spec names none.
        """
        wanted = names or tuple(vm["metadata"]["name"] for vm in self.all())
        for name in wanted:
            self.delete(name)
        for name in wanted:
            self.wait(name, lambda vm: not vm, deadline_seconds, "gone")

    def wait(
        self,
        name: str,
        until: Callable[[Manifest], bool],
        deadline_seconds: float,
        describe: str,
        *,
        poll_seconds: float = 0.1,
    ) -> Manifest:
        """Wait until a NumaVM is as `until` wants it; a failure shows its status and conditions."""
        seen: Manifest = {}

        def observe() -> str:
            seen.clear()
            seen.update(self.get(name))
            return told(seen)

        wait_for(
            observe,
            until=lambda _text: until(seen),
            deadline_seconds=deadline_seconds,
            describe=f"{self.namespace}/{name}: {describe}",
            poll_seconds=poll_seconds,
        )
        return dict(seen)

    def wait_ready(self, name: str, deadline_seconds: float = 120) -> Manifest:
        """Wait until a NumaVM is Ready and the kernel confirms it, for its newest generation."""
        return self.wait(name, is_ready, deadline_seconds, "Ready and NumaAligned")

    def host(self, name: str) -> Manifest:
        """Return a NumaHost."""
        return self._objects().get_cluster_custom_object(GROUP, VERSION, HOSTS, name)

    def hosts(self) -> list[Manifest]:
        """Return every NumaHost."""
        return self._objects().list_cluster_custom_object(GROUP, VERSION, HOSTS)["items"]

    def patch_host(self, name: str, **spec: Any) -> Manifest:
        """Merge-patch fields of a NumaHost's spec."""
        return self._objects().patch_cluster_custom_object(
            GROUP,
            VERSION,
            HOSTS,
            name,
            {"spec": spec},
            _content_type="application/merge-patch+json",
        )

    def events(self, name: str) -> list[tuple[str, str]]:
        """Return (reason, note) of every event about a NumaVM."""
        found = client.EventsV1Api(self.api).list_namespaced_event(self.namespace).items
        return [(one.reason, one.note) for one in found if one.regarding.name == name]

    def _objects(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self.api)


def condition(vm: Manifest, kind: str) -> Manifest:
    """Return a condition of a NumaVM or NumaHost, an empty one where it has none of the type."""
    conditions = vm.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == kind), {})


def is_ready(vm: Manifest) -> bool:
    """Tell whether both operator and agent vouch for the newest generation."""
    generation = vm.get("metadata", {}).get("generation")
    return all(
        condition(vm, kind).get("status") == "True"
        and condition(vm, kind).get("observedGeneration") == generation
        for kind in ("Ready", "NumaAligned")
    )


def told(vm: Manifest) -> str:
    """Return what a failed wait shows of a NumaVM."""
    if not vm:
        return "no such NumaVM"
    status = dict(vm.get("status", {}))
    lines = [
        f"  {one['type']}={one['status']} {one['reason']}: {one['message']}"
        for one in status.pop("conditions", [])
    ]
    return json.dumps(status, indent=1) + "\n" + "\n".join(lines)
