"""What is kept once is still said as before: models that share sets are the same models."""

from typing import Any

from numavm_api.numavm import NumaVMSpec
from numavm_operator.frugal import frugal

SPEC: dict[str, Any] = {
    "domain": {
        "cpu": {"cores": 2, "numa": {"cells": [{"id": 0, "cpus": "0-1", "memory": "64Mi"}]}},
        "devices": {"disks": []},
    },
    "nodeSelector": {"a": "b"},
}


def test_a_frugal_model_is_the_same_and_says_the_same() -> None:
    made = NumaVMSpec.model_validate(SPEC)

    kept = frugal(NumaVMSpec.model_validate(SPEC))

    assert kept == made
    assert kept.to_api() == made.to_api()
    assert kept.model_dump(exclude_unset=True) == made.model_dump(exclude_unset=True)
    assert kept.model_copy(update={"node_selector": {}}).domain == made.domain


def test_two_models_of_the_same_fields_share_what_says_so_at_every_depth() -> None:
    one, other = (frugal(NumaVMSpec.model_validate(SPEC)) for _ in range(2))

    assert one.model_fields_set is other.model_fields_set
    first, second = (made.domain.cpu.numa for made in (one, other))
    assert first is not None
    assert second is not None
    assert first is not second
    assert first.model_fields_set is second.model_fields_set
    assert first.cells[0].model_fields_set is second.cells[0].model_fields_set


def test_a_copy_with_other_fields_leaves_the_shared_set_alone() -> None:
    one, other = (frugal(NumaVMSpec.model_validate(SPEC)) for _ in range(2))
    before = set(one.model_fields_set)

    one.model_copy(update={"run_strategy": "Halted"})

    assert other.model_fields_set == before
