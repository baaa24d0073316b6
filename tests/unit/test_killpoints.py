"""Arming a kill point."""

import signal
import subprocess
import sys

import pytest

from numavm_api.killpoints import AGENT_POINTS, OPERATOR_POINTS, KillPoint, KillSwitch


def test_nothing_armed_never_kills() -> None:
    killed: list[bool] = []
    switch = KillSwitch.armed(None, OPERATOR_POINTS)
    switch.kill = lambda: killed.append(True)

    for point in KillPoint:
        switch.reach(point)

    assert killed == []


def test_the_armed_point_kills_exactly_at_its_time() -> None:
    killed: list[bool] = []
    switch = KillSwitch.armed("before-claim-write:2", OPERATOR_POINTS)
    switch.kill = lambda: killed.append(True)

    switch.reach(KillPoint.BEFORE_CLAIM_WRITE)
    switch.reach(KillPoint.AFTER_CLAIM_WRITE)
    assert killed == []

    switch.reach(KillPoint.BEFORE_CLAIM_WRITE)
    switch.reach(KillPoint.BEFORE_CLAIM_WRITE)

    assert killed == [True]


def test_a_seed_always_draws_the_same_point_of_the_binary_and_seeds_differ() -> None:
    drawn = [KillSwitch.armed(f"seed:{seed}", AGENT_POINTS) for seed in range(40)]
    again = [KillSwitch.armed(f"seed:{seed}", AGENT_POINTS) for seed in range(40)]

    assert [(one.point, one.time) for one in drawn] == [(one.point, one.time) for one in again]
    assert set(AGENT_POINTS) == {one.point for one in drawn}


@pytest.mark.parametrize(
    "text", ["before-lunch", "before-claim-write:x", "before-claim-write:0", "before-admit"]
)
def test_what_names_no_point_of_the_binary_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"NUMAVM_KILL_POINT="):
        KillSwitch.armed(text, OPERATOR_POINTS)


def test_an_armed_process_dies_by_sigkill() -> None:
    code = (
        "from numavm_api.killpoints import *\n"
        "KillSwitch.armed('before-release', OPERATOR_POINTS).reach(KillPoint.BEFORE_RELEASE)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
