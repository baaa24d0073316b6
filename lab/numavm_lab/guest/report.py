"""What the witness guest says of itself: the lines it prints on its serial console, as typed values. Pure."""

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from numavm_api.cpuset import CpuSet
from numavm_lab.errors import LabError

PREFIX: Final = "NUMAVM-WITNESS "
WRITER_PREFIX: Final = "NUMAVM-WRITER "
PAUSE_PREFIX: Final = "NUMAVM-PAUSE "
_KERNEL_MESSAGE: Final = re.compile(r"\[ *\d+\.\d{6}\] [^\n]*\n")


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


class GuestCpu(_Frozen):
    """An online CPU of the guest; ``siblings`` holds itself."""

    id: int
    package: int
    die: int
    core: int
    siblings: CpuSet


class GuestAccess(_Frozen):
    """What HMAT says of a node's memory, seen from the nodes that access it best."""

    initiators: tuple[int, ...]
    read_latency: int
    """Nanoseconds, as all latencies; 0: the table has none."""
    write_latency: int
    read_bandwidth: int
    """MiB a second, as all bandwidths; 0: the table has none."""
    write_bandwidth: int


class GuestCache(_Frozen):
    """A memory-side cache; the kernel's numbers (Documentation/admin-guide/mm/numaperf.rst)."""

    level: int
    size: int
    line_size: int
    indexing: int
    write_policy: int


class GuestNode(_Frozen):
    """A NUMA node that the guest sees; ``cpus`` are its online CPUs."""

    id: int
    cpus: CpuSet
    memory_kib: int
    """What the guest's kernel manages there: less than what the machine has."""
    distances: tuple[int, ...]
    hugepages: Mapping[int, int]
    """Page size in KiB -> number of pages."""
    access: GuestAccess | None = None
    """None: the guest has no HMAT."""
    caches: tuple[GuestCache, ...] = ()


class GuestDisk(_Frozen):
    """A disk; ``node`` is -1 where the guest knows of none."""

    name: str
    bytes: int
    node: int


class GuestNic(_Frozen):
    """A network interface; ``node`` is -1 where the guest knows of none."""

    name: str
    mac: str
    node: int


class GuestPciDevice(_Frozen):
    """A PCI device, bridges included; ``node`` is -1 where the guest knows of none."""

    address: str
    vendor: str
    device: str
    node: int


class Report(_Frozen):
    """One line of the witness guest."""

    sequence: Annotated[int, Field(ge=1)]
    uptime_seconds: float
    uuid: str
    online_cpus: CpuSet
    possible_cpus: CpuSet
    online_nodes: CpuSet
    cpus: tuple[GuestCpu, ...]
    nodes: tuple[GuestNode, ...]
    disks: tuple[GuestDisk, ...]
    nics: tuple[GuestNic, ...]
    pci: tuple[GuestPciDevice, ...] = ()
    touched_mib: int
    """Memory that it has written to on purpose."""
    command_line: str


class Writer(_Frozen):
    """How far one writer of the witness guest is (`numavm.write`)."""

    node: int
    rounds: int
    bad: int
    """Rounds in which what it read was not what it had written."""
    uptime_seconds: float


class Pause(_Frozen):
    """For how long the witness guest was at most kept from running, by its own clock."""

    longest_milliseconds: int
    uptime_seconds: float


def parse_writers(console: str) -> dict[int, Writer]:
    """Return the newest word of each node's writer."""
    found = (Writer.model_validate_json(text) for text in _whole_lines(console, WRITER_PREFIX))
    return {writer.node: writer for writer in found}


def parse_pauses(console: str) -> list[Pause]:
    """Return the pauses, each longer than the one before."""
    return [Pause.model_validate_json(text) for text in _whole_lines(console, PAUSE_PREFIX)]


def _whole_lines(console: str, prefix: str) -> list[str]:
    """Return what follows a prefix in lines that no other program printed into."""
    return [
        line.removeprefix(prefix)
        for line in _lines(console)
        if line.startswith(f"{prefix}{{") and line.count("{") == 1 and line.endswith("}")
    ]


def parse_reports(console: str) -> list[Report]:
    """Return the reports in what a serial console has printed, oldest first.

    A last line that is not yet ended by a newline is left out: the guest is still printing it.

    Raises:
        LabError: A whole line bears the prefix and is no report.
    """
    return [_parse(line.partition(PREFIX)[2]) for line in _lines(console) if PREFIX in line]


def _lines(console: str) -> list[str]:
    """Return what programs have printed: lines that a newline ends, without the kernel's messages.

    The kernel writes each message whole, with its newline, between any two bytes of a program's line
    (Documentation/core-api/printk-basics.rst; ``CONFIG_PRINTK_TIME`` gives each line its time).
    """
    whole = _KERNEL_MESSAGE.sub("", console).rpartition("\n")[0]
    return [line.rstrip("\r") for line in whole.split("\n")]


def _parse(text: str) -> Report:
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        raise LabError(f"the witness guest printed no report: {text!r}: {error}") from error
