"""What counts as changed past NumaVM on a running domain: groups and balloon."""

from __future__ import annotations

from typing import Any

import pytest

from numavm_agent.ports import BalloonSeen
from numavm_agent.reconcile.drift import balloon_drifted, drifted_groups
from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import PlacedModule
from numavm_api.quantity import MEBIBYTE, Bytes
from support.agent_values import claim


def spec(**balloon: Any) -> NumaVMSpec:
    memory = {"guest": "1Gi", "balloon": {"model": "virtio", **balloon}}
    return NumaVMSpec.model_validate({"domain": {"memory": memory}})


def mib(amount: int) -> Bytes:
    return Bytes(amount * MEBIBYTE)


@pytest.mark.parametrize(
    ("balloon", "has", "reached", "drifted"),
    [
        ({}, 1024, 1024, False),
        ({}, 512, 1024, True),
        ({}, 512, None, False),
        ({"target": "768Mi"}, 1024, 768, True),
        ({"target": "768Mi"}, 512, 768, True),
        ({"target": "768Mi"}, 512, 1024, False),
        ({"target": "768Mi", "autodeflate": "Enabled"}, 1024, 768, False),
        ({"target": "768Mi", "autodeflate": "Enabled"}, 512, 768, True),
    ],
)
def test_a_balloon_that_left_the_target_it_had_come_to_was_set_by_somebody(
    balloon: dict[str, str], has: int, reached: int | None, *, drifted: bool
) -> None:
    target = None if reached is None else mib(reached)
    assert drifted is balloon_drifted(BalloonSeen(mib(has)), spec(**balloon), target)


def test_where_libvirt_cannot_say_or_there_is_no_balloon_nothing_drifted() -> None:
    assert not balloon_drifted(None, spec(), mib(1024))
    bare = NumaVMSpec.model_validate({"domain": {"memory": {"guest": "1Gi"}}})
    assert not balloon_drifted(BalloonSeen(mib(512)), bare, mib(1024))


def test_with_virtio_mem_the_size_that_libvirt_names_is_not_the_balloons_alone() -> None:
    virtio = {"name": "v0", "cell": 0, "size": "1Gi", "virtioMem": {"requested": "64Mi"}}
    memory = {"guest": "1Gi", "maxGuest": "4Gi", "balloon": {"model": "virtio"}}
    domain = {"memory": memory, "devices": {"memory": [virtio]}}
    both = NumaVMSpec.model_validate({"domain": domain})
    assert not balloon_drifted(BalloonSeen(mib(1088)), both, mib(1024))


def test_groups_of_a_strictly_bound_domain_are_held_to_the_claims_host_cells() -> None:
    held = claim()
    right, wrong = held.host_cells, CpuSet.of(7)
    allowed = {"a": right, "b": wrong, "c": right | wrong}
    assert drifted_groups(held, allowed) == {"b": wrong, "c": right | wrong}
    soft = [cell.model_copy(update={"mode": BindingMode.PREFERRED}) for cell in held.cells]
    assert drifted_groups(held.model_copy(update={"cells": soft}), allowed) == {}


def test_the_host_cells_of_modules_that_lie_apart_are_the_claims_too() -> None:
    """Held to the cells of the guest alone, the kernel moved a module's pages to them (measured)."""
    held = claim()
    module = PlacedModule(
        name="m",
        cell=0,
        host_cells=CpuSet.of(7),
        mode=BindingMode.STRICT,
        memory=mib(128),
        page_size=Bytes(2 * MEBIBYTE),
    )
    apart = held.model_copy(update={"modules": [module]})
    assert drifted_groups(apart, {"a": held.host_cells | CpuSet.of(7)}) == {}
    assert drifted_groups(apart, {"a": held.host_cells}) == {"a": held.host_cells}
