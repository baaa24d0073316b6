"""Laws that every decision keeps, whatever the fleet: on fleets of random hosts with VMs that come and go."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numavm_api.effective import effective
from numavm_api.numahost import NumaHostSpec, NumaHostStatus
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_operator.placement import (
    SPREAD,
    Fleet,
    Host,
    Placed,
    Policy,
    Refusal,
    Request,
    host_from,
    place,
    request_for,
)
from numavm_operator.placement.flow import Demand, match_within, share_out
from numavm_operator.placement.groups import MIN_GROUPS, Sight
from numavm_operator.placement.memory import Lineage
from numavm_operator.placement.state import HostState
from support.placement_checker import violations
from support.placement_random import Sizes, random_host, random_vm

ROOMY = Sizes(cells=4, cores=8, vcpus=6, guest_cells=3)
seeds = st.integers(0, 2**32)


def host_of(host: dict[str, Any]) -> Host:
    return host_from(
        host["metadata"]["name"],
        NumaHostSpec.model_validate(host["spec"]),
        NumaHostStatus.model_validate(host["status"]),
    )


def request_of(spec: dict[str, Any], uid: str) -> Request:
    parsed = NumaVMSpec.model_validate(spec)
    return request_for(
        effective(parsed),
        uid=uid,
        namespace="default",
        name=uid,
        placement_id=f"claim-{uid}",
        epoch=1,
        request_hash="hash",
        domain_type=parsed.domain.type,
    )


def random_hosts(random: Random, count: int) -> list[dict[str, Any]]:
    return [random_host(random, f"host-{at}", ROOMY) for at in range(count)]


def fleet_of(hosts: list[dict[str, Any]]) -> Fleet:
    fleet = Fleet.empty()
    for host in hosts:
        fleet = fleet.with_host(host_of(host))
    return fleet


def contents(fleet: Fleet) -> dict[str, Any]:
    return {name: of_state(state) for name, state in fleet.states.items()}


def of_state(state: HostState) -> tuple[object, ...]:
    return state.cells, [cell.mask for cell in state.cells], state.watched, state.alone


@pytest.mark.parametrize("seed", range(12))
def test_no_claim_ever_breaks_a_rule_while_vms_come_and_go(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - reproducible
    hosts = {host["metadata"]["name"]: host for host in random_hosts(random, 3)}
    fleet = fleet_of(list(hosts.values()))
    held: dict[str, tuple[str, Placement]] = {}
    placed = 0

    for number in range(60):
        if held and random.random() < 0.3:
            uid = random.choice(sorted(held))
            fleet = fleet.without_claim(held.pop(uid)[0], uid)
        spec, uid = random_vm(random, ROOMY), f"vm-{number}"
        outcome = place(request_of(spec, uid), fleet)
        if not isinstance(outcome, Placed):
            continue
        others = [claim for node, claim in held.values() if node == outcome.node_name]
        wrong = violations(
            outcome.placement.to_api(),
            {"spec": spec},
            hosts[outcome.node_name],
            [claim.to_api() for claim in others],
        )
        assert wrong == [], f"request {number}: {wrong}"
        held[uid] = (outcome.node_name, outcome.placement)
        fleet = fleet.with_claim(outcome.node_name, uid, outcome.placement)
        placed += 1

    assert placed > 3


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_releasing_a_placement_gives_back_the_fleet_as_it_was(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - reproducible
    fleet = fleet_of(random_hosts(random, 2))
    before = contents(fleet)
    outcome = place(request_of(random_vm(random, ROOMY), "vm"), fleet)

    if isinstance(outcome, Placed):
        held = fleet.with_claim(outcome.node_name, "vm", outcome.placement)
        assert contents(held) != before
        assert contents(held.without_claim(outcome.node_name, "vm")) == before


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_the_order_of_hosts_does_not_matter(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - reproducible
    hosts = random_hosts(random, 4)
    request = request_of(random_vm(random, ROOMY), "vm")

    there = place(request, fleet_of(hosts))
    back = place(request, fleet_of(hosts[::-1]))

    if isinstance(there, Refusal) and isinstance(back, Refusal):
        assert there.counts == back.counts
    else:
        assert there == back


@pytest.mark.parametrize("seed", range(10))
def test_what_is_remembered_never_changes_an_answer(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - reproducible
    hosts = random_hosts(random, 4)
    specs = [random_vm(random, ROOMY) for _ in range(5)]
    fleet, old = fleet_of(hosts), fleet_of(hosts)
    held: list[tuple[str, str]] = []

    for number in range(40):
        request = request_of(random.choice(specs), f"vm-{number}")
        outcome = place(request, fleet)
        assert outcome == place(request, fleet.apart())
        if random.random() < 0.2:
            place(request, old)
        if isinstance(outcome, Placed):
            fleet = fleet.with_claim(outcome.node_name, request.uid, outcome.placement)
            held.append((outcome.node_name, request.uid))
        if held and random.random() < 0.4:
            fleet = fleet.without_claim(*held.pop(random.randrange(len(held))))


def test_states_that_no_host_is_in_any_more_are_forgotten_and_nothing_else_changes() -> None:
    random = Random(3)  # noqa: S311 - reproducible
    fleet = fleet_of(random_hosts(random, 4))
    specs = [random_vm(random, ROOMY) for _ in range(100)]
    held: dict[str, str] = {}
    forgotten = 0
    remembered: dict[Sight, int] = {}

    for number in range(2 * MIN_GROUPS):
        request = request_of(specs[number % len(specs)], f"vm-{number}")
        outcome = place(request, fleet)
        if number % 50 == 0:
            assert outcome == place(request, fleet.apart())
        if isinstance(outcome, Placed):
            fleet = fleet.with_claim(outcome.node_name, request.uid, outcome.placement)
            held[request.uid] = outcome.node_name
        if len(held) > random.randint(0, 12):
            uid = random.choice(sorted(held))
            fleet = fleet.without_claim(held.pop(uid), uid)
        for sight, grouping in fleet.lineage.history.groupings.items():
            forgotten += len(grouping.groups) < remembered.get(sight, 0)
            remembered[sight] = len(grouping.groups)
            assert len(grouping.groups) <= MIN_GROUPS

    assert len(remembered) > 1
    assert forgotten > 0


@pytest.mark.parametrize("policy", [Policy(), SPREAD], ids=["pack", "spread"])
@pytest.mark.parametrize("seed", range(8))
def test_the_chosen_host_is_the_best_of_all_each_asked_alone(seed: int, policy: Policy) -> None:
    """Bounds, groups and heap only save asking: here every host is asked, in a fleet of its own."""
    random = Random(seed)  # noqa: S311 - reproducible
    specs = [random_vm(random, ROOMY) for _ in range(4)]
    fleet = fleet_of(random_hosts(random, 5))

    for number in range(15):
        request = request_of(random.choice(specs), f"vm-{number}")
        ranks = []
        for name, state in fleet.states.items():
            alone = Lineage.new().ranking(request.wanted, policy, {name: state}).answer_of(name)
            if alone is not None and alone.rank is not None:
                ranks.append((alone.rank, name))
        outcome = place(request, fleet, policy)
        assert isinstance(outcome, Placed) == bool(ranks)
        if isinstance(outcome, Placed):
            assert outcome.node_name == min(ranks)[1]
            fleet = fleet.with_claim(outcome.node_name, request.uid, outcome.placement)


@pytest.mark.parametrize("seed", range(10))
def test_stepping_claim_by_claim_gives_the_same_state_as_building_it_at_once(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - reproducible
    hosts = random_hosts(random, 2)
    fleet = fleet_of(hosts)
    for number in range(12):
        request = request_of(random_vm(random, ROOMY), f"vm-{number}")
        outcome = place(request, fleet)
        if isinstance(outcome, Placed):
            fleet = fleet.with_claim(outcome.node_name, request.uid, outcome.placement)

    for name, state in fleet.states.items():
        built = HostState.of(state.host, fleet.claims(name))
        assert of_state(built) == of_state(state)


def test_an_older_fleet_still_answers_for_itself() -> None:
    random = Random(5)  # noqa: S311 - reproducible
    fleet = fleet_of(random_hosts(random, 3))
    request = next(
        one
        for one in (request_of(random_vm(random, ROOMY), "vm") for _ in range(100))
        if isinstance(place(one, fleet), Placed)
    )
    first = place(request, fleet)
    assert isinstance(first, Placed)
    later = fleet.with_claim(first.node_name, "vm", first.placement)
    place(request, later)

    assert place(request, fleet) == first


def test_the_same_claim_counts_once_and_different_ones_of_a_vm_unite() -> None:
    random = Random(11)  # noqa: S311 - reproducible
    fleet = fleet_of(random_hosts(random, 3))
    placed = next(
        outcome
        for outcome in (
            place(request_of(random_vm(random, ROOMY), "vm"), fleet) for _ in range(200)
        )
        if isinstance(outcome, Placed) and outcome.placement.dedicated_cpus
    )
    node, claim = placed.node_name, placed.placement
    once = fleet.with_claim(node, "vm", claim)
    other = claim.model_copy(update={"id": "previous"})

    assert once.with_claim(node, "vm", claim) is once
    assert contents(once.with_claim(node, "vm", other)) == contents(once)
    assert contents(once.with_claim(node, "other-vm", other)) != contents(once)


def test_claims_may_come_before_their_host() -> None:
    random = Random(3)  # noqa: S311 - reproducible
    hosts = random_hosts(random, 3)
    fleet = fleet_of(hosts)
    placed = next(
        outcome
        for outcome in (
            place(request_of(random_vm(random, ROOMY), "vm"), fleet) for _ in range(200)
        )
        if isinstance(outcome, Placed)
    )
    early = Fleet.empty().with_claim(placed.node_name, "vm", placed.placement)
    for host in hosts:
        early = early.with_host(host_of(host))

    late = fleet.with_claim(placed.node_name, "vm", placed.placement)

    assert contents(early) == contents(late)
    back = late.without_host(placed.node_name).with_host(late.hosts[placed.node_name])
    assert contents(back) == contents(late)


def test_an_equal_host_changes_nothing() -> None:
    fleet = fleet_of(random_hosts(Random(1), 2))  # noqa: S311 - reproducible
    host = fleet.hosts["host-0"]

    assert fleet.with_host(replace(host)) is fleet
    assert fleet.without_host("unknown") is fleet
    assert fleet.without_claim("host-0", "unknown") is fleet


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sets(st.integers(0, 3), min_size=1)),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.integers(0, 8), min_size=4, max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_sharing_out_is_possible_exactly_when_no_set_of_demands_is_too_large(
    wanted: list[tuple[int, set[int]]], limits: list[int]
) -> None:
    """Hall's condition for transport problems: every set of demands fits into the places it may use."""
    demands = [Demand(amount, tuple(sorted(places))) for amount, places in wanted]
    shares = share_out(demands, dict(enumerate(limits)))
    possible = all(
        sum(demand.amount for at, demand in enumerate(demands) if chosen >> at & 1)
        <= sum(
            limits[place]
            for place in set().union(
                *(demand.places for at, demand in enumerate(demands) if chosen >> at & 1)
            )
        )
        for chosen in range(1 << len(demands))
    )

    assert (shares is not None) == possible
    if shares is not None:
        for demand, share in zip(demands, shares, strict=True):
            assert sum(share.values()) == demand.amount
            assert set(share) <= set(demand.places)
            assert all(amount >= 0 for amount in share.values())
        for place, limit in enumerate(limits):
            assert sum(share.get(place, 0) for share in shares) <= limit


@given(
    st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=1, max_size=5),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
@settings(max_examples=400, deadline=None)
def test_a_choice_within_caps_is_found_exactly_when_there_is_one(
    wishes: list[set[int]], caps: list[int]
) -> None:
    """Eight things in three groups: tried against every choice there is."""
    options = [sorted(wish) for wish in wishes]
    group_of = {thing: thing % 3 for thing in range(8)}

    def lawful(choice: tuple[int, ...]) -> bool:
        taken = Counter(group_of[thing] for thing in choice)
        return len(set(choice)) == len(choice) and all(
            taken[group] <= cap for group, cap in enumerate(caps)
        )

    chosen = match_within(options, group_of, caps)

    assert (chosen is not None) == any(map(lawful, product(*options)))
    if chosen is not None:
        assert lawful(tuple(chosen))
        assert all(thing in wish for thing, wish in zip(chosen, wishes, strict=True))
