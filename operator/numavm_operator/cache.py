"""The operator's own picture of the API server: fed by watch events, replaced by full lists.

Owns what is believed to exist. kopf's own indices are not used: after a watch that broke off (410)
it sends no deletions for what vanished in the gap, and such an object would hold its CPUs for ever.
resourceVersions are compared as numbers, which the API promises since Kubernetes 1.35 and etcd has
always meant; an API server restored from a backup, where they run backwards, is dealt with by
starting over (see `leadership`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar


class Versioned(Protocol):
    """Something that has a resourceVersion."""

    @property
    def resource_version(self) -> int:
        """Its resourceVersion."""
        ...


Key = TypeVar("Key")
Item = TypeVar("Item", bound=Versioned)


class Store(Generic[Key, Item]):
    """Objects of one kind.

    Every change is told to `changed(key, old, new)` before the call returns.
    """

    def __init__(self, changed: Callable[[Key, Item | None, Item | None], None]) -> None:
        self._items: dict[Key, Item] = {}
        self._removed: dict[Key, int] = {}
        self._changed = changed

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(list(self._items.values()))

    def get(self, key: Key) -> Item | None:
        """Return the object, or None where there is none."""
        return self._items.get(key)

    def keys(self) -> Iterable[Key]:
        """Return the names of everything here."""
        return list(self._items)

    def put(self, key: Key, item: Item) -> bool:
        """Take in an object as it was seen; an older one than is known, or the same, is left aside.

        Tell whether it was news.
        """
        old = self._items.get(key)
        known = old.resource_version if old is not None else self._removed.get(key, -1)
        if known >= item.resource_version:
            return False
        self._items[key] = item
        self._changed(key, old, item)
        return True

    def remove(self, key: Key, resource_version: int) -> bool:
        """Take in a deletion.

        One that is older than what is known, of a former object of this name, is left aside.
        """
        old = self._items.get(key)
        if old is None or old.resource_version > resource_version:
            return False
        del self._items[key]
        self._removed[key] = resource_version  # a list that began before must not bring it back
        self._changed(key, old, None)
        return True

    def replace(self, listed: Mapping[Key, Item], list_version: int) -> bool:
        """Take in a full list made at `list_version`; what was seen later stays.

        Tell whether it had anything new.
        """
        news = [key for key, item in listed.items() if self.put(key, item)]
        self.keep_only(listed.keys(), list_version)
        return bool(news)

    def keep_only(self, keys: Collection[object], list_version: int) -> None:
        """Take in that a full list made at `list_version` had these and no others; what was seen later stays."""
        for key in self.keys():
            if key not in keys:
                self.remove(key, list_version)
        self._removed = {key: at for key, at in self._removed.items() if at > list_version}
