"""What a lab host looks like: cells, CPUs, memory, huge pages, distances. Pure; read from a YAML file.

A hosts file:

    hosts:
    - name: host-a
      kvm: true                          # /dev/kvm inside; then one thread per core
      cells:
      - {cpus: 4, memory: 3Gi, hugepages: {2Mi: 128}}
      - {cpus: 4, memory: 3Gi}
    - name: host-b
      threads: 2                         # SMT siblings; then no /dev/kvm
      cells: [...]
      distances: [[10, 21], [21, 10]]    # rows: from, columns: to
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from numavm_lab.errors import LabError

LOCAL_DISTANCE: Final = 10
"""ACPI 6.5, section 5.2.17: the relative distance of a cell to itself; 255 means unreachable."""
_LARGEST_DISTANCE: Final = 254
_SUFFIXES: Final = {None: 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_PAGE_SIZES: Final = (2 * 2**20, 2**30)
_SMALLEST_CELL: Final = 128 * 2**20


def parse_bytes(text: object) -> object:
    """Return ``3Gi``-like text as bytes; anything else unchanged, for pydantic to judge.

    Raises:
        ValueError: A text in another form.
    """
    if not isinstance(text, str):
        return text
    if (matched := re.fullmatch(r"([0-9]+)(Ki|Mi|Gi)?", text)) is None:
        raise ValueError(
            f"{text!r} is not a size: write a whole number with Ki, Mi or Gi, such as 3Gi"
        )
    return int(matched[1]) * _SUFFIXES[matched[2]]


def _known_page_size(size: int) -> int:
    if size not in _PAGE_SIZES:
        raise ValueError(f"{size} bytes is not a huge page size of x86-64: 2Mi or 1Gi")
    return size


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)]
PageSize = Annotated[int, BeforeValidator(parse_bytes), AfterValidator(_known_page_size)]
HostName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
QemuWord = Annotated[str, Field(min_length=1, max_length=1024)]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, strict=True
    )


class MemoryAccess(_Frozen):
    """How fast a cell's memory is for the CPUs that reach it best: what the host's HMAT says of it."""

    latency_nanoseconds: Annotated[int, Field(ge=1, le=65534)]
    """From there to the memory."""
    bandwidth: Annotated[Bytes, Field(ge=2**20, multiple_of=2**20)]
    """Bytes per second."""
    initiator: Annotated[int, Field(ge=0, le=15)] | None = None
    """The cell whose CPUs reach it best. Left out: the cell itself, which then needs CPUs."""


class LabCell(_Frozen):
    """One NUMA node of a lab host. ``cpus: 0`` makes it memory only."""

    cpus: Annotated[int, Field(ge=0, le=64)]
    memory: Annotated[Bytes, Field(ge=_SMALLEST_CELL, multiple_of=2 * 2**20)]
    hugepages: Mapping[PageSize, Annotated[int, Field(ge=0)]] = {}
    """Page size in bytes -> number of pages, set aside once the kernel runs."""

    access: MemoryAccess | None = None
    """What the host's HMAT says of this memory: for all cells, or for none, which then have no HMAT."""

    @model_validator(mode="after")
    def _pages_fit(self) -> Self:
        held = sum(size * count for size, count in self.hugepages.items())
        if held * 4 > self.memory * 3:
            raise ValueError(
                f"hugepages hold {held >> 20} MiB of the cell's {self.memory >> 20} MiB: at most three quarters, "
                "or the host's own kernel has no room"
            )
        return self


