"""Full lists, page by page, so that of ten thousand objects only a page is held as JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import structlog

from numavm_operator.errors import GoneError
from numavm_operator.kube.client import Json, KubeClient

PAGE: Final = 200
"""Objects of a page: as many as are understood without holding up the event loop for long."""
_ATTEMPTS: Final = 5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects of a list."""

    items: list[Json]
    resource_version: int
    """Of the whole list: the moment at which it is true."""
    starts_over: bool
    """What pages before this one said is not part of this list."""


async def list_pages(client: KubeClient, path: str) -> AsyncIterator[Page]:
    """Yield everything below `path`, consistent at one resourceVersion.

    A list whose continue token has become too old is started over.

    Raises:
        GoneError: that happened again and again.
        NotFoundError: there is no such kind.
        TransientError: the API server cannot be reached.
    """
    for attempt in range(_ATTEMPTS):
        try:
            async for page in _pages(client, path):
                yield page
        except GoneError:
            if attempt == _ATTEMPTS - 1:
                raise
            log.info("list_started_over", path=path)
        else:
            return


async def list_all(client: KubeClient, path: str) -> list[Json]:
    """Return everything below `path` at once; errors as `list_pages`."""
    items: list[Json] = []
    async for page in list_pages(client, path):
        items = [*([] if page.starts_over else items), *page.items]
    return items


async def _pages(client: KubeClient, path: str) -> AsyncIterator[Page]:
    query = {"limit": str(PAGE)}
    while True:
        page = await client.page(path, query)
        items = [_without_managers(item) for item in page["items"]]
        version = int(page["metadata"]["resourceVersion"])
        yield Page(items, version, starts_over="continue" not in query)
        token = page["metadata"].get("continue")
        if not token:
            return
        query = {"limit": str(PAGE), "continue": token}


def _without_managers(item: Json) -> Json:
    """Return an object without `managedFields`: nobody reads them, and of many objects they are the most."""
    item["metadata"].pop("managedFields", None)
    return item
