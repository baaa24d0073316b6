"""Who else uses the host: asked anew each turn, and remembered where the kubelet does not answer.

What the kubelet promised to a pod stays promised while the kubelet is away, since the pod runs on: its last word counts
until there is a new one, also over a restart of the agent, by NumaHost's status.
"""

from __future__ import annotations

from typing import Final

from numavm_agent.errors import KubeletUnavailable
from numavm_agent.ports import Clock, Kubelet
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import NumaHostStatus
from numavm_api.others import KubeletUse
from numavm_api.pools import OtherUsers

_RETRY_SECONDS: Final = 15.0
"""A kubelet that does not answer takes seconds of a turn; it is not asked at each."""


class OtherUsersReader:
    """Asks the kubelet, and remembers its last word."""

    def __init__(self, kubelet: Kubelet, clock: Clock) -> None:
        self._kubelet = kubelet
        self._clock = clock
        self._last: KubeletUse | None = None
        self._error: str | None = None
        self._failed_at = float("-inf")

    def read(self, domain_cpus: CpuSet, reported: NumaHostStatus) -> OtherUsers:
        """Return who uses what now.

        Args:
            domain_cpus: CPUs that domains of others keep to themselves.
            reported: NumaHost's status: the kubelet's word to a former agent.
        """
        if self._error is None or self._clock.boottime() >= self._failed_at + _RETRY_SECONDS:
            self._ask(reported)
        return OtherUsers(
            kubelet_runs=self._last is not None or self._error is not None,
            domain_cpus=domain_cpus,
            kubelet=self._last,
            kubelet_error=self._error,
        )

    def _ask(self, reported: NumaHostStatus) -> None:
        try:
            self._last = self._kubelet.use()
            self._error = None
        except KubeletUnavailable as error:
            self._error = str(error)
            self._failed_at = self._clock.boottime()
            if self._last is None and reported.others is not None:
                self._last = reported.others.kubelet
