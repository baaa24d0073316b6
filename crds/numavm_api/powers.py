"""Powers over the host that a spec asks for and only a host's administrator permits: placement and admission read them alike.

Pure. Paths and PCI devices are permitted one by one and stand in rules of their own (`rules_devices`, `Permitted`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from numavm_api.numahost import Permitted
from numavm_api.numavm import NumaVMSpec


class Power(StrEnum):
    """A kind of power, by its field in `NumaHost.spec.permitted`."""

    REALTIME = "realtime"
    LOCKED_MEMORY = "lockedMemory"
    BRIDGES = "bridges"
    NETWORKS = "networks"


@dataclass(frozen=True, slots=True)
class Grant:
    """One power: of a kind that is permitted or not, or over one thing by its name."""

    power: Power
    name: str | None = None
    """The bridge or network; None: the kind is permitted as a whole."""

    def __str__(self) -> str:
        """Return it as a path below `permitted`, such as `bridges: br0`."""
        return str(self.power) if self.name is None else f"{self.power}: {self.name}"


def powers_asked(spec: NumaVMSpec) -> tuple[Grant, ...]:
    """Return the powers that a spec asks for, each once; realtime locks memory too, by the one permission of its own."""
    asked = {
        Power.REALTIME: spec.domain.cpu.realtime is not None,
        Power.LOCKED_MEMORY: spec.domain.memory.backing.locked,
    }
    plain = (Grant(power) for power, wanted in asked.items() if wanted)
    return tuple(dict.fromkeys((*plain, *(grant for _, grant in networks_asked(spec)))))


def networks_asked(spec: NumaVMSpec) -> Iterator[tuple[str, Grant]]:
    """Yield (field, power) for every bridge and every network of the host that the spec names."""
    for index, network in enumerate(spec.networks):
        if network.bridge is not None:
            yield f"spec.networks[{index}].bridge.name", Grant(Power.BRIDGES, network.bridge.name)
        if network.network is not None:
            yield (
                f"spec.networks[{index}].network.name",
                Grant(Power.NETWORKS, network.network.name),
            )


def powers_permitted(permitted: Permitted) -> frozenset[Grant]:
    """Return the powers that a host's administrator permits."""
    given = {
        Power.REALTIME: permitted.realtime,
        Power.LOCKED_MEMORY: permitted.locked_memory,
    }
    return frozenset(
        (
            *(Grant(power) for power, yes in given.items() if yes),
            *(Grant(Power.BRIDGES, name) for name in permitted.bridges),
            *(Grant(Power.NETWORKS, name) for name in permitted.networks),
        )
    )
