"""What others than NumaVM use of a host: kubelet's pods and domains of others, as NumaHost shows it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from numavm_api.base import StatusModel
from numavm_api.cpuset import CpuSet
from numavm_api.quantity import Bytes, Quantity

MAX_KUBELET_BLOCKS = 512
"""64 host cells, each with base pages and up to seven sizes of huge pages."""


class KubeletMemory(StatusModel):
    """Memory in pages of one size on one host cell."""

    cell: Annotated[int, Field(ge=0, lt=1024)]
    """The host cell."""
    page_size: Quantity
    """Size of a page; 4Ki: memory in base pages."""
    amount: Quantity
    """How much."""


class KubeletUse(StatusModel):
    """What the kubelet has promised to pods, and may promise at any time, by its pod resources socket."""

    exclusive_cpus: CpuSet = CpuSet()
    """CPUs that pods have to themselves. NumaVM does not hand them out."""
    allocatable_cpus: CpuSet = CpuSet()
    """CPUs that the kubelet may give to a pod alone. None: its CPU manager's policy is `none`, and pods run on every CPU."""
    memory: list[KubeletMemory] = Field(default=[], max_length=MAX_KUBELET_BLOCKS)
    """Memory that pods have to themselves (memory manager, policy `Static`). NumaVM does not hand it out."""
    allocatable_memory: list[KubeletMemory] = Field(default=[], max_length=MAX_KUBELET_BLOCKS)
    """Memory that the kubelet may give to a pod alone; none with the memory manager's policy `None`."""

    def promised(self) -> dict[tuple[int, Bytes], Bytes]:
        """Return (host cell, page size) -> bytes that pods have to themselves."""
        return {(one.cell, one.page_size): one.amount for one in self.memory}


class OtherUses(StatusModel):
    """What others hold of this host, and NumaVM does not hand out."""

    kubelet: KubeletUse | None = None
    """Left out: no kubelet runs here, or it has never answered."""
    domain_cpus: CpuSet = CpuSet()
    """CPUs that domains which NumaVM did not start are pinned to narrowly."""
