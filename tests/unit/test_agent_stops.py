"""How stops go on, how starts are spaced, and why a domain is no longer there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numavm_agent.domain.metadata import Operation
from numavm_agent.reconcile.backoff import CAP_SECONDS, delay_seconds, failures_after
from numavm_agent.reconcile.ends import end_reason
from numavm_agent.reconcile.operations import (
    StopCause,
    StopStep,
    StopUnderWay,
    is_stop,
    next_stop_step,
    read_stop,
    stop_operation,
)
from numavm_api.vm_status import DomainState, DomainStatus, ShutoffReason


@given(st.sampled_from(StopCause), st.floats(min_value=0, max_value=1e9))
def test_a_stops_record_reads_as_it_was_written(cause: StopCause, began: float) -> None:
    operation = stop_operation(cause, began=began)
    found = read_stop(operation)
    assert is_stop(operation)
    assert cause == found.cause
    assert abs(began - found.began) < 0.001


@pytest.mark.parametrize("after", ["Shutoff:Nonsense", "", "Shutoff"])
def test_a_damaged_record_is_a_stop_whose_time_is_over(after: str) -> None:
    found = read_stop(Operation(kind="Stop", before="Running", after=after, step="?"))
    assert found.began == 0.0


@pytest.mark.parametrize(
    ("now", "last_asked", "step"),
    [
        (100.0, 100.0, StopStep.WAIT),
        (109.9, 100.0, StopStep.WAIT),
        (110.0, 100.0, StopStep.ASK_AGAIN),
        (105.0, None, StopStep.ASK_AGAIN),
        (159.9, 155.0, StopStep.WAIT),
        (160.0, 155.0, StopStep.CUT_POWER),
        (9999.0, None, StopStep.CUT_POWER),
    ],
)
def test_a_stop_asks_again_and_in_the_end_cuts_power(
    now: float, last_asked: float | None, step: StopStep
) -> None:
    stop = StopUnderWay(StopCause.NOT_WANTED, began=100.0)
    assert step == next_stop_step(stop, grace_seconds=60, now=now, last_asked=last_asked)


@pytest.mark.parametrize(
    ("failures", "least"), [(0, 0), (1, 0), (2, 10), (3, 40), (4, 90), (9, 300)]
)
def test_delays_grow_with_the_square_up_to_the_cap(failures: int, least: float) -> None:
    assert least <= delay_seconds(failures, "uid") <= 1.1 * least


@given(st.integers(min_value=0, max_value=10_000), st.text())
def test_no_delay_is_past_the_cap_and_its_jitter(failures: int, key: str) -> None:
    assert delay_seconds(failures, key) <= 1.1 * CAP_SECONDS


def test_jitter_differs_between_vms() -> None:
    assert delay_seconds(4, "a") != delay_seconds(4, "b")


@pytest.mark.parametrize(
    ("failures", "ran", "after"), [(None, 1, 1), (2, 1, 3), (2, 299.9, 3), (7, 300, 1)]
)
def test_a_long_run_forgives(failures: int | None, ran: float, after: int) -> None:
    assert after == failures_after(failures, ran)


def running(**changes: object) -> DomainStatus:
    fields = {"node_name": "n", "state": DomainState.RUNNING, "boot_id": "this"}
    return DomainStatus(**{**fields, **changes})


@pytest.mark.parametrize(
    ("before", "whose", "event", "line", "reason"),
    [
        (running(boot_id="other"), "ours", ShutoffReason.DESTROYED, None, ShutoffReason.HOST_LOST),
        (running(), "ours", ShutoffReason.GUEST_SHUTDOWN, None, ShutoffReason.STOPPED),
        (
            running(state=DomainState.SHUTDOWN, shutoff_reason=ShutoffReason.STOPPED),
            "theirs",
            None,
            None,
            ShutoffReason.STOPPED,
        ),
        (running(), "theirs", ShutoffReason.CRASHED, "reason=destroyed", ShutoffReason.CRASHED),
        (running(), "theirs", None, None, ShutoffReason.UNKNOWN),
        (running(), "theirs", None, "anything else", ShutoffReason.UNKNOWN),
        (
            running(),
            "theirs",
            None,
            "2026-11-23 04:15:58.1+0000: shutting down, reason=shutdown",
            ShutoffReason.GUEST_SHUTDOWN,
        ),
        (
            running(),
            "theirs",
            None,
            "2026-11-23 04:15:58.1+0000: shutting down, reason=destroyed",
            ShutoffReason.DESTROYED,
        ),
        (
            running(),
            "theirs",
            None,
            "2026-11-23 04:15:58.1+0000: shutting down, reason=failed",
            ShutoffReason.CRASHED,
        ),
        (
            running(),
            "theirs",
            None,
            "2026-11-23 04:15:58.1+0000: shutting down, reason=from snapshot",
            ShutoffReason.UNKNOWN,
        ),
    ],
)
def test_why_a_domain_ended(
    before: DomainStatus,
    whose: str,
    event: ShutoffReason | None,
    line: str | None,
    reason: ShutoffReason,
) -> None:
    found = end_reason(
        before, stopped_by_us=whose == "ours", event=event, last_log_line=line, boot_id="this"
    )
    assert reason == found
