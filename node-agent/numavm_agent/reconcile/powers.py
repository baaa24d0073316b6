"""Powers over the host that a spec asks for, and whether the host's administrator permits them here. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_api.numahost import Permitted
from numavm_api.numavm import NumaVMSpec
from numavm_api.powers import Grant, Power, networks_asked, powers_asked, powers_permitted

_ASKED: Final = {
    Power.REALTIME: "spec.domain.cpu.realtime is set, but realtime threads are",
    Power.LOCKED_MEMORY: "spec.domain.memory.backing.locked is true, but locked memory is",
}


def power_problems(spec: NumaVMSpec, permitted: Permitted) -> Iterator[str]:
    """Yield each power that the spec asks for and this host does not permit, with the edit that permits it."""
    given = powers_permitted(permitted)
    named = {grant: field for field, grant in networks_asked(spec)}
    for grant in powers_asked(spec):
        if grant not in given:
            yield _named(named[grant], grant) if grant in named else _plain(grant)


def _plain(grant: Grant) -> str:
    return (
        f"{_ASKED[grant.power]} not permitted on this host: "
        f"set the NumaHost's spec.permitted.{grant.power} to true"
    )


def _named(field: str, grant: Grant) -> str:
    return (
        f"{field} is {grant.name}, which is not permitted on this host: "
        f"add it to the NumaHost's spec.permitted.{grant.power}"
    )
