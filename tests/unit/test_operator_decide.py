"""What to do next about a NumaVM."""

import itertools

import pytest

from numavm_api.conditions import ClaimRefusalReason
from numavm_api.numavm import RunStrategy
from numavm_api.vm_status import DomainRefusal, DomainState, DomainStatus, ShutoffReason
from numavm_operator.reconcile.decide import (
    AddFinalizer,
    AwaitReport,
    Nothing,
    Place,
    Release,
    RemoveFinalizer,
    WriteBack,
    decide,
)
from numavm_operator.reconcile.world import Reach
from support.operator_worlds import NODE, WorldMaker, claim, reported

REFUSED = DomainRefusal(
    placement_id="c1",
    reason=ClaimRefusalReason.CPU_TAKEN,
    message="CPU 1",
    time="2026-01-01T00:00:00Z",
)


def off(node_name: str = NODE, **more: object) -> DomainStatus:
    return DomainStatus.model_validate(
        {"node_name": node_name, "state": DomainState.SHUTOFF, **more}
    )


def test_a_new_vm_gets_its_finalizer_before_it_is_placed() -> None:
    assert decide(WorldMaker(finalizer=False).make()) == AddFinalizer()
    assert decide(WorldMaker().make()) == Place()


@pytest.mark.parametrize("finalizer", [True, False])
def test_what_is_not_wanted_or_not_accepted_is_not_placed(*, finalizer: bool) -> None:
    halted = WorldMaker(strategy=RunStrategy.HALTED, finalizer=finalizer)
    invalid = WorldMaker(violations=("spec.x is 1, but 2: do 3.",), finalizer=finalizer)
    finished = WorldMaker(
        strategy=RunStrategy.ONCE,
        domain=off(shutoff_reason=ShutoffReason.CRASHED),
        finalizer=finalizer,
    )

    for maker in (halted, invalid, finished):
        assert decide(maker.make()) == Nothing()


def test_a_held_claim_is_kept_whatever_the_vm_is_wanted_to_do_until_its_host_releases_it() -> None:
    for strategy, deleting, reach in itertools.product(RunStrategy, (True, False), Reach):
        maker = WorldMaker(strategy=strategy, deleting=deleting, reach=reach, placement=claim("c1"))
        assert decide(maker.make()) == Nothing()
        maker.domain = off(released="c0")
        assert decide(maker.make()) == Nothing()
        maker.domain = off("host-b", released="c1")
        assert decide(maker.make()) == Nothing()
        maker.domain = off(released="c1")
        assert decide(maker.make()) == Release(NODE, claim("c1"), None)


def test_a_refused_claim_is_cleared_with_the_reason() -> None:
    maker = WorldMaker(placement=claim("c1"), domain=off(refused=REFUSED, released="c1"))

    assert decide(maker.make()) == Release(NODE, claim("c1"), REFUSED)


def test_a_refusal_of_a_former_claim_says_nothing_of_this_one() -> None:
    maker = WorldMaker(placement=claim("c2"), domain=off(refused=REFUSED, released="c1"))

    assert decide(maker.make()) == Nothing()


def test_a_fenced_hosts_claim_is_let_go_without_its_word() -> None:
    maker = WorldMaker(placement=claim("c1"), reach=Reach.UNREACHABLE, fenced=True)

    assert decide(maker.make()) == Release(NODE, claim("c1"), None)


def test_a_deleted_vm_that_holds_nothing_goes_and_one_that_never_held_anything_needs_nothing() -> (
    None
):
    assert decide(WorldMaker(deleting=True).make()) == RemoveFinalizer()
    assert decide(WorldMaker(deleting=True, finalizer=False).make()) == Nothing()


@pytest.mark.parametrize("deleting", [True, False])
@pytest.mark.parametrize("strategy", RunStrategy)
def test_a_confirmed_report_of_a_claim_that_no_status_states_is_written_back(
    strategy: RunStrategy, *, deleting: bool
) -> None:
    maker = WorldMaker(strategy=strategy, deleting=deleting, claimed=(reported(claim("r1")),))

    assert decide(maker.make()) == WriteBack(NODE, claim("r1"))


def test_before_a_write_back_comes_the_finalizer() -> None:
    maker = WorldMaker(finalizer=False, claimed=(reported(claim("r1")),))

    assert decide(maker.make()) == AddFinalizer()


@pytest.mark.parametrize("deleting", [True, False])
def test_a_report_that_nobody_can_confirm_now_holds_up_placement_and_deletion(
    *, deleting: bool
) -> None:
    maker = WorldMaker(deleting=deleting, claimed=(reported(claim("r1"), confirmed=False),))

    assert decide(maker.make()) == AwaitReport(NODE)


def test_a_status_from_before_a_restore_gives_way_to_the_domain_that_runs() -> None:
    newer = reported(claim("r1", epoch=4), "host-b")
    maker = WorldMaker(placement=claim("c1", epoch=3), claimed=(newer,))

    assert decide(maker.make()) == WriteBack("host-b", claim("r1", epoch=4))


def test_a_report_of_an_older_epoch_does_not_win_over_the_status() -> None:
    older = reported(claim("r1", epoch=2), "host-b")
    maker = WorldMaker(placement=claim("c1", epoch=3), claimed=(older,))

    assert decide(maker.make()) == Nothing()


def test_a_claim_that_its_host_reports_too_is_the_truth() -> None:
    both = (reported(claim("c1")), reported(claim("r1", epoch=9), "host-b"))

    assert decide(WorldMaker(placement=claim("c1"), claimed=both).make()) == Nothing()


def test_reports_of_fenced_hosts_count_for_nothing() -> None:
    maker = WorldMaker(claimed=(reported(claim("r1"), fenced=True),))

    assert decide(maker.make()) == Place()
    maker.deleting = True
    assert decide(maker.make()) == RemoveFinalizer()


def test_of_two_reports_the_confirmed_and_the_newer_is_believed() -> None:
    unconfirmed = reported(claim("r9", epoch=9), "host-c", confirmed=False)
    older, newer = reported(claim("r1", epoch=4)), reported(claim("r2", epoch=5), "host-b")

    maker = WorldMaker(claimed=(unconfirmed, older, newer))

    assert decide(maker.make()) == WriteBack("host-b", claim("r2", epoch=5))


def test_a_status_that_cannot_be_read_is_left_alone() -> None:
    assert decide(WorldMaker(unreadable="status.placement is 1", deleting=True).make()) == Nothing()
