"""How many guest cells a VM derived at its first placement: written once, kept while nothing is held."""

from typing import Any

import pytest

from numavm_operator.kube.vms import derived_cells
from numavm_operator.objects import read_vm
from support.domains import claim_for, facts_of, spec_of, vm_of

DERIVED = spec_of({"cpu": {"cores": 4, "numa": {"guestMappingPassthrough": {}}}})
CLAIM = claim_for(vm_of(DERIVED).effective, facts_of(2))


def vm(spec: dict[str, Any], status: dict[str, Any]) -> Any:
    metadata = {
        "name": "a",
        "namespace": "default",
        "uid": "c7a5fdbd-cdaf-4455-926a-d65c16db1809",
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return read_vm({"metadata": metadata, "spec": spec, "status": status})


@pytest.mark.parametrize(
    ("status", "placement", "kept"),
    [
        ({}, None, None),  # never placed
        ({}, CLAIM, 2),
        ({"derivedCells": 2}, None, 2),  # stopped: it holds nothing, and keeps its topology
        ({"derivedCells": 3}, CLAIM, 3),
    ],
)
def test_the_first_number_is_kept(status: dict[str, Any], placement: Any, kept: int | None) -> None:
    assert derived_cells(vm(DERIVED.to_api(), status), placement) == kept


def test_a_number_that_the_spec_names_goes_first() -> None:
    numa = {"guestMappingPassthrough": {"cells": 4}}
    spec = spec_of({"cpu": {"cores": 4, "numa": numa}})

    assert derived_cells(vm(spec.to_api(), {"derivedCells": 2}), None) == 4


def test_declared_cells_are_no_derived_ones() -> None:
    assert derived_cells(vm(spec_of(cells=2).to_api(), {"derivedCells": 2}), CLAIM) is None
