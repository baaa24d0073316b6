"""A running VM that is to be elsewhere on its host: when the claim is amended, concluded, taken back, reverted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from numavm_api.conditions import ClaimRefusalReason, Condition, ConditionType, Reason
from numavm_api.cpuset import CpuSet
from numavm_api.numavm import RunStrategy
from numavm_api.placement import PlacedDevice, Placement
from numavm_api.quantity import GIBIBYTE, MEBIBYTE, Bytes
from numavm_api.vm_status import (
    CpuTopologyStatus,
    DomainRefusal,
    DomainState,
    DomainStatus,
    MemoryStatus,
    ModuleStatus,
)
from numavm_operator.ledger import Ledger
from numavm_operator.placement import turned_back
from numavm_operator.reconcile.amending import capacity_reserved, in_use
from numavm_operator.reconcile.decide import (
    Amend,
    Conclude,
    Nothing,
    Release,
    Revert,
    WriteBack,
    decide,
)
from numavm_operator.reconcile.ready import ready
from numavm_operator.reconcile.report import report
from numavm_operator.reconcile.world import Outcome, Reach, Waiting, World
from support.operator_worlds import NODE, UID, WorldMaker, claim, reported

OLD = claim("c1")
NEW = claim("c2", cpus=CpuSet.of(5), host_cell=1)
BOTH = NEW.replacing(OLD)
REFUSED = DomainRefusal(
    placement_id="c2", reason=ClaimRefusalReason.HUGE_PAGES_TAKEN, message="3 free", time="now"
)


def runs(placement_id: str = "c1", **more: Any) -> DomainStatus:
    state = more.pop("state", DomainState.RUNNING)
    return DomainStatus(node_name=NODE, state=state, placement_id=placement_id, **more)


def world(placement: Placement = OLD, domain: DomainStatus | None = None, **more: Any) -> World:
    return WorldMaker(placement=placement, domain=domain or runs(), **more).make()


def test_a_running_vm_bound_elsewhere_gets_an_amended_claim() -> None:
    assert decide(world(bound_to="1")) == Amend()
    assert decide(world(bound_to="0")) == Nothing()
    assert decide(world(bound_to=None)) == Nothing()


@pytest.mark.parametrize(
    "held_back",
    [
        {"strategy": RunStrategy.HALTED},
        {"reach": Reach.UNREACHABLE},
        {"reach": Reach.UNDETERMINED},
        {"domain": runs(state=DomainState.SHUTOFF)},
        {"domain": runs(state=DomainState.SHUTDOWN)},
        {"domain": runs("another")},
        {"violations": ("spec.x is 1, but 2: do 3.",)},
        {"why_fixed": "its host has no cgroup v2"},
    ],
    ids=str,
)
def test_it_does_not_where_nothing_can_be_moved(held_back: dict[str, Any]) -> None:
    assert decide(world(bound_to="1", **held_back)) == Nothing()


def test_a_vm_with_host_devices_stays_where_it_is_and_says_why() -> None:
    card = PlacedDevice(name="nic", address="0000:65:00.0", host_cell=0)
    held = world(OLD.model_copy(update={"devices": [card]}), bound_to="1")

    assert decide(held) == Nothing()
    assert "host devices (nic)" in capacity_reserved(held).message


def test_both_claims_are_held_until_the_agent_reports_the_new_one() -> None:
    assert decide(world(BOTH, bound_to="1")) == Nothing()
    assert decide(world(BOTH, runs("c2"), bound_to="1")) == Conclude(NODE, NEW)


def test_a_report_of_either_claim_is_no_reason_to_write_it_back() -> None:
    for told in (OLD, NEW, BOTH):
        assert decide(world(BOTH, bound_to="1", claimed=(reported(told),))) == Nothing()


def test_a_claim_that_an_older_backup_forgot_is_written_back_with_both_its_parts() -> None:
    assert decide(world(OLD, bound_to="1", claimed=(reported(BOTH),))) == WriteBack(NODE, BOTH)


def test_a_change_that_is_taken_back_turns_and_holds_what_was_held() -> None:
    assert decide(world(BOTH, bound_to="0")) == Amend()
    back = turned_back(BOTH, placement_id="c3", epoch=3)
    assert back is not None
    assert (back.id, back.cells, back.earlier) == ("c3", OLD.cells, NEW)
    assert decide(world(back, bound_to="0")) == Nothing()
    assert decide(world(back, runs("c2"), bound_to="0")) == Nothing()
    assert decide(world(back, runs("c3"), bound_to="0")) == Conclude(NODE, back.alone)


def test_a_second_change_waits_for_the_first() -> None:
    assert decide(world(BOTH, bound_to="2")) == Nothing()
    assert decide(world(NEW, runs("c2"), bound_to="2")) == Amend()


def test_a_refused_change_leaves_the_claim_as_it_was() -> None:
    assert decide(world(BOTH, runs(refused=REFUSED), bound_to="1")) == Revert(NODE, OLD, REFUSED)


def test_a_vm_that_ended_meanwhile_lets_both_claims_go_when_its_host_does() -> None:
    gone = runs(state=DomainState.SHUTOFF, released="c2")
    step = decide(world(BOTH, gone, bound_to="1", strategy=RunStrategy.HALTED))
    assert step == Release(NODE, BOTH, None)


def test_the_ledger_holds_both_claims_and_lets_the_old_one_go_with_the_amendment() -> None:
    ledger = Ledger(lambda: None)
    amended = world(BOTH).vm
    ledger.vm_changed(None, amended)
    assert {"c1", "c2"} == {one.id for one in ledger.fleet.claims(NODE)[UID]}
    ledger.vm_changed(amended, world(NEW).vm)
    assert [one.id for one in ledger.fleet.claims(NODE)[UID]] == ["c2"]


@pytest.mark.parametrize(
    ("seen", "status", "reason"),
    [
        (world(bound_to="0"), "True", Reason.RESERVED),
        (world(BOTH, bound_to="1"), "True", Reason.CHANGING),
        (world(bound_to="1"), "Unknown", Reason.WAITING_FOR_OPERATOR),
        (
            world(bound_to="1", waiting=Waiting(Outcome.UNSCHEDULABLE, "1 host: no room")),
            "False",
            Reason.NO_ROOM,
        ),
        (world(bound_to="1", why_fixed="no cgroup v2"), "False", Reason.NOT_MOVABLE),
        (
            world(bound_to="0", waiting=Waiting(Outcome.UNSCHEDULABLE, "of before")),
            "True",
            Reason.RESERVED,
        ),
    ],
)
def test_capacity_reserved_says_how_the_change_stands(
    seen: World, status: str, reason: Reason
) -> None:
    verdict = capacity_reserved(seen)
    assert (verdict.status, verdict.reason) == (status, reason)


def test_a_vm_that_cannot_go_where_the_spec_wants_it_is_not_ready() -> None:
    waiting = Waiting(Outcome.UNSCHEDULABLE, "1 host: no room")
    seen = world(domain=runs(observed_generation=1), bound_to="1", waiting=waiting)
    said = report(seen, now="2026-01-01T00:00:00Z")
    ready = next(one for one in said.conditions if one.type == ConditionType.READY)
    assert (ready.status, ready.reason) == ("False", "NoRoom")
    assert "guest cell 0 on 1, not 0" in ready.message
    assert "no room" in ready.message


def told(
    hot: str = "True",
    reason: Reason = Reason.NO_CHANGE,
    generation: int = 1,
    bound_to: str | None = None,
    **module: Any,
) -> World:
    """Return a running VM whose agent has told of its vCPUs and memory."""
    kinds = (ConditionType.HOT_VCPU_CHANGE, ConditionType.HOT_MEMORY_CHANGE)
    conditions = [
        Condition.model_validate(
            {
                "type": kind,
                "status": hot,
                "reason": reason,
                "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "observedGeneration": generation,
            }
        )
        for kind in kinds
    ]
    made = world(conditions=conditions, domain=runs(observed_generation=1), bound_to=bound_to)
    topology = CpuTopologyStatus(
        sockets=1, dies=1, cores=1, threads=1, online_vcpus=CpuSet.of(0), vcpus=1
    )
    size = Bytes(GIBIBYTE)
    devices = [ModuleStatus(**{"name": "m", "model": "dimm", "cell": 0, "size": size} | module)]
    memory = MemoryStatus(
        guest_at_boot=size, guest_requested=size, guest_current=size, devices=devices
    )
    update = {"current_cpu_topology": topology, "memory": memory}
    status = made.vm.status.model_copy(update=update)
    return replace(made, vm=replace(made.vm, status=status))


@pytest.mark.parametrize(
    ("module", "beside"),
    [
        ({}, {0: GIBIBYTE}),
        ({"model": "nvdimm"}, {}),
        ({"model": "virtio-pmem", "cell": None}, {}),
        ({"model": "virtio-mem", "requested": Bytes(0), "current": Bytes(64)}, {0: 64}),
        ({"model": "virtio-mem", "requested": Bytes(128), "current": Bytes(64)}, {0: 128}),
    ],
)
def test_what_a_guest_has_is_its_agents_word(
    module: dict[str, Any], beside: dict[int, int]
) -> None:
    used = in_use(told(**module))
    assert used is not None
    assert (dict(used.beside), used.vcpus) == (beside, CpuSet.of(0))


def test_a_vm_that_was_given_more_memory_stays_where_it_is_as_its_agent_would_say() -> None:
    grown = told(bound_to="1", name="grown-0-1", size=Bytes(128 * MEBIBYTE))

    assert decide(grown) == Nothing()
    verdict = capacity_reserved(grown)
    assert (verdict.status, verdict.reason) == ("False", Reason.NOT_MOVABLE)
    assert "only boot memory can be moved" in verdict.message


def test_nothing_is_let_go_while_something_is_about_to_change() -> None:
    assert in_use(told("Unknown", Reason.AWAITING_GUEST)) is None
    assert in_use(told("False", Reason.GUEST_REFUSED)) is None
    assert in_use(told(generation=0)) is None
    assert in_use(world()) is None


@pytest.mark.parametrize(
    ("hot", "reason", "is_ready", "says"),
    [
        ("True", Reason.NO_CHANGE, "True", Reason.RUNNING),
        ("False", Reason.GUEST_REFUSED, "False", Reason.GUEST_REFUSED),
        ("Unknown", Reason.AWAITING_GUEST, "False", Reason.CHANGING),
    ],
)
def test_a_vm_is_ready_when_its_changes_are_done(
    hot: str, reason: Reason, is_ready: str, says: Reason
) -> None:
    verdict = ready(told(hot, reason))
    assert (verdict.status, verdict.reason) == (is_ready, says)
