"""The balloon of a running guest: what is applied live, and what the status says of it."""

from __future__ import annotations

from typing import Any

import pytest

from numavm_agent.ports import BalloonSeen
from numavm_agent.reconcile.balloon_report import balloon_status, target_of
from numavm_agent.reconcile.changes import Effect, applied_live, field_changes
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import GIBIBYTE, MEBIBYTE, Bytes
from numavm_api.vm_status import BalloonStatus, MemoryStatus
from support.agent_values import claim

NOW = "2026-01-01T00:10:00Z"
EPOCH_OF_NOW = 1767226200


def spec(**balloon: Any) -> NumaVMSpec:
    memory: dict[str, Any] = {"guest": "1Gi"}
    if balloon:
        memory["balloon"] = balloon
    return NumaVMSpec.model_validate({"domain": {"memory": memory}})


def before(said: BalloonStatus | None) -> MemoryStatus | None:
    if said is None:
        return None
    size = Bytes(GIBIBYTE)
    return MemoryStatus(guest_at_boot=size, guest_requested=size, guest_current=size, balloon=said)


def mib(amount: int) -> Bytes:
    return Bytes(amount * MEBIBYTE)


FULL = spec(model="virtio")
ASKED = spec(model="virtio", statsPeriodSeconds=5)


def test_target_and_period_are_live_and_the_device_is_not() -> None:
    wanted = spec(model="virtio", target="512Mi", statsPeriodSeconds=10)
    assert {one.path: one.effect for one in field_changes(FULL, wanted)} == {
        "spec.domain.memory.balloon.statsPeriodSeconds": Effect.LIVE,
        "spec.domain.memory.balloon.target": Effect.LIVE,
    }
    for old, new in ((spec(), wanted), (wanted, spec())):
        assert {one.effect for one in field_changes(old, new)} == {Effect.RESTART}
    assert applied_live(FULL, wanted, claim()) == wanted
    assert applied_live(spec(), wanted, claim()) == spec()
    switched = spec(model="virtio", target="512Mi", autodeflate="Enabled")
    after = applied_live(FULL, switched, claim()).domain.memory.balloon
    assert after is not None
    assert (after.target, after.autodeflate) == (mib(512), None)


def test_without_a_target_the_guest_is_to_have_all() -> None:
    assert [target_of(one) for one in (spec(), FULL, spec(target="256Mi"))] == [
        None,
        mib(1024),
        mib(256),
    ]


def test_the_status_says_what_was_asked_and_what_the_guest_has() -> None:
    wanted = spec(model="virtio", target="512Mi")
    said = balloon_status(BalloonSeen(mib(1024)), wanted, None, now=NOW)
    assert said == BalloonStatus(target=mib(512), actual=mib(1024))
    assert balloon_status(None, wanted, before(said), now=NOW) == said
    assert balloon_status(BalloonSeen(mib(1024)), spec(), before(said), now=NOW) is None


@pytest.mark.parametrize(("age", "stale"), [(3, False), (15, False), (16, True), (3600, True)])
def test_figures_of_a_guest_that_does_not_speak_are_stale(age: int, *, stale: bool) -> None:
    seen = BalloonSeen(mib(1024), mib(980), mib(700), mib(600), EPOCH_OF_NOW - age)
    said = balloon_status(seen, ASKED, None, now=NOW)
    assert said is not None
    assert (said.usable, said.stale) == (mib(700), stale)


def test_a_guest_that_is_not_asked_or_never_answered_has_no_figures() -> None:
    spoken = BalloonSeen(mib(1024), mib(980), mib(700), mib(600), EPOCH_OF_NOW)
    silent = BalloonSeen(mib(1024), last_update=0)
    for seen, wanted in ((spoken, FULL), (silent, ASKED)):
        said = balloon_status(seen, wanted, None, now=NOW)
        assert said == BalloonStatus(target=mib(1024), actual=mib(1024))


@pytest.mark.parametrize(
    ("actual", "is_told"), [(1024, False), (1020, False), (1000, True), (512, True)]
)
def test_small_changes_are_not_written(actual: int, *, is_told: bool) -> None:
    wanted = spec(model="virtio", target="512Mi")
    said = BalloonStatus(target=mib(512), actual=mib(1024))
    now = balloon_status(BalloonSeen(mib(actual)), wanted, before(said), now=NOW)
    assert (now != said) == is_told


def test_that_the_target_is_reached_is_told_however_small_the_step() -> None:
    wanted = spec(model="virtio", target="512Mi")
    said = BalloonStatus(target=mib(512), actual=mib(513))
    assert balloon_status(BalloonSeen(mib(512)), wanted, before(said), now=NOW) != said


def test_the_guests_own_figures_are_told_once_a_minute() -> None:
    def said(age: int) -> BalloonStatus | None:
        seen = BalloonSeen(mib(1024), mib(980), mib(700), mib(600), EPOCH_OF_NOW - age)
        first = balloon_status(seen, ASKED, None, now=NOW)
        assert first is not None
        first = first.model_copy(update={"stale": False})
        later = BalloonSeen(mib(1024), mib(980), mib(300), mib(200), EPOCH_OF_NOW)
        return None if balloon_status(later, ASKED, before(first), now=NOW) == first else first

    assert said(age=59) is None
    assert said(age=61) is not None
