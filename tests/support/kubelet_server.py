"""A gRPC server that speaks the kubelet's pod resources API v1 on its socket, with the pods that a test names.

It stands for a kubelet with static managers of CPUs and memory, which no machine of the ordinary suite has; the real
kubelet answers the same client in tests/e2e/test_whole_cluster.py.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from numavm_agent.kubelet.podresources_pb2 import (
    AllocatableResourcesRequest,
    AllocatableResourcesResponse,
    ContainerMemory,
    ContainerResources,
    ListPodResourcesRequest,
    ListPodResourcesResponse,
    NUMANode,
    PodResources,
    TopologyInfo,
)
from numavm_agent.kubelet.socket import SOCKET


def memory(kind: str, size: int, *cells: int) -> ContainerMemory:
    """Return a block of memory on a group of host cells, as the kubelet's memory manager tells it."""
    nodes = [NUMANode(ID=cell) for cell in cells]
    return ContainerMemory(memory_type=kind, size=size, topology=TopologyInfo(nodes=nodes))


def pod(
    name: str, cpus: Sequence[int] = (), blocks: Sequence[ContainerMemory] = ()
) -> PodResources:
    """Return a pod of one container."""
    container = ContainerResources(name="main", cpu_ids=cpus, memory=blocks)
    return PodResources(name=name, namespace="default", containers=[container])


@dataclass
class PodResourcesServer:
    """What it answers with; tests change it while it serves."""

    pods: list[PodResources] = field(default_factory=list)
    allocatable: AllocatableResourcesResponse = field(default_factory=AllocatableResourcesResponse)
    refuses: bool = False

    def list_pods(
        self, _: ListPodResourcesRequest, context: grpc.ServicerContext
    ) -> ListPodResourcesResponse:
        """Answer `List`."""
        if self.refuses:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
        return ListPodResourcesResponse(pod_resources=self.pods)

    def get_allocatable(
        self, _: AllocatableResourcesRequest, _context: grpc.ServicerContext
    ) -> AllocatableResourcesResponse:
        """Answer `GetAllocatableResources`."""
        return self.allocatable


@contextmanager
def serving(answers: PodResourcesServer, root: Path) -> Iterator[None]:
    """Serve on the kubelet's socket below `root` while the context is open."""
    socket = root / SOCKET
    socket.parent.mkdir(parents=True, exist_ok=True)
    server = grpc.server(ThreadPoolExecutor(2))
    handlers = {
        "List": grpc.unary_unary_rpc_method_handler(
            answers.list_pods,
            ListPodResourcesRequest.FromString,
            ListPodResourcesResponse.SerializeToString,
        ),
        "GetAllocatableResources": grpc.unary_unary_rpc_method_handler(
            answers.get_allocatable,
            AllocatableResourcesRequest.FromString,
            AllocatableResourcesResponse.SerializeToString,
        ),
    }
    service = "v1.PodResourcesLister"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait(10)
