"""The operator as a process of its own, and its VMs, for tests."""

import json
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client

from numavm_api.base import API_VERSION, GROUP, VERSION
from numavm_api.cpuset import CpuSet
from numavm_lab.controlplane.accounts import OPERATOR
from numavm_lab.controlplane.credentials import kubeconfig_for_service_account
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.state import ProcessTable, write_private
from support.cluster import Callers
from support.fake_agent import FakeAgent, Machine
from support.wait import wait_for

Json = dict[str, Any]


@dataclass
class OperatorProcess:
    """One operator process that the test started."""

    table: ProcessTable
    name: str
    argv: list[str]

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it."""
        self.table.spawn(self.name, self.argv, environment=environment)

    def is_alive(self) -> bool:
        """Say whether it runs."""
        return self.table.is_alive(self.name)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.table.signal(self.name, number)

    def kill(self) -> None:
        """Kill it, and return when it is gone."""
        self.signal(signal.SIGKILL)
        self.table.stop(self.name)

    def stop(self) -> None:
        """End it in order."""
        self.table.stop(self.name)

    def log(self) -> list[Json]:
        """Return its log lines."""
        lines = self.table.log_path(self.name).read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def logged(self, event: str) -> list[Json]:
        """Return its log lines of one event."""
        return [line for line in self.log() if line["event"] == event]

    def wait_logged(
        self, event: str, *, times: int = 1, deadline_seconds: float = 90
    ) -> list[Json]:
        """Wait until it has logged an event so often."""
        return wait_for(
            lambda: self.logged(event),
            until=lambda lines: len(lines) >= times,
            deadline_seconds=deadline_seconds,
            describe=f"{self.name} logs {event} {times}x; it said:\n{self.table.tail(self.name)}",
        )

    def http(self, path: str) -> str:
        """Return what its health endpoint answers."""
        address = self.logged("serving")[-1]["addresses"][0]
        host, port = address.strip("()").split(", ")
        with urllib.request.urlopen(f"http://{host.strip(chr(39))}:{port}{path}") as answer:
            text: bytes = answer.read()
            return text.decode()


@contextmanager
def operators(plane: ControlPlane, directory: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Give a function that starts operators (`name`, more arguments, `environment`).

    All are ended at the end.
    """
    table = ProcessTable(directory / "operators")
    kubeconfig = directory / "operator.kubeconfig"
    directory.mkdir(parents=True, exist_ok=True)
    write_private(kubeconfig, kubeconfig_for_service_account(plane, OPERATOR))

    def start(
        name: str = "operator", *more: str, environment: Mapping[str, str] | None = None
    ) -> OperatorProcess:
        program = str(Path(sys.executable).parent / "numavm-operator")
        options = ["--kubeconfig", str(kubeconfig), "--listen-port", "0", "--log-level", "info"]
        process = OperatorProcess(table, name, [program, *options, *more])
        process.start(environment)
        return process

    try:
        yield start
    finally:
        table.stop_all()


@contextmanager
def fake_hosts(
    callers: Callers, *names: str, machine: Machine | None = None
) -> Iterator[list[FakeAgent]]:
    """Run an agent per name; at the end they stop, and their NumaHosts are deleted."""
    agents = [FakeAgent(callers.agent(name), name, machine=machine) for name in names]
    custom = client.CustomObjectsApi(callers.admin())
    with ExitStack() as stack:
        for agent in agents:
            stack.callback(
                custom.delete_cluster_custom_object, GROUP, VERSION, "numahosts", agent.name
            )
            stack.enter_context(agent.running())
        for agent in agents:
            wait_for(
                lambda agent=agent: exists(custom, agent.name), describe=f"{agent.name} is there"
            )
        yield agents


def exists(custom: client.CustomObjectsApi, host: str) -> bool:
    """Say whether there is a NumaHost of this name."""
    listed = custom.list_cluster_custom_object(GROUP, VERSION, "numahosts")["items"]
    return host in {one["metadata"]["name"] for one in listed}


