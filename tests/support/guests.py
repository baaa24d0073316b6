"""What a guest on a lab host says of itself, waited for."""

from __future__ import annotations

from collections.abc import Callable

from numavm_lab.demo.proof import guest_report
from numavm_lab.guest import Report
from numavm_lab.hosts import LabHost
from support.wait import wait_for


def wait_report(
    host: LabHost,
    uid: str,
    until: Callable[[Report], bool] = lambda _report: True,
    *,
    deadline_seconds: float = 180,
    poll_seconds: float = 1,
    describe: str = "the guest's report on its serial console",
) -> Report:
    """Return the guest's newest report, once it is as `until` wants it."""
    report = wait_for(
        lambda: guest_report(host, uid),
        until=lambda seen: seen is not None and until(seen),
        deadline_seconds=deadline_seconds,
        poll_seconds=poll_seconds,
        describe=describe,
    )
    assert report is not None
    return report
