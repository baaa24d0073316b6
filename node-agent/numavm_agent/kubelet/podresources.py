"""Asking the kubelet by its pod resources API, v1 (KEP-606, KEP-2403): what pods have to themselves.

Memory that the kubelet keeps on a group of host cells counts on each of them whole: it says no more than that, and may
take it from any.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import grpc

from numavm_agent.errors import KubeletUnavailable
from numavm_agent.kubelet.podresources_pb2 import (
    AllocatableResourcesRequest,
    AllocatableResourcesResponse,
    ContainerMemory,
    ListPodResourcesRequest,
    ListPodResourcesResponse,
    PodResources,
)
from numavm_api.cpuset import CpuSet
from numavm_api.others import KubeletMemory, KubeletUse
from numavm_api.quantity import BASE_PAGE, Bytes, parse_bytes

SERVICE: Final = "v1.PodResourcesLister"
_TIMEOUT_SECONDS: Final = 2.0
_LARGEST_ANSWER: Final = 16 * 1024 * 1024
"""As the kubelet's own clients have it: more than the default takes where a node has many pods."""
_HUGE_PAGES: Final = "hugepages-"

_Amounts = dict[tuple[int, Bytes], int]


def read_use(socket: Path) -> KubeletUse:
    """Return what the kubelet behind a socket has promised, and may promise.

    Raises:
        KubeletUnavailable: it does not answer within seconds, or not in this protocol.
    """
    options = [
        ("grpc.max_receive_message_length", _LARGEST_ANSWER),
        ("grpc.enable_http_proxy", 0),
    ]
    try:
        with grpc.insecure_channel(f"unix:{socket}", options) as channel:
            pods: ListPodResourcesResponse = channel.unary_unary(
                f"/{SERVICE}/List",
                ListPodResourcesRequest.SerializeToString,
                ListPodResourcesResponse.FromString,
            )(ListPodResourcesRequest(), timeout=_TIMEOUT_SECONDS)
            allocatable: AllocatableResourcesResponse = channel.unary_unary(
                f"/{SERVICE}/GetAllocatableResources",
                AllocatableResourcesRequest.SerializeToString,
                AllocatableResourcesResponse.FromString,
            )(AllocatableResourcesRequest(), timeout=_TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        raise KubeletUnavailable(f"kubelet's {socket} does not answer: {_told(error)}") from error
    return kubelet_use(pods.pod_resources, allocatable)


def kubelet_use(
    pods: Iterable[PodResources], allocatable: AllocatableResourcesResponse
) -> KubeletUse:
    """Return the kubelet's answers as NumaHost has them."""
    listed = list(pods)
    cpus = frozenset(
        cpu
        for pod in listed
        for ids in (pod.cpu_ids, *(one.cpu_ids for one in pod.containers))
        for cpu in ids
    )
    promised: _Amounts = {}
    for pod in listed:
        own = _amounts(pod.memory)
        parts = _amounts(block for one in pod.containers for block in one.memory)
        for key in own.keys() | parts.keys():
            amount = max(own.get(key, 0), parts.get(key, 0))
            promised[key] = promised.get(key, 0) + amount
    return KubeletUse(
        exclusive_cpus=CpuSet(cpus),
        allocatable_cpus=CpuSet(frozenset(allocatable.cpu_ids)),
        memory=_reported(promised),
        allocatable_memory=_reported(_amounts(allocatable.memory)),
    )


def _amounts(blocks: Iterable[ContainerMemory]) -> _Amounts:
    found: _Amounts = {}
    for block in blocks:
        size = _page_size(block.memory_type)
        if size is None:
            continue
        for node in block.topology.nodes:
            key = (node.ID, size)
            found[key] = found.get(key, 0) + block.size
    return found


def _page_size(memory_type: str) -> Bytes | None:
    if memory_type == "memory":
        return BASE_PAGE
    if memory_type.startswith(_HUGE_PAGES):
        return parse_bytes(memory_type.removeprefix(_HUGE_PAGES))
    return None


def _reported(amounts: _Amounts) -> list[KubeletMemory]:
    return [
        KubeletMemory(cell=cell, page_size=size, amount=Bytes(amount))
        for (cell, size), amount in sorted(amounts.items())
        if amount
    ]


def _told(error: Exception) -> str:
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
