"""The cache: what is older than what is known changes nothing.

A list replaces all but what came after it.
"""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from numavm_operator.cache import Store


@dataclass(frozen=True)
class Item:
    """Something with a version."""

    resource_version: int


def store() -> tuple[Store[str, Item], list[tuple[str, int | None, int | None]]]:
    seen: list[tuple[str, int | None, int | None]] = []

    def changed(key: str, old: Item | None, new: Item | None) -> None:
        seen.append((key, old and old.resource_version, new and new.resource_version))

    return Store(changed), seen


def test_an_older_object_or_the_same_is_no_news() -> None:
    items, seen = store()

    assert items.put("a", Item(5))
    assert not items.put("a", Item(5))
    assert not items.put("a", Item(4))
    assert items.put("a", Item(6))

    assert seen == [("a", None, 5), ("a", 5, 6)]


def test_a_deletion_of_a_former_object_leaves_the_new_one() -> None:
    items, _ = store()
    items.put("a", Item(9))

    assert not items.remove("a", 8)
    assert items.get("a") == Item(9)
    assert items.remove("a", 10)
    assert items.get("a") is None


def test_a_list_heals_a_missed_deletion_and_keeps_what_came_after_it() -> None:
    items, _ = store()
    items.put("vanished", Item(3))
    items.put("kept", Item(4))
    items.put("newer-than-the-list", Item(12))

    items.replace({"kept": Item(4), "unknown": Item(2)}, 10)

    assert set(items.keys()) == {"kept", "unknown", "newer-than-the-list"}


def test_a_list_that_began_before_a_deletion_does_not_bring_the_object_back() -> None:
    items, _ = store()
    items.put("a", Item(3))
    items.remove("a", 7)

    items.replace({"a": Item(3)}, 5)

    assert items.get("a") is None
    items.put("a", Item(8))
    assert items.get("a") == Item(8)


@given(st.permutations(range(1, 8)))
def test_in_whatever_order_objects_arrive_the_newest_stays(versions: list[int]) -> None:
    items, seen = store()
    for version in versions:
        items.put("a", Item(version))

    assert items.get("a") == Item(7)
    assert [new for _, _, new in seen] == sorted({new for _, _, new in seen if new})
