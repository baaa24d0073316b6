"""Powers over the host that a spec asks for, and whether the host's administrator permits them here. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_api.numahost import Permitted
from numavm_api.numavm import NumaVMSpec
from numavm_api.powers import Power, powers_asked, powers_permitted

_ASKED: Final = {
    Power.REALTIME: "spec.domain.cpu.realtime is set, but realtime threads are",
    Power.LOCKED_MEMORY: "spec.domain.memory.backing.locked is true, but locked memory is",
}


def power_problems(spec: NumaVMSpec, permitted: Permitted) -> Iterator[str]:
    """Yield each power that the spec asks for and this host does not permit, with the edit that permits it."""
    given = powers_permitted(permitted)
    for power in powers_asked(spec):
        if power not in given:
            yield (
                f"{_ASKED[power]} not permitted on this host: "
                f"set the NumaHost's spec.permitted.{power} to true"
            )
