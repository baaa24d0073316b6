"""Streams of VMs that come and go: read from a file, or drawn from a named mix with a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

from numavm_api.effective import EffectiveVM, effective
from numavm_api.errors import RejectedError
from numavm_api.quantity import GIBIBYTE
from numavm_api.reading import read_spec
from numavm_operator.placement import Request, request_for


@dataclass(frozen=True, slots=True)
class Event:
    """A VM comes, and perhaps leaves."""

    time: float
    leaves: float | None
    name: str
    spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Flavor:
    """A kind of VM, and how often it comes."""

    vcpus: int
    cells: int
    weight: int
    gib_per_vcpu: int = 4
    huge: bool = True


MIXES: Mapping[str, tuple[Flavor, ...]] = {
    "small": (Flavor(1, 1, 30, huge=False), Flavor(2, 1, 40), Flavor(4, 1, 30)),
    "mixed": (
        Flavor(2, 1, 24),
        Flavor(4, 1, 24, huge=False),
        Flavor(8, 1, 20),
        Flavor(16, 1, 14),
        Flavor(16, 2, 8),
        Flavor(32, 2, 10),
    ),
    "large": (Flavor(16, 2, 30), Flavor(32, 2, 40), Flavor(32, 4, 10), Flavor(64, 4, 20)),
}
"""By name; sizes from one vCPU to whole servers, most of them on huge pages."""


def drawn(
    mix: str, *, seed: int, count: int, cpus: int, load: float, page_size: str | None
) -> Iterator[Event]:
    """Yield VMs of a mix; in the long run they ask for `load` times `cpus`.

    Args:
        mix: A name of `MIXES`.
        seed: The same one gives the same stream.
        count: How many come.
        cpus: What the fleet can hand out.
        load: vCPUs asked for at a time, as a part of `cpus`.
        page_size: Of flavors on huge pages; None: no huge pages at all.
    """
    random = Random(seed)  # noqa: S311 - the same stream every time
    flavors = MIXES[mix]
    weights = [flavor.weight for flavor in flavors]
    mean = sum(one.vcpus * one.weight for one in flavors) / sum(weights)
    life, now = load * cpus / mean, 0.0
    for number in range(count):
        now += random.expovariate(1.0)
        flavor = random.choices(flavors, weights)[0]
        leaves = now + random.expovariate(1 / life)
        yield Event(now, leaves, f"vm-{number}", _spec(flavor, page_size))


def _spec(flavor: Flavor, page_size: str | None) -> Mapping[str, Any]:
    each = flavor.vcpus // flavor.cells
    pages = {"hugepages": {"pageSize": page_size}} if flavor.huge and page_size else {}
    cells = [
        {
            "id": at,
            "cpus": f"{at * each}-{(at + 1) * each - 1}",
            "memory": each * flavor.gib_per_vcpu * GIBIBYTE,
            **pages,
        }
        for at in range(flavor.cells)
    ]
    cpu = {"cores": flavor.vcpus, "dedicatedCpuPlacement": True, "numa": {"cells": cells}}
    return {"domain": {"cpu": cpu}}


def read(file: Path) -> Iterator[Event]:
    """Yield the events of a file, a list such as `- {time: 3, leaves: 60, vm: {…a spec…}}`, in order of time.

    Raises:
        RejectedError: the file is no such list.
    """
    try:
        raw = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RejectedError(f"{file}: {error}") from error
    if not isinstance(raw, list) or not all(isinstance(one, dict) and "vm" in one for one in raw):
        raise RejectedError(
            f"{file} is no list of entries with time, leaves and vm (a NumaVM's spec)"
        )
    for number, one in enumerate(sorted(raw, key=lambda entry: float(entry.get("time", 0)))):
        leaves = one.get("leaves")
        yield Event(
            float(one.get("time", 0)),
            None if leaves is None else float(leaves),
            str(one.get("name", f"vm-{number}")),
            one["vm"],
        )


def request_of(event: Event) -> Request:
    """Return the request of an event's VM.

    Raises:
        RejectedError: its spec is refused.
    """
    spec = read_spec(dict(event.spec))
    if isinstance(spec, list):
        raise RejectedError(f"{event.name}: {'; '.join(map(str, spec))}")
    vm: EffectiveVM = effective(spec)
    return request_for(
        vm,
        uid=event.name,
        namespace="simulated",
        name=event.name,
        placement_id=event.name,
        epoch=0,
        request_hash="",
        domain_type=spec.domain.type,
        node_selector=spec.node_selector,
        node_affinity=spec.affinity.node_affinity,
        tolerations=spec.tolerations,
    )
