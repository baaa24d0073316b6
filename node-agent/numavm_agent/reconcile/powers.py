"""Powers over the host that a spec asks for, and whether the host's administrator permits them here. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from numavm_api.numahost import Permitted
from numavm_api.numavm import NumaVMSpec


def power_problems(spec: NumaVMSpec, permitted: Permitted) -> Iterator[str]:
    """Yield each power that the spec asks for and this host does not permit, with the edit that permits it."""
    if spec.domain.cpu.realtime is not None and not permitted.realtime:
        yield (
            "spec.domain.cpu.realtime is set, but realtime threads are not permitted on this host: "
            "set the NumaHost's spec.permitted.realtime to true"
        )
    if spec.domain.memory.backing.locked and not permitted.locked_memory:
        yield (
            "spec.domain.memory.backing.locked is true, but locked memory is not permitted on this host: "
            "set the NumaHost's spec.permitted.lockedMemory to true"
        )
