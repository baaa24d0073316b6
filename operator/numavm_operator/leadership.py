"""Which operator leads: a Lease, held by renewing it, whose deadline is checked before each write.

Owns the claim to be the only writer. What a peer usually gets wrong is kept right here:

* The renewal runs in a thread of its own with a client of its own, so that a busy event loop loses
no leadership, and a stopped process cannot renew. * The deadline counts from before the last
renewal was *sent*, and ends well before another operator may take over: writes that are still on
their way then arrive in time. It is checked in the write path itself (`may_write`). * The Lease is
written with its resourceVersion as a precondition. If it is not exactly what was last written, then
somebody took it, or the API server was restored from a backup and everything cached is wrong: the
operator *resigns*, which means to start over as a new process, so that nothing survives. * The
`epoch` counts leaderships. It goes into each claim; agents refuse claims of older ones. It is
written to the Lease (`leaseTransitions`) before it is used, so that two leaders never share one.

Others judge the Lease by their own clock, by when they saw it change; its timestamps are for
people.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import structlog

from numavm_api.errors import ConflictError, NumaVMError, TransientError
from numavm_operator.clock import Clock
from numavm_operator.errors import NotFoundError, NotLeaderError
from numavm_operator.kube.client import Json, KubeClient
from numavm_operator.kube.paths import lease_path, leases
from numavm_operator.timestamps import micro_timestamp

_DEADLINE_SHARE: Final = 2 / 3
"""Share of the lease's length after which the leader stops writing.

