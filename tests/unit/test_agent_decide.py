"""Every row of the agent's decision table."""

import itertools

import pytest

from numavm_agent.ports import DomainSeen, LibvirtState
from numavm_agent.reconcile.decide import (
    Action,
    Change,
    ClaimPhase,
    DomainPhase,
    Facts,
    Fencing,
    Keeping,
    Owner,
    Restart,
    Retry,
    decide,
    decide_unlisted,
    domain_phase,
)
from numavm_api.lifecycle import Wanted

ALL_FACTS = [
    Facts(*row)
    for row in itertools.product(Wanted, DomainPhase, ClaimPhase, Restart, Retry, Change)
]
RUNS = (DomainPhase.UNSETTLED, DomainPhase.SETTLED)


def expected(facts: Facts) -> Action:
    """The table in another form: the first line that fits speaks."""
    stays = facts.wanted is Wanted.RUNNING and facts.restart is Restart.NONE
    lines = [
        (facts.domain in (DomainPhase.STARTING, DomainPhase.ENDING), Action.WAIT),
        (facts.domain is DomainPhase.CRASHED, Action.CLEAR),
        (facts.domain is DomainPhase.STOPPING, Action.CONTINUE_STOP),
        (facts.domain in RUNS and not stays, Action.BEGIN_STOP),
        (facts.domain in RUNS and facts.change is Change.UNDER_WAY, Action.CHANGE),
        (facts.domain is DomainPhase.UNSETTLED, Action.SETTLE),
        (facts.domain is DomainPhase.SETTLED and facts.change is not Change.NONE, Action.CHANGE),
        (facts.domain is DomainPhase.SETTLED, Action.KEEP),
        (facts.claim is ClaimPhase.NONE, Action.NOTHING),
        (facts.wanted is not Wanted.RUNNING, Action.RELEASE),
        (facts.claim is ClaimPhase.GIVEN_BACK, Action.NOTHING),
        (facts.retry is Retry.LATER, Action.WAIT),
        (True, Action.ADMIT),
    ]
    return next(action for fits, action in lines if fits)


@pytest.mark.parametrize("facts", ALL_FACTS, ids=str)
def test_every_combination_has_its_action(facts: Facts) -> None:
    assert expected(facts) == decide(facts)


def test_nothing_is_started_unless_it_is_wanted_absent_and_claimed() -> None:
    for facts in ALL_FACTS:
        if decide(facts) is Action.ADMIT:
            assert (
                facts.wanted,
                facts.domain,
                facts.claim,
            ) == (Wanted.RUNNING, DomainPhase.ABSENT, ClaimPhase.OPEN)


def test_a_change_is_begun_or_continued_only_on_a_domain_that_is_to_run() -> None:
    changed = [facts for facts in ALL_FACTS if decide(facts) is Action.CHANGE]
    assert {Wanted.RUNNING} == {facts.wanted for facts in changed}
    assert set(RUNS) == {facts.domain for facts in changed}
    assert {Restart.NONE} == {facts.restart for facts in changed}


def test_nothing_is_released_while_a_domain_is_there() -> None:
    released = [facts for facts in ALL_FACTS if decide(facts) is Action.RELEASE]
    assert {DomainPhase.ABSENT} == {facts.domain for facts in released}
    assert Wanted.RUNNING not in {facts.wanted for facts in released}


@pytest.mark.parametrize(
    ("owner", "fencing", "keeping"),
    [
        (Owner.MISSING, Fencing.NONE, Keeping.KEEP_AS_ORPHAN),
        (Owner.MISSING, Fencing.FENCED, Keeping.KEEP_AS_ORPHAN),
        (Owner.UNKNOWN, Fencing.NONE, Keeping.KEEP),
        (Owner.UNKNOWN, Fencing.FENCED, Keeping.KEEP),
        (Owner.HERE, Fencing.NONE, Keeping.KEEP),
        (Owner.HERE, Fencing.FENCED, Keeping.KEEP),
        (Owner.UNPLACED, Fencing.NONE, Keeping.KEEP),
        (Owner.UNPLACED, Fencing.FENCED, Keeping.STOP),
        (Owner.ELSEWHERE, Fencing.NONE, Keeping.KEEP),
        (Owner.ELSEWHERE, Fencing.FENCED, Keeping.STOP),
        (Owner.UNWANTED, Fencing.NONE, Keeping.STOP),
        (Owner.UNWANTED, Fencing.FENCED, Keeping.STOP),
    ],
)
def test_a_domain_without_a_listed_vm_is_kept_unless_an_object_says_otherwise(
    owner: Owner, fencing: Fencing, keeping: Keeping
) -> None:
    assert keeping == decide_unlisted(owner, fencing)


@pytest.mark.parametrize(
    ("state", "settled_run", "phase"),
    [
        (LibvirtState.STARTING, None, DomainPhase.STARTING),
        (LibvirtState.SHUTOFF, 7, DomainPhase.ENDING),
        (LibvirtState.SHUTDOWN, 7, DomainPhase.ENDING),
        (LibvirtState.CRASHED, 7, DomainPhase.CRASHED),
        (LibvirtState.RUNNING, None, DomainPhase.UNSETTLED),
        (LibvirtState.RUNNING, 6, DomainPhase.UNSETTLED),
        (LibvirtState.RUNNING, 7, DomainPhase.SETTLED),
        (LibvirtState.PAUSED, 7, DomainPhase.SETTLED),
    ],
)
def test_the_phase_is_libvirts_state_and_whether_this_run_was_settled(
    state: LibvirtState, settled_run: int | None, phase: DomainPhase
) -> None:
    seen = DomainSeen(uuid="u", name="n", run_id=7, state=state)
    assert phase == domain_phase(seen, None, settled_run=settled_run)


def test_no_domain_is_absent() -> None:
    assert domain_phase(None, None, settled_run=7) == DomainPhase.ABSENT
