"""How long a host is left out after it refused."""

from datetime import UTC, datetime, timedelta

import pytest

from numavm_api.conditions import ClaimRefusalReason
from numavm_api.vm_status import DomainRefusal, Refusal
from numavm_operator.reconcile.refusals import Excluded, excluded, recorded
from numavm_operator.timestamps import timestamp

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def said(reason: ClaimRefusalReason = ClaimRefusalReason.CPU_TAKEN) -> DomainRefusal:
    return DomainRefusal(placement_id="c1", reason=reason, message="CPU 3", time=timestamp(NOW))


def refused(
    before: list[Refusal], node_name: str = "a", version: str = "7", **more: ClaimRefusalReason
) -> list[Refusal]:
    return recorded(before, said(**more), node_name=node_name, host_version=version, now=NOW)


def after(refusal: Refusal, seconds: float, version: str | None = "7") -> Excluded | None:
    return excluded(refusal, host_version=version, now=NOW + timedelta(seconds=seconds))


def test_the_newest_refusal_per_host_is_kept_and_counted() -> None:
    refusals = refused(refused(refused([]), node_name="b"))

    assert [(one.node_name, one.count) for one in refusals] == [("a", 2), ("b", 1)]


@pytest.mark.parametrize(
    "reason", [ClaimRefusalReason.STALE_EPOCH, ClaimRefusalReason.SPEC_CHANGED]
)
def test_what_is_not_the_hosts_fault_does_not_count_against_it(reason: ClaimRefusalReason) -> None:
    assert refused([], reason=reason) == []


@pytest.mark.parametrize(("times", "seconds"), [(1, 30), (2, 60), (3, 120), (5, 300), (9, 300)])
def test_an_unchanged_host_is_left_out_for_a_doubling_time(times: int, seconds: int) -> None:
    refusals: list[Refusal] = []
    for _ in range(times):
        refusals = refused(refusals)
    (refusal,) = refusals

    out = after(refusal, seconds - 1)
    assert out is not None
    assert out.seconds_left == 1
    assert out.why == "CpuTaken: CPU 3"
    assert after(refusal, seconds) is None


def test_a_changed_host_is_tried_again_at_once_but_not_over_and_over() -> None:
    once = refused([])
    twice = refused(once)

    assert after(once[0], 0, version="8") is None
    assert after(twice[0], 0, version="8") == Excluded("CpuTaken: CPU 3", 2.0)
    assert after(twice[0], 2, version="8") is None


def test_a_host_that_went_is_no_obstacle() -> None:
    assert after(refused([])[0], 0, version=None) is None
