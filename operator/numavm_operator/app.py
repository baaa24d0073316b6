"""The operator's process: waits to lead, leads, and ends or starts over.

Owns the process's life. A leader that loses its Lease does not become a standby in the same
process: it executes itself anew, so that no cached object, no timer and no half-done write can
survive.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import Final, NoReturn

import structlog

from numavm_api.killpoints import OPERATOR_POINTS, KillSwitch
from numavm_operator.clock import SystemClock
from numavm_operator.errors import NotLeaderError
from numavm_operator.health import Health, serve
from numavm_operator.kube.client import KubeClient
from numavm_operator.kube.connection import load_configuration
from numavm_operator.leadership import Leadership, LeaseTerms, Resignation
from numavm_operator.leading import LeaderDuty, Outside
from numavm_operator.metrics import Metrics
from numavm_operator.settings import Settings

_STOP_SECONDS: Final = 5.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger(__name__)


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._metrics = Metrics()
        self._kill_switch = KillSwitch.armed(settings.kill_point, OPERATOR_POINTS)
        self._duty: LeaderDuty | None = None
        self._leadership = Leadership(
            LeaseTerms(
                namespace=settings.namespace,
                name=settings.lease_name,
                identity=settings.identity,
                lease_seconds=settings.lease_seconds,
                renew_seconds=settings.lease_renew_seconds,
            ),
            connect=self._connect,
            clock=self._clock,
            acquired=self._acquired,
            resigned=self._start_over,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leads = asyncio.Event()
        self._broken: Exception | None = None

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        self._loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        thread = threading.Thread(target=self._hold_lease, args=(stop,), name="leadership")
        thread.daemon = True
        thread.start()
        health = Health(self._problem, self._metrics)
        try:
            async with serve(health, self._settings.listen_address, self._settings.listen_port):
                await self._until(stop)
        finally:
            self._leadership.stop()
            await asyncio.to_thread(thread.join, _STOP_SECONDS)
        if self._broken is not None:
            raise SystemExit(1)
        log.info("stopped")

    def _hold_lease(self, stop: asyncio.Event) -> None:
        """Run in the leadership's thread; without it nothing may go on."""
        try:
            self._leadership.run()
        except Exception as error:
            self._broken = error
            log.exception("leadership_broke")
            if self._loop is not None:
                self._loop.call_soon_threadsafe(stop.set)

    async def _until(self, stop: asyncio.Event) -> None:
        """Wait to lead, then lead, until `stop`."""
        self._stop_on_signals(stop)
        stopped = asyncio.create_task(stop.wait(), name="stop")
        leads = asyncio.create_task(self._leads.wait(), name="standby")
        log.info("standing_by", identity=self._settings.identity)
        await asyncio.wait((stopped, leads), return_when=asyncio.FIRST_COMPLETED)
        leads.cancel()
        if stop.is_set():
            return
        duty = asyncio.create_task(self._lead(), name="leader")
        signals = asyncio.create_task(self._keep_signals(stop), name="signals")
        await asyncio.wait((stopped, duty), return_when=asyncio.FIRST_COMPLETED)
        signals.cancel()
        stopped.cancel()
        if not duty.done():
            duty.cancel()
            await asyncio.wait((duty,), timeout=_STOP_SECONDS)
        elif not stop.is_set():
            await duty

    async def _lead(self) -> None:
        self._metrics.leading.set(1)
        client = await self._connect()
        client.may_write = self._leadership.may_write
        client.wrote = lambda resource: self._metrics.writes.labels(resource).inc()
        try:
            async with client:
                self._duty = LeaderDuty(
                    Outside(
                        settings=self._settings,
                        client=client,
                        epochs=self._leadership,
                        clock=self._clock,
                        metrics=self._metrics,
                        kill_switch=self._kill_switch,
                    )
                )
                await self._duty.run()
        except* NotLeaderError:
            self._start_over(Resignation.EXPIRED)

    async def _connect(self) -> KubeClient:
        return KubeClient(await load_configuration(self._settings.kubeconfig))

    def _acquired(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._leads.set)

    def _problem(self) -> str | None:
        """A standby is ready: it can take over."""
        return self._duty.problem() if self._duty is not None else None

    def _stop_on_signals(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, stop.set)

    async def _keep_signals(self, stop: asyncio.Event) -> None:
        """Take the signals back: each kopf operator takes them for itself as it starts."""
        while True:
            self._stop_on_signals(stop)
            await asyncio.sleep(0.5)

    def _start_over(self, why: Resignation) -> NoReturn:
        """Execute this program anew, under the same identity.

        Its former self is gone for certain.
        """
        log.warning("starting_over", reason=str(why))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        arguments = [word for word in sys.orig_argv[1:] if word != "--start-over"]
        if not any(word.partition("=")[0] == "--identity" for word in arguments):
            arguments += ["--identity", self._settings.identity]
        os.execv(sys.executable, [sys.executable, *arguments, "--start-over"])  # noqa: S606 - ourselves
