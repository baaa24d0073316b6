"""Health and metrics over HTTP: `/healthz` (alive), `/readyz` (of use), `/metrics` (Prometheus).

kopf's own endpoint answers as long as its loop turns, and does not exist in a standby. This one
says what matters: a standby is ready (it can take over); a leader is ready while its lists are
fresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from numavm_operator.metrics import Metrics

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """What the endpoint answers from."""

    problem: Callable[[], str | None]
    """Why the operator is of no use now; None where it is."""
    metrics: Metrics


@asynccontextmanager
async def serve(health: Health, address: str, port: int) -> AsyncIterator[None]:
    """Serve while the context is open; port 0 takes any free one, -1 serves nothing."""
    if port < 0:
        yield
        return
    application = web.Application()
    application.router.add_get("/healthz", _alive)
    application.router.add_get("/readyz", _ready(health))
    application.router.add_get("/metrics", _metrics(health))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, port)
        await site.start()
        log.info("serving", addresses=[str(one) for one in runner.addresses])
        yield
    finally:
        await runner.cleanup()


Answer = Callable[[web.Request], Awaitable[web.Response]]


async def _alive(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _ready(health: Health) -> Answer:
    async def answer(_request: web.Request) -> web.Response:
        problem = health.problem()
        if problem is None:
            return web.Response(text="ok\n")
        return web.Response(text=f"{problem}\n", status=HTTPStatus.SERVICE_UNAVAILABLE)

    return answer


def _metrics(health: Health) -> Answer:
    async def answer(_request: web.Request) -> web.Response:
        # In a thread: writing thousands of lines takes long enough to hold up everything else.
        body = await asyncio.to_thread(generate_latest, health.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return answer
