"""The work queue: once in it, once in hand, back with backoff."""

import asyncio
import random

import pytest

from numavm_operator.workqueue import FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, WorkQueue


def queue() -> WorkQueue[str]:
    return WorkQueue(random.Random(1))  # noqa: S311 - spreads retries, no secret


def test_a_key_waits_at_most_once_and_in_order() -> None:
    async def run() -> list[str]:
        keys = queue()
        for key in ("a", "b", "a", "c", "b"):
            keys.add(key)
        return [await keys.take() for _ in range(len(keys))]

    assert asyncio.run(run()) == ["a", "b", "c"]


def test_a_key_in_hand_comes_back_only_when_it_is_given_back() -> None:
    async def run() -> tuple[int, int, int]:
        keys = queue()
        keys.add("a")
        await keys.take()
        keys.add("a")
        keys.add("a")
        held = len(keys)
        keys.done("a")
        back = len(keys)
        await keys.take()
        keys.done("a")
        return held, back, len(keys)

    assert asyncio.run(run()) == (0, 1, 0)


def test_a_worker_waits_for_a_key() -> None:
    async def run() -> str:
        keys = queue()
        taking = asyncio.create_task(keys.take())
        await asyncio.sleep(0)
        assert not taking.done()
        keys.add("a")
        return await taking

    assert asyncio.run(run()) == "a"


def test_backoff_doubles_with_jitter_up_to_a_limit_and_success_ends_it() -> None:
    async def run() -> list[float]:
        keys = queue()
        waits = []
        for _ in range(12):
            keys.add("a")
            await keys.take()
            waits.append(keys.failed("a"))
        keys.add("a")
        await keys.take()
        keys.done("a")
        keys.add("a")
        await keys.take()
        waits.append(keys.failed("a"))
        keys.close()
        return waits

    waits = asyncio.run(run())
    for number, seconds in enumerate(waits[:-1]):
        longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2**number)
        assert longest / 2 <= seconds <= longest
    assert waits[-1] <= FIRST_BACKOFF_SECONDS


@pytest.mark.parametrize(("wishes", "due"), [((30.0, 60.0), 30.0), ((60.0, 30.0), 30.0)])
def test_of_several_times_to_come_back_the_soonest_counts(
    wishes: tuple[float, ...], due: float
) -> None:
    async def run() -> float:
        keys = queue()
        loop = asyncio.get_running_loop()
        now = loop.time()
        for seconds in wishes:
            keys.add_after("a", seconds)
        (timer,) = keys._timers.values()
        keys.close()
        return timer.when() - now

    assert asyncio.run(run()) == pytest.approx(due, abs=1)


def test_a_time_that_has_passed_is_now() -> None:
    async def run() -> int:
        keys = queue()
        keys.add_after("a", -1)
        return len(keys)

    assert asyncio.run(run()) == 1
