"""Rules on disks, interfaces, firmware, host paths and node labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final

from numavm_api.numavm import NumaVMSpec
from numavm_api.rules_cells import Rule
from numavm_api.violation import Violation

DEVICES: Final = "spec.domain.devices"
FIRMWARE: Final = "spec.domain.firmware"

# Label syntax: k8s.io/apimachinery/pkg/util/validation, IsQualifiedName and IsValidLabelValue.
_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)


def device_rules() -> tuple[Rule, ...]:
    """Return the rules on devices, firmware, paths and labels."""
    return (
        _one_way_to_boot,
        _paths_stay_below,
        _disks_and_volumes_pair_up,
        _interfaces_and_networks_pair_up,
        _one_kind_of_network_each,
        _boot_orders_differ,
        _images_differ,
        _mac_addresses_differ,
        _labels_are_labels,
    )


def _one_way_to_boot(spec: NumaVMSpec) -> Iterator[Violation]:
    firmware = spec.domain.firmware
    if firmware.kernel_boot and firmware.bootloader:
        yield Violation(
            f"{FIRMWARE}.kernelBoot",
            firmware.kernel_boot.kernel,
            f"{FIRMWARE}.bootloader is set too, and a VM boots in one way",
            "leave one of the two out",
        )


def _paths_stay_below(spec: NumaVMSpec) -> Iterator[Violation]:
    for field, path in host_paths(spec):
        if {".", ".."} & set(path.split("/")):
            yield Violation(
                field,
                path,
                "a host path has no component '.' or '..'",
                f"write the path without it, such as {_lexically_normal(path)}",
            )


def host_paths(spec: NumaVMSpec) -> Iterator[tuple[str, str]]:
    """Yield (field, path) for every path of the host that the spec names."""
    boot = spec.domain.firmware.kernel_boot
    if boot:
        yield f"{FIRMWARE}.kernelBoot.kernel", boot.kernel
        if boot.initrd is not None:
            yield f"{FIRMWARE}.kernelBoot.initrd", boot.initrd
    for index, volume in enumerate(spec.volumes):
        yield f"spec.volumes[{index}].hostDisk.path", volume.host_disk.path
    for index, module in enumerate(spec.domain.devices.memory):
        for kind, part in (("nvdimm", module.nvdimm), ("virtioPmem", module.virtio_pmem)):
            if part is not None:
                yield f"{DEVICES}.memory[{index}].{kind}.path", part.path


def _disks_and_volumes_pair_up(spec: NumaVMSpec) -> Iterator[Violation]:
    disks = [disk.name for disk in spec.domain.devices.disks]
    volumes = [volume.name for volume in spec.volumes]
    yield from _pairs((f"{DEVICES}.disks", disks), ("spec.volumes", volumes))


def _interfaces_and_networks_pair_up(spec: NumaVMSpec) -> Iterator[Violation]:
    interfaces = [interface.name for interface in spec.domain.devices.interfaces]
    networks = [network.name for network in spec.networks]
    yield from _pairs((f"{DEVICES}.interfaces", interfaces), ("spec.networks", networks))


def _one_kind_of_network_each(spec: NumaVMSpec) -> Iterator[Violation]:
    for index, network in enumerate(spec.networks):
        kinds = {"user": network.user, "bridge": network.bridge, "network": network.network}
        given = [kind for kind, value in kinds.items() if value is not None]
        if len(given) != 1:
            yield Violation(
                f"spec.networks[{index}]",
                " and ".join(given) or "none of user, bridge and network",
                "a network is of one kind",
                "set one of user, bridge and network",
            )


def _pairs(
    front: tuple[str, Sequence[str]], behind: tuple[str, Sequence[str]]
) -> Iterator[Violation]:
    for (field, names), (other, others) in ((front, behind), (behind, front)):
        yield from _each_once(f"{field}[{{}}].name", names, "names in a list differ")
        for index, name in enumerate(names):
            if name not in others:
                yield Violation(
                    f"{field}[{index}].name",
                    f"'{name}'",
                    f"{other} has no entry of that name",
                    f"add '{name}' to {other}, or remove this entry",
                )


def _boot_orders_differ(spec: NumaVMSpec) -> Iterator[Violation]:
    orders = [disk.boot_order for disk in spec.domain.devices.disks]
    yield from _each_once(f"{DEVICES}.disks[{{}}].bootOrder", orders, "each number stands once")


def _images_differ(spec: NumaVMSpec) -> Iterator[Violation]:
    seen: set[str] = set()
    for field, path in host_paths(spec):
        if field.startswith(FIRMWARE):
            continue
        if path in seen:
            yield Violation(
                field,
                f"'{path}'",
                "an earlier entry has it too, and two disks on one image destroy its content",
                "change one of the two",
            )
        seen.add(path)


def _mac_addresses_differ(spec: NumaVMSpec) -> Iterator[Violation]:
    given = [interface.mac_address for interface in spec.domain.devices.interfaces]
    lower = [mac.lower() if mac else None for mac in given]
    field = f"{DEVICES}.interfaces[{{}}].macAddress"
    yield from _each_once(field, lower, "two cards with one address do not work")
    for index, mac in enumerate(lower):
        if mac == "00:00:00:00:00:00":
            yield Violation(
                field.format(index), mac, "the zero address is no address", "leave macAddress out"
            )


def _labels_are_labels(spec: NumaVMSpec) -> Iterator[Violation]:
    for key, value in spec.node_selector.items():
        prefix, slash, name = key.rpartition("/")
        prefix_is_good = not slash or _LABEL_PREFIX.fullmatch(prefix)
        if not (prefix_is_good and _LABEL_NAME.fullmatch(name)):
            yield Violation(
                "spec.nodeSelector",
                f"'{key}'",
                "that is no label key",
                "write [prefix/]name, as in `kubectl get nodes --show-labels`",
            )
        if value and not _LABEL_NAME.fullmatch(value):
            yield Violation(
                f"spec.nodeSelector['{key}']",
                f"'{value}'",
                "a label value has at most 63 letters, digits, '-', '_' or '.', and begins and ends with a letter or digit",
                "write it as in `kubectl get nodes --show-labels`",
            )


def _each_once(field: str, values: Iterable[object], limit: str) -> Iterator[Violation]:
    seen: set[object] = set()
    for index, value in enumerate(values):
        if value is not None and value in seen:
            yield Violation(
                field.format(index),
                f"'{value}'",
                f"an earlier entry has it too, and {limit}",
                "change one of the two",
            )
        seen.add(value)


def _lexically_normal(path: str) -> PurePosixPath:
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            kept = kept[:-1]
        elif part not in {"", "."}:
            kept.append(part)
    return PurePosixPath("/", *kept)
