"""`spec.domain.ioThreads`: threads that serve disks beside QEMU's main loop."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from numavm_api.base import SpecModel, list_map

MAX_IO_THREADS: Final = 64
MAX_POOL: Final = 256


class IoThreadPlacement(StrEnum):
    """Which host CPUs I/O threads run on."""

    SHARED = "Shared"
    DEDICATED = "Dedicated"


class IoThread(SpecModel):
    """One I/O thread."""

    id: Annotated[int, Field(ge=1, le=MAX_IO_THREADS)]
    """Its number, from 1 on."""
    pool_min: Annotated[int, Field(ge=0, le=MAX_POOL)] | None = None
    """Worker threads that it keeps."""
    pool_max: Annotated[int, Field(ge=1, le=MAX_POOL)] | None = None
    """Worker threads that it has at most."""


class IoThreads(SpecModel):
    """The guest's I/O threads: one of count and threads. Virtio disks share them out in the order of boot and name."""

    count: Annotated[int, Field(ge=1, le=MAX_IO_THREADS)] | None = None
    """So many, with ids from 1 on."""
    threads: list[IoThread] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_IO_THREADS,
        json_schema_extra=list_map("id"),
    )
    """Each by its id."""
    placement: IoThreadPlacement = IoThreadPlacement.SHARED
    """Shared: they float like the emulator over the host cells of the VM. Dedicated: each holds a pCPU; needs dedicatedCpuPlacement."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids, in order."""
        if self.threads is not None:
            return tuple(sorted(thread.id for thread in self.threads))
        return tuple(range(1, (self.count or 0) + 1))
