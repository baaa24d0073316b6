"""Full lists, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from numavm_operator.errors import GoneError
from numavm_operator.kube.client import Json, KubeClient

PAGE: Final = 500
_ATTEMPTS: Final = 5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of a kind, and when that was."""

    items: list[Json]
    resource_version: int


async def list_all(client: KubeClient, path: str) -> Listed:
    """Return everything below `path`, consistent at one resourceVersion.

    A list whose continue token has become too old is started over.

    Raises:
        GoneError: that happened again and again.
        NotFoundError: there is no such kind.
        TransientError: the API server cannot be reached.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return await _pages(client, path)
        except GoneError:
            if attempt == _ATTEMPTS - 1:
                raise
            log.info("list_started_over", path=path)
    raise AssertionError("the loop returns or raises")


async def _pages(client: KubeClient, path: str) -> Listed:
    items: list[Json] = []
    query = {"limit": str(PAGE)}
    while True:
        page = await client.get(path, query)
        items.extend(map(_without_managers, page["items"]))
        token = page["metadata"].get("continue")
        if not token:
            return Listed(items, int(page["metadata"]["resourceVersion"]))
        query = {"limit": str(PAGE), "continue": token}


def _without_managers(item: Json) -> Json:
    """Return an object without `managedFields`: nobody reads them, and of many objects they are the most."""
    item["metadata"].pop("managedFields", None)
    return item
