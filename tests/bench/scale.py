"""The operator with 1,000 NumaHosts and 10,000 NumaVMs on a real API server.

Hosts and agents are a generator's: it writes NumaHosts as agents would (the policies that forbid this are left out),
renews Leases, and answers each claim with one report that the guest runs. NUMAVM_BENCH_HOSTS and NUMAVM_BENCH_VMS
choose other numbers.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from kubernetes import client
from rich.console import Console

from bench.report import Table
from numavm_api.base import API_VERSION, GROUP, VERSION
from numavm_api.numahost import (
    LEASE_HOST_VERSION_ANNOTATION,
    LEASE_NAMESPACE,
    LEASE_PREFIX,
)
from numavm_api.numavm import PLURAL
from numavm_lab.controlplane.accounts import ensure_node
from numavm_lab.controlplane.credentials import kubeconfig_for_user
from numavm_lab.controlplane.manifests import install_manifests, kubectl
from numavm_lab.controlplane.plane import ControlPlane
from support.cluster import client_from
from support.fake_agent import Machine
from support.operator_process import OperatorProcess, operators
from support.wait import wait_for

HOSTS = int(os.environ.get("NUMAVM_BENCH_HOSTS", "1000"))
VMS = int(os.environ.get("NUMAVM_BENCH_VMS", "10000"))
NAMESPACE = "default"
THREADS = 8
_APPLY = "application/apply-patch+yaml"
_DEADLINE_SECONDS = 1800
_BEAT_SECONDS = max(5.0, HOSTS / 40)
"""Agents renew every 5 s; one generator for a thousand of them is not that quick."""
_POLL_SECONDS = max(2.0, VMS / 300)


class Generator:
    """Hosts with their Leases, VMs, and the agents' reports."""

    def __init__(self, plane: ControlPlane) -> None:
        self._local = threading.local()
        self._document = kubeconfig_for_user(plane, "generator", groups=("system:masters",))
        self._pool = ThreadPoolExecutor(THREADS)
        self._beats = ThreadPoolExecutor(THREADS)
        """Of their own: behind 10,000 creates in a queue renewals come too late."""
        self._stopping = threading.Event()
        self.versions: dict[str, str] = {}
        self.writes = 0

    def hosts(self, count: int) -> None:
        """Create nodes and NumaHosts, each of two cells with 16 CPUs and 64 GiB."""
        list(self._pool.map(self._host, (f"host-{number:04}" for number in range(count))))

    def vms(self, names: Iterable[str]) -> None:
        """Create NumaVMs of one cell with two dedicated CPUs."""
        list(self._pool.map(self.vm, names))

    def vm(self, name: str) -> None:
        """Create a NumaVM."""
        cells = [{"id": 0, "cpus": "0-1", "memory": "64Mi"}]
        cpu = {"cores": 2, "dedicatedCpuPlacement": True, "numa": {"cells": cells}}
        body = {
            "apiVersion": API_VERSION,
            "kind": "NumaVM",
            "metadata": {"name": name},
            "spec": {"domain": {"cpu": cpu}},
        }
        self._custom.create_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, body)

    def listed(self) -> list[dict[str, Any]]:
        """Return every NumaVM."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = self._custom.list_namespaced_custom_object(
                GROUP, VERSION, NAMESPACE, PLURAL, limit=500, _continue=token
            )
            found += page["items"]
            token = page["metadata"].get("continue", "")
            if not token:
                return found

    def report(self, vm: dict[str, Any]) -> None:
        """Say of a claimed NumaVM that its guest runs, as its agent would, once."""
        metadata, placement = vm["metadata"], vm["status"]["placement"]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"type": "Running", "status": "True", "reason": "Running", "message": ""}
        status = {
            "domain": {
                "nodeName": vm["status"]["nodeName"],
                "uuid": metadata["uid"],
                "state": "Running",
                "type": "KVM",
                "placementId": placement["id"],
                "observedGeneration": metadata["generation"],
                "startedAt": now,
                "bootId": "boot",
            },
            "conditions": [
                {
                    **condition,
                    "lastTransitionTime": now,
                    "observedGeneration": metadata["generation"],
                }
            ],
        }
        body = {
            "apiVersion": API_VERSION,
            "kind": "NumaVM",
            "metadata": {"name": metadata["name"], "namespace": NAMESPACE},
            "status": status,
        }
        self._custom.patch_namespaced_custom_object_status(
            *(GROUP, VERSION, NAMESPACE, PLURAL, metadata["name"], body),
            field_manager="numavm-agent",
            force=True,
            _content_type=_APPLY,
        )
        self.writes += 1

    def report_all(self) -> int:
        """Report on every NumaVM that is claimed and not reported; return how many are not yet claimed."""
        vms = self.listed()
        claimed = [vm for vm in vms if "placement" in vm.get("status", {})]
        list(self._pool.map(self.report, (vm for vm in claimed if "domain" not in vm["status"])))
        return len(vms) - len(claimed)

    def beat(self) -> None:
        """Renew every Lease again and again until stopped."""
        while not self._stopping.is_set():
            began = time.monotonic()
            list(self._beats.map(self._renew, list(self.versions.items())))
            self._stopping.wait(max(0.0, _BEAT_SECONDS - (time.monotonic() - began)))

    def stop(self) -> None:
        """Stop renewing."""
        self._stopping.set()

    @property
    def _api(self) -> client.ApiClient:
        if not hasattr(self._local, "api"):
            self._local.api = client_from(self._document)
        api: client.ApiClient = self._local.api
        return api

    @property
    def _custom(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self._api)

    def _host(self, name: str) -> None:
        ensure_node(self._api, name)
        body: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": "NumaHost",
            "metadata": {"name": name},
        }
        self._custom.create_cluster_custom_object(GROUP, VERSION, "numahosts", body)
        cells = [
            cell.to_api()
            for cell in Machine(cells=2, cpus_per_cell=16, memory_per_cell=2**36).report()
        ]
        ready = {"type": "Ready", "status": "True", "reason": "AgentReady", "message": ""}
        status = {
            "observedGeneration": 1,
            "bootId": "boot",
            "highestEpoch": 0,
            "capabilities": {
                "kvm": True,
                "emulationAllowed": False,
                "libvirtVersion": "9.0.0",
                "qemuVersion": "7.2.0",
                "machineTypes": ["pc-q35-7.2"],
                "maxVcpus": 255,
            },
            "cells": cells,
            "pools": {
                "dedicated": "1-15,17-31",
                "shared": "1-15,17-31",
                "sharedFollowsDedicated": True,
                "housekeeping": "0,16",
                "foreign": "",
            },
            "claims": [],
            "conditions": [{**ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }
        written = self._custom.patch_cluster_custom_object_status(
            *(GROUP, VERSION, "numahosts", name, {**body, "status": status}),
            field_manager="numavm-agent",
            force=True,
            _content_type=_APPLY,
        )
        self.versions[name] = written["metadata"]["resourceVersion"]

    def _renew(self, host: tuple[str, str]) -> None:
        name, version = host
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": f"{LEASE_PREFIX}{name}",
                "namespace": LEASE_NAMESPACE,
                "annotations": {LEASE_HOST_VERSION_ANNOTATION: version},
            },
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": 120,
                "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }
        self._custom.patch_namespaced_custom_object(
            *("coordination.k8s.io", "v1", LEASE_NAMESPACE, "leases"),
            *(f"{LEASE_PREFIX}{name}", body),
            field_manager="generator",
            force=True,
            _content_type=_APPLY,
        )


def run(console: Console) -> list[Table]:
    """Fill a cluster, measure the operator, restart it, and measure a newcomer."""
    directory = Path(tempfile.mkdtemp(prefix="nv-", dir="/tmp"))
    plane = ControlPlane(directory / "cluster", unsafe_no_fsync=True)
    try:
        plane.start()
        install_manifests(plane)
        kubectl(plane, "delete", "validatingadmissionpolicybindings", "--all")
        with operators(plane, directory / "operator") as start:
            return [_measure(console, Generator(plane), start("operator"))]
    finally:
        plane.remove()
        shutil.rmtree(directory, ignore_errors=True)


def _measure(console: Console, generator: Generator, operator: OperatorProcess) -> Table:
    rows: list[tuple[str | float, ...]] = []

    def told(what: str, value: float, aim: str) -> None:
        console.print(f"  {what}: {value:.3g} (aim: {aim})", highlight=False)
        rows.append((what, value, aim))

    generator.hosts(HOSTS)
    beats = threading.Thread(target=generator.beat, daemon=True)
    beats.start()
    try:
        wait_for(
            lambda: _sum(operator, "numavm_host_reachable", ""),
            until=lambda reachable: reachable == HOSTS,
            deadline_seconds=_DEADLINE_SECONDS,
            describe="the operator has heard of every host that it is alive",
            poll_seconds=3,
        )
        began = time.monotonic()
        generator.vms(f"vm-{number:05}" for number in range(VMS))
        told("VMs created per second", VMS / (time.monotonic() - began), "-")
        wait_for(
            generator.report_all,
            until=lambda unclaimed: unclaimed == 0,
            deadline_seconds=_DEADLINE_SECONDS,
            describe="every VM is claimed",
            poll_seconds=_POLL_SECONDS,
        )
        told("claimed per second, create included", VMS / (time.monotonic() - began), "-")
        _await_idle(operator)
        writes = _sum(operator, "numavm_operator_api_writes_total", 'resource="numavms')
        told("operator's writes per VM", writes / VMS, "at most 5, and the agent's 1")
        told("operator's resident MiB", _resident(operator), "under 400")
        _told_of_loop(operator, told)
        told("apply -> claimed of a new VM, s", _newcomer(generator, "newcomer"), "under 1")
        operator.stop()
        seconds = _restarted(generator, operator, "after-restart")
        told("restart -> claims a new VM, s", seconds, "under 30")
        _await_idle(operator)
        _told_of_loop(operator, told)
        operator.kill()
        seconds = _restarted(generator, operator, "after-kill")
        told("killed -> claims a new VM, s (the old Lease's 15 s in it)", seconds, "under 30")
        _await_idle(operator)
        told("operator's resident MiB after a restart", _resident(operator), "under 400")
    finally:
        generator.stop()
        beats.join(60)
    return Table(
        name="scale",
        title=f"{HOSTS} NumaHosts, {VMS} NumaVMs",
        columns=("figure", "value", "aim"),
        rows=tuple(rows),
    )


def _restarted(generator: Generator, operator: OperatorProcess, name: str) -> float:
    began = time.monotonic()
    operator.start()
    generator.vm(name)
    _await_claim(generator, name)
    return time.monotonic() - began


def _told_of_loop(operator: OperatorProcess, told: Callable[[str, float, str], None]) -> None:
    held, late = (
        _over_a_tenth(operator, f"numavm_operator_loop_{what}_seconds") for what in ("held", "lag")
    )
    told("event loop held by the operator's own work for over 100 ms, times", held, "0")
    told("event loop over 100 ms late, a busy machine included, times", late, "-")


def _newcomer(generator: Generator, name: str) -> float:
    began = time.monotonic()
    generator.vm(name)
    _await_claim(generator, name)
    return time.monotonic() - began


def _await_claim(generator: Generator, name: str) -> None:
    def claimed() -> bool:
        vm = generator._custom.get_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, name)
        return "placement" in vm.get("status", {})

    wait_for(claimed, deadline_seconds=180, describe=f"{name} is claimed", poll_seconds=0.02)


def _await_idle(operator: OperatorProcess) -> None:
    """Wait until no NumaVM waits for a worker, and nothing was written for a while."""
    seen: list[float] = []

    def idle() -> bool:
        seen.append(_sum(operator, "numavm_operator_api_writes_total", ""))
        depth = _sum(operator, "numavm_operator_queue_depth", "")
        return depth == 0 and len(seen) > 2 and seen[-1] == seen[-3]

    wait_for(
        idle, deadline_seconds=_DEADLINE_SECONDS, describe="the operator is idle", poll_seconds=3
    )


def _resident(operator: OperatorProcess) -> float:
    record = operator.table.get(operator.name)
    assert record is not None
    return float(psutil.Process(record.pid).memory_info().rss) / 2**20


def _over_a_tenth(operator: OperatorProcess, histogram: str) -> float:
    """Return how often what a histogram counts was over 100 ms."""
    text = _metrics(operator)
    total = _value(text, f"{histogram}_count", "")
    return total - _value(text, f"{histogram}_bucket", 'le="0.1"')


def _sum(operator: OperatorProcess, name: str, labels: str) -> float:
    return _value(_metrics(operator), name, labels)


def _metrics(operator: OperatorProcess) -> str:
    host, port = operator.logged("serving")[-1]["addresses"][0].strip("()").split(", ")
    url = f"http://{host.strip(chr(39))}:{port}/metrics"
    with urllib.request.urlopen(url, timeout=120) as answer:
        text: bytes = answer.read()
    return text.decode()


def _value(text: str, name: str, labels: str) -> float:
    found = re.findall(rf"^{name}(\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    return sum(float(value) for given, value in found if labels in given)
