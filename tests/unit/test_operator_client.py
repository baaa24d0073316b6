"""One request to the API server: its errors, and the guard before each write."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from kubernetes.aio import client

from numavm_api.errors import ConflictError, NumaVMError, RejectedError, TransientError
from numavm_operator.errors import GoneError, NotFoundError, NotLeaderError
from numavm_operator.kube.client import KubeClient

Seen = list[tuple[str, str]]


async def with_server(
    status: int, message: str, use: Callable[[client.Configuration], Awaitable[None]]
) -> Seen:
    """Serve one answer to everything on a port of this machine; return what was asked."""
    seen: Seen = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.method, request.path))
        return web.json_response({"message": message}, status=status)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        await use(client.Configuration(host=f"http://{host}:{port}"))
    finally:
        await runner.cleanup()
    return seen


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RejectedError),
        (401, TransientError),
        (403, RejectedError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, GoneError),
        (422, RejectedError),
        (429, TransientError),
        (500, TransientError),
        (503, TransientError),
    ],
)
def test_each_status_has_its_error_with_the_servers_words(
    status: int, error: type[NumaVMError]
) -> None:
    async def use(configuration: client.Configuration) -> None:
        async with KubeClient(configuration) as kube:
            with pytest.raises(error, match=rf"PUT /api/v1/nodes/n: {status}: because"):
                await kube.put("/api/v1/nodes/n", {"kind": "Node"})

    asyncio.run(with_server(status, "because", use))


def test_a_failed_test_of_a_json_patch_is_a_conflict() -> None:
    async def use(configuration: client.Configuration) -> None:
        async with KubeClient(configuration) as kube:
            with pytest.raises(ConflictError):
                await kube.json_patch("/api/v1/nodes/n", [{"op": "test"}])

    asyncio.run(with_server(422, "the server rejected our request", use))


def test_a_server_that_does_not_answer_is_transient() -> None:
    async def run() -> None:
        async with KubeClient(client.Configuration(host="http://127.0.0.1:1")) as kube:
            with pytest.raises(TransientError, match="GET /version"):
                await kube.get("/version")

    asyncio.run(run())


def test_reads_need_no_leadership_and_writes_do() -> None:
    def forbid() -> None:
        raise NotLeaderError("over")

    async def use(configuration: client.Configuration) -> None:
        async with KubeClient(configuration, may_write=forbid) as kube:
            assert await kube.get("/api/v1/nodes") == {"message": "fine"}
            for write in (
                kube.post("/api/v1/nodes/x", {}),
                kube.put("/api/v1/nodes/x", {}),
                kube.apply("/api/v1/nodes/x", "m", {}),
                kube.json_patch("/api/v1/nodes/x", []),
                kube.merge_patch("/api/v1/nodes/x", {}),
            ):
                with pytest.raises(NotLeaderError):
                    await write

    assert asyncio.run(with_server(200, "fine", use)) == [("GET", "/api/v1/nodes")]


@pytest.mark.parametrize("warm", [True, False])
def test_leadership_that_ends_while_a_connection_is_awaited_sends_nothing(*, warm: bool) -> None:
    asked: list[None] = []

    def may_write() -> None:
        asked.append(None)
        if len(asked) == 2:
            raise NotLeaderError("over since")

    async def use(configuration: client.Configuration) -> None:
        async with KubeClient(configuration, may_write=may_write) as kube:
            if warm:
                await kube.get("/warm")
            with pytest.raises(NotLeaderError):
                await kube.put("/api/v1/nodes/x", {})

    assert asyncio.run(with_server(200, "fine", use)) == ([("GET", "/warm")] if warm else [])