class HostSpec(_Frozen):
    """A lab host as its user describes it."""

    name: HostName
    cells: Annotated[tuple[LabCell, ...], Field(min_length=1, max_length=16, strict=False)]
    threads: Annotated[int, Field(ge=1, le=2)] = 1
    """Threads per core."""
    kvm: bool = False
    """Whether the host has ``/dev/kvm``."""
    distances: Annotated[
        tuple[Annotated[tuple[int, ...], Field(strict=False)], ...] | None, Field(strict=False)
    ] = None
    """A row per cell: distance from it to each cell. Left out: 10 to itself, 20 to all others."""
    extra_qemu_options: Annotated[tuple[QemuWord, ...], Field(strict=False)] = ()
    """Words appended to QEMU's command line, one per list entry."""
    extra_kernel_options: Annotated[
        tuple[Annotated[QemuWord, Field(pattern=r"^\S+$")], ...], Field(strict=False)
    ] = ()

    @property
    def cpus(self) -> int:
        """Return the number of CPUs of all cells."""
        return sum(cell.cpus for cell in self.cells)

    @property
    def memory(self) -> int:
        """Return the memory of all cells, in bytes."""
        return sum(cell.memory for cell in self.cells)

    @model_validator(mode="after")
    def _topology_holds(self) -> Self:
        if self.cells[0].cpus == 0:
            raise ValueError("cells[0].cpus is 0: the first cell boots the host, give it CPUs")
        for number, cell in enumerate(self.cells):
            if cell.cpus % self.threads:
                raise ValueError(
                    f"cells[{number}].cpus is {cell.cpus} and threads is {self.threads}: "
                    "a core's threads lie in one cell, so make cpus a multiple of threads"
                )
        if self.kvm and self.threads > 1:
            raise ValueError(
                f"kvm is true and threads is {self.threads}: QEMU's emulated CPU has either virtualization (AMD) "
                "or sibling threads (Intel); take two hosts, one of each kind"
            )
        return self

    @model_validator(mode="after")
    def _hmat_holds(self) -> Self:
        told = [cell.access for cell in self.cells]
        for number, access in enumerate(told) if any(told) else ():
            if access is None:
                raise ValueError(
                    f"cells[{number}].access is missing: an HMAT tells of every cell, or leave it out of all"
                )
            by = number if access.initiator is None else access.initiator
            if by >= len(self.cells) or not self.cells[by].cpus:
                raise ValueError(
                    f"cells[{number}].access.initiator is {by}, which is no cell with CPUs: name one that has some"
                )
        return self

    @model_validator(mode="after")
    def _distances_hold(self) -> Self:
        if self.distances is None:
            return self
        count = len(self.cells)
        if len(self.distances) != count or any(len(row) != count for row in self.distances):
            raise ValueError(
                f"distances is not a {count} x {count} matrix, one row and column per cell"
            )
        for source, row in enumerate(self.distances):
            for target, value in enumerate(row):
                self._check_distance(source, target, value)
        return self

    def _check_distance(self, source: int, target: int, value: int) -> None:
        where = f"distances[{source}][{target}] is {value}"
        if source == target and value != LOCAL_DISTANCE:
            raise ValueError(f"{where}: a cell is at distance {LOCAL_DISTANCE} of itself")
        if source != target and not LOCAL_DISTANCE < value <= _LARGEST_DISTANCE:
            raise ValueError(
                f"{where}: another cell is at {LOCAL_DISTANCE + 1} to {_LARGEST_DISTANCE}"
            )


class HostsFile(_Frozen):
    """A file that describes lab hosts."""

    hosts: Annotated[tuple[HostSpec, ...], Field(min_length=1, max_length=16, strict=False)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [host.name for host in self.hosts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"hosts: the name {twice[0]} is given twice")
        return self


def parse_hosts(text: str, *, source: str) -> tuple[HostSpec, ...]:
    """Return the hosts that a YAML text describes; ``source`` names it in errors.

    Raises:
        LabError: The text is no YAML, or a field is unknown, missing or out of its limits.
    """
    try:
        document: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LabError(f"{source}: not YAML: {error}") from error
    try:
        return HostsFile.model_validate(document).hosts
    except ValidationError as error:
        lines = [f"  {_field(issue['loc'])}: {issue['msg']}" for issue in error.errors()]
        raise LabError("\n".join([f"{source}: not a hosts file:", *lines])) from error


def _field(location: tuple[int | str, ...]) -> str:
    words = (f"[{word}]" if isinstance(word, int) else f".{word}" for word in location)
    return "".join(words).removeprefix(".") or "the file"


def load_hosts(path: Path) -> tuple[HostSpec, ...]:
    """Return the hosts that a YAML file describes.

    Raises:
        LabError: The file cannot be read or is no hosts file.
    """
    try:
        return parse_hosts(path.read_text(), source=str(path))
    except OSError as error:
        raise LabError(f"{path}: cannot read the hosts file: {error.strerror}") from error
