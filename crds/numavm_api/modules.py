"""`spec.domain.devices.memory`: memory modules that the guest has beside its boot memory."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from numavm_api.backing import Switch
from numavm_api.base import SpecModel
from numavm_api.cpu import CellId
from numavm_api.cpuset import SpecCpuSet
from numavm_api.quantity import Quantity
from numavm_api.shapes import HostPath, Name

MAX_SLOTS: Final = 256
"""QEMU's ACPI_MAX_RAM_SLOTS."""
MAX_MODULES: Final = 64
DEFAULT_SLOTS: Final = 16
GROWN_PREFIX: Final = "grown-"
"""Begins the names of modules that NumaVM plugs in by itself."""


class Dimm(SpecModel):
    """A pc-dimm: memory that every guest knows, plugged and unplugged as a whole."""

    slot: Annotated[int, Field(ge=0, lt=MAX_SLOTS)] | None = None
    """Slot of the dimm bus. Left out: the lowest that is free, in the order of names."""


class VirtioMem(SpecModel):
    """A virtio-mem device: memory that grows and shrinks in blocks."""

    requested: Quantity
    """How much of `size` the guest should have: a multiple of `block`, at most `size`."""
    block: Quantity | None = None
    """Size of a block, a power of two from 2Mi on, at least a page of its cell. Default: the larger of 2Mi and a page."""


class Nvdimm(SpecModel):
    """A non-volatile DIMM that a file of the host is behind. What it holds in memory is the file's page cache and not claimed."""

    path: HostPath
    """The file, below a directory that the NumaHost permits, as large as `size`."""
    label: Quantity | None = None
    """Size of the label area at its end, 128Ki at least. Left out: none."""
    align_size: Quantity | None = None
    """Alignment of the mapping, a power of two from 4Ki on that divides `size`, as a DAX device of the host asks for (`2Mi`). Left out: a page."""
    pmem: Switch = Switch.DISABLED
    """Enabled: the file is on persistent memory, and QEMU sees to it that what it writes there itself lasts. Needs a QEMU with libpmem."""
    read_only: Switch = Switch.DISABLED
    """Enabled: the guest is told not to write to it."""


class VirtioPmem(SpecModel):
    """A virtio-pmem device: a file of the host as persistent memory. What it holds in memory is the file's page cache and not claimed."""

    path: HostPath
    """The file, below a directory that the NumaHost permits, as large as `size`."""


class ModuleBinding(SpecModel):
    """Host cells that hold a module's pages, where they are others than those of its guest cell."""

    host_cells: SpecCpuSet
    """Host cells as a nodeset, for example `0-1`. How hard the binding is, the mode of its guest cell says."""


class ModulePages(SpecModel):
    """Huge pages that back a module, where they have another size than those of its guest cell."""

    page_size: Quantity
    """A huge page size that the host has, for example `2Mi` or `1Gi`. `size` must be a multiple of it."""


class MemoryDevice(SpecModel):
    """A memory module: one of dimm, virtioMem, nvdimm, virtioPmem. Unless it says otherwise, its pages are bound like those of its cell, and have their size."""

    name: Name
    """Its name."""
    cell: CellId | None = None
    """The guest cell that it belongs to. Every kind but virtioPmem has one."""
    size: Quantity
    """Its size, a multiple of 2Mi and of its page size."""
    host_binding: ModuleBinding | None = None
    """Where its pages are. Left out: on the host cells of its guest cell. For dimm and virtioMem."""
    hugepages: ModulePages | None = None
    """Huge pages of its own. Left out: pages as its guest cell has them. For dimm and virtioMem."""
    dimm: Dimm | None = None
    """A DIMM; `{}` for one in any slot."""
    virtio_mem: VirtioMem | None = None
    """A virtio-mem device."""
    nvdimm: Nvdimm | None = None
    """A non-volatile DIMM."""
    virtio_pmem: VirtioPmem | None = None
    """A virtio-pmem device."""
