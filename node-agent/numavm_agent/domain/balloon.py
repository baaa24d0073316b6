"""Configurator of the balloon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_agent.domain.inputs import RenderInput
from numavm_agent.domain.pci import address_of
from numavm_agent.domain.xml import Element, element
from numavm_api.backing import Switch
from numavm_api.pci_plan import BALLOON

_SWITCHES: Final = {Switch.ENABLED: "on", Switch.DISABLED: "off"}


def balloon(given: RenderInput) -> Iterator[Element]:
    """The balloon, or none in words: libvirt would add one by itself."""
    wanted = given.spec.domain.memory.balloon
    if wanted is None:
        yield element("memballoon", model="none")
        return
    period = wanted.stats_period_seconds
    yield element(
        "memballoon",
        element("stats", period=period) if period is not None else None,
        element("alias", name="ua-balloon"),
        address_of(given, BALLOON),
        model=wanted.model.value,
        autodeflate=_SWITCHES.get(wanted.autodeflate or Switch.DISABLED),
        freePageReporting=_SWITCHES.get(wanted.free_page_reporting or Switch.DISABLED),
    )