The rest is for what is still on its way.
"""

log = structlog.get_logger(__name__)


class Resignation(StrEnum):
    """Why a leader starts over."""

    EXPIRED = "Expired"
    """It could not renew in time, or was stopped for so long."""
    STOLEN = "Stolen"
    """Another operator holds the Lease."""
    REWOUND = "Rewound"
    """The Lease is an older one of our own, or gone: the API server was restored from a backup."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """The Lease and its times."""

    namespace: str
    name: str
    identity: str
    lease_seconds: float
    renew_seconds: float


@dataclass(slots=True)
class _Observed:
    """A Lease of someone else, and since when it has been like this by our own clock."""

    mark: str
    since: float


class Leadership:
    """Holds the Lease of one operator.

    `run` belongs into a thread of its own; everything else may be called from any.
    """

    def __init__(
        self,
        terms: LeaseTerms,
        connect: Callable[[], Any],
        clock: Clock,
        acquired: Callable[[], None],
        resigned: Callable[[Resignation], None],
    ) -> None:
        """Prepare.

        Args:
            terms: The Lease and its times.
            connect: Returns an awaitable KubeClient, to be opened within the thread's own event
                loop.
            clock: Whose `seconds` go on during suspend.
            acquired: Called in the thread when leadership is had.
            resigned: Called in the thread when leadership was had and is lost; does not return in
                earnest.
        """
        self._terms = terms
        self._connect = connect
        self._clock = clock
        self._acquired = acquired
        self._resigned = resigned
        self._valid_until = float("-inf")
        self._epoch = 0
        self._wanted_epoch = 0
        self._written: Json = {}
        self._observed: _Observed | None = None
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._recorded: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    @property
    def epoch(self) -> int:
        """The epoch that may be used: it stands in the Lease."""
        return self._epoch

    @property
    def leads(self) -> bool:
        """Tell whether this operator may write now."""
        return self._clock.seconds() < self._valid_until

    def may_write(self) -> None:
        """Return only where this operator leads.

        Raises:
            NotLeaderError: it does not, or its deadline has passed.
        """
        late = self._clock.seconds() - self._valid_until
        if late >= 0:
            raise NotLeaderError(
                f"the leadership of {self._terms.identity} is over since {late:.1f} s"
            )

    async def raise_epoch(self, at_least: int) -> None:
        """Return when an epoch of at least so much stands in the Lease.

        Raises:
            NotLeaderError: this operator never led.
        """
        if self._epoch >= at_least:
            return
        if self._loop is None:
            raise NotLeaderError(f"{self._terms.identity} never led")
        here = asyncio.get_running_loop()
        done: asyncio.Future[None] = here.create_future()
        self._loop.call_soon_threadsafe(self._want_epoch, at_least, here, done)
        await done

    def stop(self) -> None:
        """End `run`, which gives the Lease back."""
        self._ended.set()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._poke)

    def run(self) -> None:
        """Get the Lease, hold it until `stop`, and give it back."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        async with await self._connect() as client:
            while not self._ended.is_set():
                held = self._valid_until > 0
                try:
                    await (self._renew(client) if held else self._try_to_get(client))
                except NumaVMError as error:
                    log.warning("lease_request_failed", error=str(error), leading=held)
                if held and not self.leads:
                    self._resign(Resignation.EXPIRED)
                await self._pause()
            if self.leads:
                await self._give_back(client)

    async def _pause(self) -> None:
        if self._wake is None or self._ended.is_set():
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), self._terms.renew_seconds)
        self._wake.clear()

    def _poke(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def _want_epoch(
        self, epoch: int, loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]
    ) -> None:
        self._wanted_epoch = max(self._wanted_epoch, epoch)
        self._recorded.append((epoch, loop, done))
        self._poke()

    async def _try_to_get(self, client: KubeClient) -> None:
        """Take the Lease where nobody holds it, or its holder let it run out."""
        lease = await self._read(client)
        spec = (lease or {}).get("spec") or {}
        if lease is not None and not self._is_free(spec):
            return
        sent = self._clock.seconds()
        epoch = int(spec.get("leaseTransitions") or 0) + 1
        if lease is None:
            path = leases(self._terms.namespace)
            self._written = await client.post(path, self._lease(None, epoch))
        else:
            self._written = await client.put(self._path(), self._lease(lease, epoch))
        self._hold(sent, epoch)
        log.info("leadership_acquired", identity=self._terms.identity, epoch=epoch)
        self._acquired()

    def _is_free(self, spec: Json) -> bool:
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._terms.identity):
            return True
        mark = f"{holder} {spec.get('renewTime')} {spec.get('leaseTransitions')}"
        now = self._clock.seconds()
        if self._observed is None or self._observed.mark != mark:
            self._observed = _Observed(mark, now)
        length = float(spec.get("leaseDurationSeconds") or self._terms.lease_seconds)
        return now >= self._observed.since + length

    async def _renew(self, client: KubeClient) -> None:
        if not self.leads:
            return
        sent = self._clock.seconds()
        epoch = max(self._epoch, self._wanted_epoch)
        wanted = self._lease(self._written, epoch)
        try:
            self._written = await client.put(self._path(), wanted)
        except NotFoundError:
            self._resign(Resignation.REWOUND)
            return
        except (ConflictError, TransientError):
            # An earlier renewal may have been done though its answer was lost.
            if not await self._is_what_was_written(client, wanted):
                return
        self._hold(sent, epoch)

    async def _is_what_was_written(self, client: KubeClient, wanted: Json) -> bool:
        """Tell whether `wanted` stands in the Lease after all.

        Resign where neither it nor its forerunner does.
        """
        lease = await self._read(client)
        if lease is None:
            self._resign(Resignation.REWOUND)
            return False
        if lease["spec"] == wanted["spec"]:
            self._written = lease
            return True
        if lease["metadata"]["resourceVersion"] == self._written["metadata"]["resourceVersion"]:
            return False
        mine = (lease["spec"] or {}).get("holderIdentity") == self._terms.identity
        self._resign(Resignation.REWOUND if mine else Resignation.STOLEN)
        return False

    def _hold(self, sent: float, epoch: int) -> None:
        self._epoch = epoch
        self._valid_until = sent + self._terms.lease_seconds * _DEADLINE_SHARE
        waiting = self._recorded
        self._recorded = [entry for entry in waiting if entry[0] > epoch]
        for wanted, loop, done in waiting:
            if wanted <= epoch:
                loop.call_soon_threadsafe(_resolve, done)

    def _resign(self, why: Resignation) -> None:
        self._valid_until = float("-inf")
        log.warning("leadership_lost", reason=str(why), identity=self._terms.identity)
        self._ended.set()
        self._resigned(why)

    async def _give_back(self, client: KubeClient) -> None:
        self._valid_until = float("-inf")
        free = self._lease(self._written, self._epoch)
        free["spec"]["holderIdentity"] = ""
        try:
            await client.put(self._path(), free)
        except NumaVMError as error:
            log.warning("lease_not_given_back", error=str(error))

    async def _read(self, client: KubeClient) -> Json | None:
        try:
            return await client.get(self._path())
        except NotFoundError:
            return None

    def _lease(self, known: Json | None, epoch: int) -> Json:
        metadata: Json = {"name": self._terms.name, "namespace": self._terms.namespace}
        if known is not None:
            metadata["resourceVersion"] = known["metadata"]["resourceVersion"]
            metadata["uid"] = known["metadata"]["uid"]
        now = micro_timestamp(self._clock.now())
        same_holder = known is not None and known is self._written
        acquired = known["spec"]["acquireTime"] if known is not None and same_holder else now
        spec = {
            "holderIdentity": self._terms.identity,
            "leaseDurationSeconds": round(self._terms.lease_seconds),
            "acquireTime": acquired,
            "renewTime": now,
            "leaseTransitions": epoch,
        }
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": spec,
        }

    def _path(self) -> str:
        return lease_path(self._terms.namespace, self._terms.name)


def _resolve(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
