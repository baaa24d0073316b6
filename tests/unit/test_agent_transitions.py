"""What becomes of `status.domain`: nothing of an older claim lingers, and both sides read it alike."""

from typing import Any

import pytest

from numavm_agent.domain.model import Accelerator
from numavm_agent.ports import LibvirtState
from numavm_agent.reconcile import transitions
from numavm_agent.reconcile.admission import Refused
from numavm_agent.reconcile.decide import ClaimPhase
from numavm_agent.reconcile.transitions import Run, may_start, seconds_of, timestamp
from numavm_agent.reconcile.vms import claim_phase
from numavm_api.conditions import ClaimRefusalReason
from numavm_api.lifecycle import Wanted, is_released, refusal_of, wants_to_run
from numavm_api.vm_status import DomainState, DomainStatus, PausedReason, ShutoffReason
from support.agent_values import claim, spec, vm

NOW = 1_800_000_000.0


def run(**changes: Any) -> Run:
    fields: dict[str, Any] = {
        "uuid": "uid-1",
        "name": "ns_vm_uid",
        "state": LibvirtState.RUNNING,
        "paused": None,
        "accelerator": Accelerator.KVM,
        "machine": "pc-q35-7.2",
        "placement_id": "claim-1",
        "restart_token": "1",
        "started_at": NOW - 100,
        "boot_id": "boot",
        "stopping": False,
    }
    return Run(**{**fields, **changes})


def running(**changes: Any) -> DomainStatus:
    return transitions.observed(None, "node", run(**changes), now=NOW)


def test_why_it_stands_still_is_told_until_it_is_stopped() -> None:
    paused = {"state": LibvirtState.PAUSED, "paused": PausedReason.IO_ERROR}
    assert running(**paused).paused_reason is PausedReason.IO_ERROR
    assert running(**paused, stopping=True).paused_reason is None


def test_times_are_kubernetes_times_and_read_back() -> None:
    assert timestamp(NOW) == "2027-01-15T08:00:00Z"
    assert seconds_of(timestamp(NOW)) == NOW
    assert seconds_of("yesterday") is None


def test_a_running_domain_reads_as_it_is() -> None:
    status = running()
    assert (
        status.state,
        status.type,
        status.placement_id,
    ) == (DomainState.RUNNING, "KVM", "claim-1")
    assert None is status.shutoff_reason


def test_a_domain_that_is_being_stopped_says_whose_doing_its_end_will_be() -> None:
    status = running(stopping=True)
    assert (status.state, status.shutoff_reason) == (DomainState.SHUTDOWN, ShutoffReason.STOPPED)


def test_counts_belong_to_a_claim() -> None:
    before = running().model_copy(update={"starts": 4, "failures": 2})
    same = transitions.observed(before, "node", run(), now=NOW)
    other = transitions.observed(before, "node", run(placement_id="claim-2"), now=NOW)
    assert ((same.starts, same.failures), (other.starts, other.failures)) == ((4, 2), (1, None))


def test_a_long_run_forgives_failures_in_the_status_too() -> None:
    before = running().model_copy(update={"failures": 2})
    later = transitions.observed(before, "node", run(), now=NOW + 201)
    assert later.failures is None


def test_a_start_time_is_kept_while_the_process_is_going() -> None:
    gone = transitions.observed(running(), "node", run(started_at=None), now=NOW)
    assert timestamp(NOW - 100) == gone.started_at


@pytest.mark.parametrize(
    ("reason", "failures"),
    [
        (ShutoffReason.STOPPED, None),
        (ShutoffReason.HOST_LOST, None),
        (ShutoffReason.GUEST_SHUTDOWN, 1),
        (ShutoffReason.CRASHED, 1),
        (ShutoffReason.DESTROYED, 1),
        (ShutoffReason.UNKNOWN, 1),
    ],
)
def test_only_an_end_nobody_asked_for_is_a_failure(
    reason: ShutoffReason, failures: int | None
) -> None:
    after = transitions.ended(running(), reason, now=NOW)
    assert (DomainState.SHUTOFF, reason, failures) == (
        after.state,
        after.shutoff_reason,
        after.failures,
    )
    assert may_start(after, now=NOW)


def test_the_third_failure_waits() -> None:
    status = running()
    for _ in range(3):
        status = transitions.ended(status, ShutoffReason.CRASHED, now=NOW)
    assert status.failures == 3
    assert not may_start(status, now=NOW + 40)
    assert may_start(status, now=NOW + 50)


def test_a_clock_set_back_does_not_hold_a_start_for_long() -> None:
    status = running().model_copy(update={"retry_at": timestamp(NOW + 3600)})
    assert may_start(status, now=NOW)


def test_starting_again_forgets_why_it_ended() -> None:
    finished = transitions.ended(running(), ShutoffReason.GUEST_SHUTDOWN, now=NOW)
    asked = spec(runStrategy="RerunOnFailure", restartToken="2")
    starting = transitions.starting(finished, "node", vm(asked), claim())
    assert (
        starting.shutoff_reason,
        starting.restart_token,
        starting.machine,
    ) == (None, "2", "pc-q35-7.2")
    assert wants_to_run(asked, starting) == Wanted.RUNNING


def test_a_failed_start_is_tried_again_even_once() -> None:
    asked = spec(runStrategy="Once")
    starting = transitions.starting(None, "node", vm(asked), claim())
    failed = transitions.start_failed(starting, now=NOW)
    assert wants_to_run(asked, failed) == Wanted.RUNNING
    assert failed.failures == 1


def test_a_refusal_is_a_release_and_both_sides_read_it() -> None:
    refusal = Refused(ClaimRefusalReason.CPU_TAKEN, "CPU 3")
    status = transitions.refused(running(), "node", claim(), refusal, now=NOW)
    assert is_released(claim(), "node", status)
    found = refusal_of(claim(), "node", status)
    assert found is not None
    assert found.reason == ClaimRefusalReason.CPU_TAKEN
    assert claim_phase(claim(), status) == ClaimPhase.GIVEN_BACK
    assert claim_phase(claim(id="claim-2"), status) == ClaimPhase.OPEN


def test_a_release_keeps_how_it_ended_and_holds_nothing() -> None:
    finished = transitions.ended(running(), ShutoffReason.GUEST_SHUTDOWN, now=NOW)
    status = transitions.released(finished, "node", claim())
    assert is_released(claim(), "node", status)
    assert (
        status.shutoff_reason,
        status.restart_token,
        status.placement_id,
    ) == (ShutoffReason.GUEST_SHUTDOWN, "1", None)
    assert wants_to_run(spec(runStrategy="Once", restartToken="1"), status) == Wanted.FINISHED


def test_a_claim_never_run_is_released_too() -> None:
    assert is_released(claim(), "node", transitions.released(None, "node", claim()))


def test_no_claim_is_no_phase() -> None:
    assert claim_phase(None, running()) == ClaimPhase.NONE
