"""One node for all tests of the agent in a worker: it takes seconds to make, and each test cleans up its VMs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from numavm_lab.controlplane.plane import ControlPlane
from support.agents import AgentProcess, Node
from support.cluster import Callers
from support.private_libvirt import IMAGES, PrivateLibvirt


@contextmanager
def running_node(
    name: str, plane: ControlPlane, callers: Callers, directory: Path
) -> Iterator[Node]:
    """Give a node whose agent is ready, runs guests by emulation and permits the tests' images."""
    libvirt = PrivateLibvirt(directory)
    agent = AgentProcess(plane, libvirt, name)
    node = Node(name, plane, callers, libvirt, agent)
    try:
        libvirt.start()
        callers.agent(name)  # makes the Node object that the agent's token is bound to
        agent.start()
        node.wait_ready()
        node.patch_host_spec({"allowEmulation": True, "permitted": {"directories": [IMAGES]}})
        yield node
    finally:
        agent.stop()
        libvirt.stop()
