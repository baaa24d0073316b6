"""Operator, agents and libvirt together on this machine: all real but NUMA, of which it has one node.

Each node has a libvirtd of its own, which a test may kill; the control plane is the test module's
own, so that it may be killed and rewound.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kubernetes import client

from numavm_api.killpoints import KILL_POINT_VARIABLE, OPERATOR_POINTS, KillPoint
from numavm_lab.controlplane.manifests import install_manifests
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.guest import witness_images
from support.agents import AgentProcess, Node
from support.cluster import Callers, callers_of
from support.operator_process import OperatorProcess, operators
from support.private_libvirt import PrivateLibvirt
from support.vms import Manifest, Vms
from support.wait import wait_for


@dataclass
class Whole:
    """A running NumaVM."""

    plane: ControlPlane
    callers: Callers
    start_operator: Callable[..., OperatorProcess]
    operator: OperatorProcess
    nodes: dict[str, Node]

    def node_of(self, vm: Manifest) -> Node:
        """Return the node a VM is on."""
        return self.nodes[vm["status"]["nodeName"]]

    def restart_operator(self, environment: dict[str, str] | None = None) -> None:
        """End the operator if it runs, and start it anew."""
        self.operator.stop()
        self.operator.start(environment)

    def restart_agents(self, **environment: str) -> None:
        """End the agents that run, and start them anew."""
        for node in self.nodes.values():
            node.agent.stop()
            node.agent.start(**environment)

    def arm(self, point: KillPoint) -> None:
        """Restart the binary that has this kill point, armed; of agents, each."""
        if point in OPERATOR_POINTS:
            self.restart_operator({KILL_POINT_VARIABLE: str(point)})
        else:
            self.restart_agents(**{KILL_POINT_VARIABLE: str(point)})

    def revive(self) -> list[str]:
        """Start whatever is dead, unarmed; return the names of what was."""
        dead = []
        if not self.operator.is_alive():
            self.operator.start()
            dead.append("operator")
        for node in self.nodes.values():
            if not node.agent.is_alive():
                node.agent.start()
                dead.append(f"agent of {node.name}")
        return dead

    def domains(self) -> dict[str, dict[str, int]]:
        """Return node -> domain name -> pid of its QEMU."""
        return {name: node.libvirt.qemu_pids() for name, node in self.nodes.items()}

    def wait_settled(self, count: int, deadline_seconds: float = 60) -> None:
        """Wait until so many domains run in all, and fail with what runs."""
        wait_for(
            self.domains,
            until=lambda found: sum(map(len, found.values())) == count,
            deadline_seconds=deadline_seconds,
            describe=f"{count} domains in all",
        )

    def vms(self, namespace: str) -> Vms:
        """Return the NumaVMs of a namespace, which is created."""
        body = client.V1Namespace(metadata=client.V1ObjectMeta(name=namespace))
        client.CoreV1Api(self.callers.admin()).create_namespace(body)
        return Vms(self.callers.admin(), namespace)


@contextmanager
def whole(directory: Path, *names: str) -> Iterator[Whole]:
    """Give a running NumaVM with a node per name; ended at the end, with every domain."""
    plane = ControlPlane(directory / "cluster", unsafe_no_fsync=True, progress=print)
    nodes: dict[str, Node] = {}
    try:
        plane.start()
        install_manifests(plane)
        with callers_of(plane) as callers, operators(plane, directory / "operator") as start:
            for name in names:
                nodes[name] = _node(name, plane, callers, directory)
            # A short Lease, so that a successor need not wait long for one that was killed.
            operator = start("operator", "--lease-seconds", "5", "--lease-renew-seconds", "1")
            made = Whole(plane, callers, start, operator, nodes)
            for node in nodes.values():
                node.wait_ready()
            yield made
    finally:
        for node in nodes.values():
            node.agent.stop()
            node.libvirt.stop()
        plane.remove()
        shutil.rmtree(directory, ignore_errors=True)


def _node(name: str, plane: ControlPlane, callers: Callers, directory: Path) -> Node:
    libvirt = PrivateLibvirt(directory / name)
    libvirt.start()
    callers.agent(name)
    agent = AgentProcess(plane, libvirt, name)
    agent.start()
    node = Node(name, plane, callers, libvirt, agent)
    wait_for(node.host, deadline_seconds=60, describe=f"NumaHost {name} is there")
    images = sorted({str(image.parent) for image in witness_images()})
    node.patch_host_spec({"allowEmulation": True, "permitted": {"directories": images}})
    return node
