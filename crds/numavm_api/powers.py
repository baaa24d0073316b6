"""Powers over the host that a spec asks for and only a host's administrator permits: placement and admission read them alike.

Pure. Paths and PCI devices are permitted one by one and stand in rules of their own (`rules_devices`, `Permitted`).
"""

from __future__ import annotations

from enum import StrEnum

from numavm_api.numahost import Permitted
from numavm_api.numavm import NumaVMSpec


class Power(StrEnum):
    """A power, by its field in `NumaHost.spec.permitted`."""

    REALTIME = "realtime"
    LOCKED_MEMORY = "lockedMemory"


def powers_asked(spec: NumaVMSpec) -> tuple[Power, ...]:
    """Return the powers that a spec asks for; realtime locks memory too, by the one permission of its own."""
    asked = {
        Power.REALTIME: spec.domain.cpu.realtime is not None,
        Power.LOCKED_MEMORY: spec.domain.memory.backing.locked,
    }
    return tuple(power for power, wanted in asked.items() if wanted)


def powers_permitted(permitted: Permitted) -> frozenset[Power]:
    """Return the powers that a host's administrator permits."""
    given = {
        Power.REALTIME: permitted.realtime,
        Power.LOCKED_MEMORY: permitted.locked_memory,
    }
    return frozenset(power for power, yes in given.items() if yes)
