"""The engine against an exhaustive search: nothing illegal, nothing refused or accepted wrongly."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from numavm_api.effective import effective
from numavm_api.numahost import NumaHostSpec, NumaHostStatus
from numavm_api.numavm import DomainType, NumaVMSpec
from numavm_api.placement import Placement
from numavm_operator.placement import (
    Fleet,
    Placed,
    Refusal,
    Request,
    Undecided,
    host_from,
    overhead_of,
    place,
    request_for,
)
from support.placement_checker import violations
from support.placement_oracle import Cost, Oracle
from support.placement_random import random_holes, random_host, random_vm

HostWithClaims = tuple[dict[str, Any], list[Placement]]


def request_of(spec: dict[str, Any]) -> Request:
    parsed = NumaVMSpec.model_validate(spec)
    return request_for(
        effective(parsed),
        uid="the-vm",
        namespace="default",
        name="vm",
        placement_id="new",
        epoch=7,
        request_hash="hash",
        domain_type=parsed.domain.type,
    )


def fleet_of(hosts: list[HostWithClaims]) -> Fleet:
    fleet = Fleet.empty()
    for host, claims in hosts:
        name = host["metadata"]["name"]
        fleet = fleet.with_host(
            host_from(
                name,
                NumaHostSpec.model_validate(host["spec"]),
                NumaHostStatus.model_validate(host["status"]),
            )
        )
        for claim in claims:
            fleet = fleet.with_claim(name, f"uid of {claim.id}", claim)
    return fleet


def ranks(spec: dict[str, Any], hosts: list[HostWithClaims]) -> dict[str, tuple[bool, Cost]]:
    """Return what the oracle says of each host that can take the VM."""
    parsed = NumaVMSpec.model_validate(spec)
    vm = effective(parsed)
    found = {}
    for host, claims in hosts:
        able = host["status"]["capabilities"]
        emulated = parsed.domain.type is DomainType.TCG or not able["kvm"]
        if emulated and (parsed.domain.type is DomainType.KVM or not able["emulationAllowed"]):
            continue
        cost = Oracle(host, claims).best(vm, int(overhead_of(vm)))
        if cost is not None:
            found[host["metadata"]["name"]] = (emulated, cost)
    return found


def check(seed: int) -> str:
    random = Random(seed)  # noqa: S311 - reproducible cases
    hosts = []
    for number in range(random.randint(1, 2)):
        host = random_host(random, f"host-{number}")
        hosts.append((host, random_holes(random, host)))
    spec = random_vm(random)
    outcome = place(request_of(spec), fleet_of(hosts))
    expected = ranks(spec, hosts)
    match outcome:
        case Placed():
            host, claims = next(
                one for one in hosts if one[0]["metadata"]["name"] == outcome.node_name
            )
            wrong = violations(
                outcome.placement.to_api(),
                {"spec": spec},
                host,
                [claim.to_api() for claim in claims],
            )
            assert wrong == [], f"seed {seed}: {wrong}"
            assert outcome.node_name in expected, f"seed {seed}: accepted, the oracle refuses"
            best = min(expected.values())
            assert expected[outcome.node_name] == best, f"seed {seed}: {expected}"
            assert outcome.distance == best[1].distance, f"seed {seed}"
            return "placed"
        case Refusal():
            assert expected == {}, f"seed {seed}: refused {outcome}, the oracle finds {expected}"
            return "refused"
        case Undecided():
            return "undecided"


@pytest.mark.parametrize("block", range(8))
def test_engine_agrees_with_the_exhaustive_search(block: int) -> None:
    outcomes = [check(block * 1000 + number) for number in range(300)]

    assert outcomes.count("undecided") == 0
    assert outcomes.count("placed") > 30
    assert outcomes.count("refused") > 30


@pytest.mark.long
@pytest.mark.parametrize("block", range(100))
def test_engine_agrees_with_the_exhaustive_search_on_many_hosts(block: int) -> None:
    outcomes = [check(1_000_000 + block * 1000 + number) for number in range(500)]

    assert outcomes.count("undecided") == 0
