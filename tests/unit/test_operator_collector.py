"""When what is kept is taken out of the garbage collector's sight; what it then holds is Python's own word."""

import gc
from collections.abc import Iterator

import pytest

from numavm_operator.collector import Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    yield Collector()
    gc.unfreeze()


def test_it_is_frozen_as_it_grows_and_not_for_each_newcomer(collector: Collector) -> None:
    frozen = [kept for kept in range(0, 5001, 50) if collector.freeze_if_grown(kept)]

    assert frozen[0] == 200
    assert len(frozen) < 12
    assert gc.get_freeze_count() > 0


def test_what_goes_away_is_looked_at_again(collector: Collector) -> None:
    assert collector.freeze_if_grown(10_000)
    assert not collector.freeze_if_grown(9_000)
    assert collector.freeze_if_grown(1_000)
