"""What a guest on a lab host says of itself, waited for."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from numavm_lab.demo.proof import guest_report
from numavm_lab.guest import Report
from numavm_lab.hosts import LabHost
from support.lab_words import words_of_host
from support.vms import Vms
from support.wait import wait_for

SILENT_SECONDS = 150
"""By then a guest has booted, also where two emulated hosts share two busy CPUs (20 s on a quiet machine)."""


def wait_booted(vms: Vms, host: LabHost, name: str) -> None:
    """Wait until a guest has made its first report; one that says nothing at all is restarted, once, with a warning.

    On a busy machine emulated kernels were seen to stand still before their first word, lab hosts' own among them.
    """
    seen = vms.wait(
        name, lambda vm: vm.get("status", {}).get("printableStatus") == "Running", 180, "Running"
    )
    uid = seen["metadata"]["uid"]
    try:
        wait_report(host, uid, deadline_seconds=SILENT_SECONDS)
    except AssertionError:
        _tell(f"{name} says nothing, and is restarted:\n{words_of_host(host)}")
        vms.patch(name, restartToken="silent")
        wait_report(host, uid, deadline_seconds=2 * SILENT_SECONDS)


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


def _tell(message: str) -> None:
    """Have pytest show a warning at the end, which fails nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn(message, stacklevel=3)
