"""Rules on host devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_api.numavm import NumaVMSpec
from numavm_api.rules_cells import Rule
from numavm_api.violation import Violation

HOST_DEVICES: Final = "spec.domain.devices.hostDevices"


def host_device_rules() -> tuple[Rule, ...]:
    """Return the rules on host devices."""
    return (_one_source_each, _names_differ, _addresses_differ)


def _one_source_each(spec: NumaVMSpec) -> Iterator[Violation]:
    for index, device in enumerate(spec.domain.devices.host_devices):
        source = device.source
        if (source.address is None) == (source.selector is None):
            yield Violation(
                f"{HOST_DEVICES}[{index}].source",
                "neither address nor selector" if source.address is None else "both",
                "it is one of address and selector",
                "set one of the two",
            )


def _names_differ(spec: NumaVMSpec) -> Iterator[Violation]:
    names = [device.name for device in spec.domain.devices.host_devices]
    yield from _each_once("name", names, "names in a list differ")


def _addresses_differ(spec: NumaVMSpec) -> Iterator[Violation]:
    addresses = [device.source.address for device in spec.domain.devices.host_devices]
    yield from _each_once("source.address", addresses, "a device is given once")


def _each_once(part: str, values: list[str] | list[str | None], limit: str) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value is None:
            continue
        if value in seen:
            yield Violation(
                f"{HOST_DEVICES}[{index}].{part}",
                value,
                f"an earlier entry has it too, and {limit}",
                "change one of the two",
            )
        seen.add(value)
