"""One request to the API server, as JSON in and out, with every failure as one of NumaVM's errors.

Owns the way every request takes, so that what must hold for all of them stands in one place: a time
limit, the error tree, and for writes the guard that says whether this operator may still write.
Built on kubernetes' generated client for its authentication and TLS; its typed models are left
alone, since server-side apply must send exactly the fields it owns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from kubernetes.aio import client

from numavm_api.errors import ConflictError, NumaVMError, RejectedError, TransientError
from numavm_operator.errors import GoneError, NotFoundError

REQUEST_SECONDS: Final = 10.0
"""Time limit of one request.

Short against the lease, so that no write of a former leader is still on its way.
"""
LIST_SECONDS: Final = 60.0
"""Time limit of a page of a list.

It is no write, and starting over at a busy API server only makes it busier.
"""

_MEANING: Final[Mapping[int, type[NumaVMError]]] = {
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.CONFLICT: ConflictError,
    HTTPStatus.GONE: GoneError,
    HTTPStatus.UNAUTHORIZED: TransientError,  # a token is renewed in place
    HTTPStatus.REQUEST_TIMEOUT: TransientError,
    HTTPStatus.TOO_MANY_REQUESTS: TransientError,
}

_writing: ContextVar[bool] = ContextVar("writing", default=False)
"""Whether the request that the current task sends is a write."""

Json = dict[str, Any]


class Body(StrEnum):
    """Content types of what is sent."""

    JSON = "application/json"
    APPLY = "application/apply-patch+yaml"
    JSON_PATCH = "application/json-patch+json"
    MERGE_PATCH = "application/merge-patch+json"


def always_allowed() -> None:
    """Guard that lets every write pass."""


@dataclass(slots=True)
class KubeClient:
    """Talks to one API server. Use as an async context manager, within one event loop."""

    configuration: client.Configuration
    may_write: Callable[[], None] = always_allowed
    """Called before each write, after everything that waits.

    Raises where this operator may not write any more.
    """
    wrote: Callable[[str], None] = lambda _kind: None
    """Told of each write that was sent, by the resource's plural name."""
    _api: client.ApiClient | None = None

    async def __aenter__(self) -> Self:
        # Getting a connection may take long; this is the last moment before the request is sent.
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(self._connected)
        trace.on_connection_create_end.append(self._connected)
        self.configuration.trace_configs = [trace]
        self._api = client.ApiClient(configuration=self.configuration)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._api is not None:
            await self._api.close()  # type: ignore[no-untyped-call]  # generated without types

    async def _connected(self, *_: object) -> None:
        if _writing.get():
            self.may_write()

    async def page(self, path: str, query: Mapping[str, str]) -> Json:
        """Return a page of a list, which may take its time; errors as `get`."""
        return await self._send("GET", path, query, None, Body.JSON, seconds=LIST_SECONDS)

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        """Return what is at `path`.

        Raises:
            NotFoundError: nothing is there.
            GoneError: a continue token is too old.
            TransientError: the API server cannot be reached, or is overloaded.
            RejectedError: the request is not permitted.
        """
        return await self._send("GET", path, query or {}, None, Body.JSON)

    async def post(self, path: str, body: Json) -> Json:
        """Create an object; errors as `get`, and ConflictError where it is there already."""
        return await self._send("POST", path, {}, body, Body.JSON)

    async def put(self, path: str, body: Json) -> Json:
        """Replace an object.

        Errors as `get`, and ConflictError where its resourceVersion has moved on.
        """
        return await self._send("PUT", path, {}, body, Body.JSON)

    async def apply(self, path: str, field_manager: str, body: Json) -> Json:
        """Apply the fields in `body` by server-side apply, as their owner; errors as `put`."""
        query = {"fieldManager": field_manager, "force": "true"}
        return await self._send("PATCH", path, query, body, Body.APPLY)

    async def json_patch(self, path: str, operations: list[Json]) -> Json:
        """Apply a JSON patch; errors as `put`, ConflictError also where one of its tests fails."""
        return await self._send("PATCH", path, {}, operations, Body.JSON_PATCH)

    async def merge_patch(self, path: str, body: Json) -> Json:
        """Apply a JSON merge patch; errors as `put`."""
        return await self._send("PATCH", path, {}, body, Body.MERGE_PATCH)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Json | list[Json] | None,
        kind: Body,
        *,
        seconds: float = REQUEST_SECONDS,
    ) -> Json:
        if self._api is None:
            raise TransientError(f"{method} {path}: the client is not open")
        headers = {"Accept": "application/json", "Content-Type": str(kind)}
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            _writing.set(method != "GET")
            if method != "GET":
                self.may_write()
                self.wrote(_plural(path))
            response = await self._api.call_api(
                *request, _request_timeout=aiohttp.ClientTimeout(total=seconds)
            )
            text: bytes = await response.read()  # type: ignore[no-untyped-call]  # generated without types
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = str(error) or type(error).__name__
            raise TransientError(f"{method} {path}: {problem}") from error
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise failure(method, path, response.status, _message(text), kind)
        document: Json = json.loads(text)
        return document


def failure(method: str, path: str, status: int, message: str, kind: Body) -> NumaVMError:
    """Return the error that an HTTP status means."""
    text = f"{method} {path}: {status}: {message}"
    if status == HTTPStatus.UNPROCESSABLE_ENTITY and kind is Body.JSON_PATCH:
        return ConflictError(text)  # how a failed `test` is answered
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return TransientError(text)
    return _MEANING.get(status, RejectedError)(text)


def _message(text: bytes) -> str:
    """Return the message of a metav1.Status, or the text itself."""
    try:
        document = json.loads(text)
    except ValueError:
        return text.decode(errors="replace")[:500]
    return str(document.get("message", "")) if isinstance(document, dict) else str(document)[:500]


def _plural(path: str) -> str:
    """Return the resource that a path is about, `numavms/status` for a status."""
    parts = [part for part in path.split("/") if part]
    namespaced = "namespaces" in parts
    before = parts.index("namespaces") + 2 if namespaced else 3 if parts[0] == "apis" else 2
    resource, *rest = parts[before:]
    return "/".join([resource, *rest[1:]])
