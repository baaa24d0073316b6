"""What a full collection leaves is not looked at again for a while; how much is frozen is Python's own word."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from numavm_operator.collector import survivors_frozen


class _Ring:
    """Garbage that only the cyclic collector frees, once nobody refers to it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _nothing_frozen() -> Iterator[None]:
    assert gc.get_freeze_count() == 0
    yield
    assert gc.get_freeze_count() == 0


def test_what_a_full_collection_leaves_is_frozen_and_no_more_afterwards() -> None:
    with survivors_frozen():
        frozen = gc.get_freeze_count()
        assert frozen > 1000

        kept = [_Ring() for _ in range(500)]
        gc.collect(1)
        assert gc.get_freeze_count() <= frozen
        gc.collect()

        assert gc.get_freeze_count() >= frozen + len(kept)


def test_garbage_is_found_whether_it_came_after_the_last_collection_or_was_frozen_before() -> None:
    with survivors_frozen(look_again=3):
        gc.collect()
        young = weakref.ref(_Ring())
        old = _Ring()
        frozen = weakref.ref(old)
        gc.collect()
        assert young() is None

        del old
        gc.collect()  # the third: what is frozen stays once more
        assert frozen() is not None
        gc.collect()

        assert frozen() is None