@contextmanager
def vms_of(callers: Callers, namespace: str, operator: OperatorProcess) -> Iterator["Vms"]:
    """Give the VMs of a namespace; at the end they are deleted, and nothing may have broken in the operator."""
    made = Vms(callers.admin(), namespace)
    yield made
    made.delete_all()
    assert operator.is_alive()
    assert operator.logged("reconcile_broke") + operator.logged("placement_broke") == []


def no_cpu_twice(vms: list[Json]) -> None:
    """Fail where two VMs' claims hold a CPU of one host."""
    holders: dict[tuple[str, int], str] = {}
    for vm in vms:
        status = vm.get("status", {})
        if "placement" not in status:
            continue
        for cpu in CpuSet.parse(status["placement"]["dedicatedCpus"]):
            key = (status["nodeName"], cpu)
            name = vm["metadata"]["name"]
            assert key not in holders, f"CPU {key} is held by {holders[key]} and {name}"
            holders[key] = name


@dataclass
class Vms:
    """NumaVMs of one namespace."""

    api_client: client.ApiClient
    namespace: str

    def create(self, name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> Json:
        """Create a VM: one dedicated vCPU and 256Mi, unless `spec` says otherwise."""
        body = {
            "apiVersion": API_VERSION,
            "kind": "NumaVM",
            "metadata": {"name": name, "labels": labels or {}},
            "spec": {**small(), **spec},
        }
        return self._api().create_namespaced_custom_object(*self._path(), body)

    def get(self, name: str) -> Json | None:
        """Return a VM, or None where there is none."""
        try:
            return self._api().get_namespaced_custom_object(*self._path(), name)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return None

    def patch(self, name: str, body: Json) -> Json:
        """Apply a JSON merge patch."""
        return self._api().patch_namespaced_custom_object(
            *self._path(), name, body, _content_type="application/merge-patch+json"
        )

    def delete(self, name: str) -> None:
        """Ask for a deletion."""
        self._api().delete_namespaced_custom_object(*self._path(), name)

    def all(self) -> list[Json]:
        """Return every VM."""
        return self._api().list_namespaced_custom_object(*self._path())["items"]

    def delete_all(self) -> None:
        """Delete every VM and wait until they are gone; needs operator and agents."""
        for vm in self.all():
            self.delete(vm["metadata"]["name"])
        wait_for(
            self.all,
            until=lambda vms: not vms,
            describe=f"{self.namespace} is empty",
            deadline_seconds=60,
        )

    def wait(
        self,
        name: str,
        until: Callable[[Json], bool],
        describe: str,
        deadline_seconds: float = 120,
    ) -> Json:
        """Wait until something holds of a VM's status."""
        return wait_for(
            lambda: (self.get(name) or {}).get("status", {}),
            until=until,
            describe=f"{name}: {describe}",
            deadline_seconds=deadline_seconds,
        )

    def wait_ready(self, name: str, deadline_seconds: float = 120) -> Json:
        """Wait until a VM is Ready."""
        return self.wait(
            name,
            lambda status: condition(status, "Ready").get("status") == "True",
            "Ready",
            deadline_seconds,
        )

    def wait_gone(self, name: str, deadline_seconds: float = 120) -> None:
        """Wait until a VM is gone."""
        wait_for(
            lambda: self.get(name),
            until=lambda vm: vm is None,
            describe=f"{name} is gone",
            deadline_seconds=deadline_seconds,
        )

    def events(self, name: str) -> list[Json]:
        """Return the events about a VM."""
        listed = client.CustomObjectsApi(self.api_client).list_namespaced_custom_object(
            "events.k8s.io", "v1", self.namespace, "events"
        )
        return [one for one in listed["items"] if one["regarding"]["name"] == name]

    def _api(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self.api_client)

    def _path(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, "numavms"


def small(*, cores: int = 1, memory: str = "256Mi", dedicated: bool = True) -> Json:
    """Return the spec of a small VM."""
    return {
        "domain": {
            "cpu": {"cores": cores, "dedicatedCpuPlacement": dedicated},
            "memory": {"guest": memory},
        }
    }


def condition(status: Json, kind: str) -> Json:
    """Return a condition of a status, or an empty one."""
    found = [one for one in status.get("conditions", []) if one["type"] == kind]
    return found[0] if found else {}
