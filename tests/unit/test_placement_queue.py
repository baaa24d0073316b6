"""Whose turn it is, and for whom a host is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from numavm_operator.placement import Patience, Queue, host_to_keep, turn_of
from support.placement_examples import fleet, host, placed, refused, request, vm

PATIENCE = Patience(before_seconds=30, hold_seconds=100, rest_seconds=50)
LARGE = turn_of(0, "2026-01-01T00:00:00Z", "default/large")
SMALL = turn_of(0, "2026-01-02T00:00:00Z", "default/small")
URGENT = turn_of(1000, "2026-01-03T00:00:00Z", "default/urgent")


def on_host_a(_uid: str) -> str | None:
    return "host-a"


def waiting(since: float = 0.0) -> Queue:
    return Queue().with_refusal("small", SMALL, since).with_refusal("large", LARGE, since)


def test_higher_priority_goes_first_then_the_older() -> None:
    assert sorted([SMALL, LARGE, URGENT]) == [URGENT, LARGE, SMALL]


def test_a_host_is_kept_for_the_first_in_turn_once_it_has_waited() -> None:
    queue = waiting()

    assert queue.reviewed(29, PATIENCE, on_host_a).kept is None
    kept = queue.reviewed(30, PATIENCE, on_host_a)
    assert kept.closed_to("small", SMALL) == {"host-a": "default/large"}
    assert kept.closed_to("large", LARGE) == {}
    assert kept.closed_to("urgent", URGENT) == {}


def test_a_second_refusal_does_not_begin_the_wait_anew() -> None:
    queue = waiting().with_refusal("large", LARGE, 25)

    assert queue.reviewed(30, PATIENCE, on_host_a).kept is not None


def test_what_is_kept_ends_with_the_time_limit_and_others_have_their_chance() -> None:
    kept = waiting().without("small").reviewed(30, PATIENCE, on_host_a)

    assert kept.reviewed(129, PATIENCE, on_host_a).kept == kept.kept
    over = kept.reviewed(130, PATIENCE, on_host_a)
    assert over.closed_to("small", SMALL) == {}
    assert over.next_change(130, PATIENCE) == 50
    assert over.reviewed(179, PATIENCE, on_host_a).kept is None
    assert over.reviewed(180, PATIENCE, on_host_a).kept is not None


def test_the_next_in_turn_may_have_a_host_while_the_first_rests() -> None:
    over = waiting().reviewed(30, PATIENCE, on_host_a).reviewed(130, PATIENCE, on_host_a)

    assert over.kept is not None
    assert over.kept.uid == "small"


def test_nothing_is_kept_for_a_vm_that_is_placed_or_that_no_host_could_take() -> None:
    kept = waiting().reviewed(30, PATIENCE, on_host_a)

    assert kept.without("large").kept is None
    assert kept.without("large").refused.keys() == {"small"}
    assert waiting().reviewed(30, PATIENCE, lambda _: None).kept is None


def test_a_vm_that_no_host_could_take_does_not_hide_the_next_and_is_not_asked_about_again() -> None:
    asked: list[str] = []

    def for_the_small_one(uid: str) -> str | None:
        asked.append(uid)
        return "host-a" if uid == "small" else None

    once = waiting().reviewed(30, PATIENCE, for_the_small_one)
    twice = once.reviewed(31, PATIENCE, for_the_small_one)

    assert (once.kept, asked) == (None, ["large", "small"])
    assert twice.kept is not None
    assert twice.kept.uid == "small"


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 60)), max_size=30),
    st.integers(1, 50),
)
def test_no_vm_has_a_host_kept_longer_than_the_limit_without_a_rest(
    events: list[tuple[str, int]], hold: int
) -> None:
    patience = Patience(before_seconds=5, hold_seconds=hold, rest_seconds=hold)
    queue, now, last_end = Queue(), 0.0, {}
    for uid, step in events:
        before = queue.kept
        now += step
        queue = queue.with_refusal(uid, turn_of(0, uid, uid), now)
        queue = queue.reviewed(now, patience, on_host_a)
        if before is not None and queue.kept != before:
            assert now >= before.until
            last_end[before.uid] = now
        if queue.kept is not None:
            assert now < queue.kept.until <= now + hold
            if queue.kept != before:
                assert now >= last_end.get(queue.kept.uid, -hold) + hold


def test_the_host_to_keep_is_the_emptiest_that_could_ever_take_the_vm() -> None:
    small = request(vm(cores=2, memory="64Mi"), uid="small")
    large = request(vm({"cpus": "0-5", "memory": "1Gi"}, cores=6), uid="large")
    where = fleet(
        *(host(name, cells=1, cores=7) for name in ("host-a", "host-b")), host("host-c", cores=5)
    )
    for at, name in enumerate(("host-a", "host-a", "host-b", "host-b", "host-b")):
        one = request(vm(cores=2, memory="64Mi"), uid=f"small-{at}", tied_to=name)
        where = where.with_claim(name, one.uid, placed(one, where).placement)

    refused(large, where)
    assert host_to_keep(large, where) == "host-a"
    assert host_to_keep(small, fleet(host("host-a", cells=1, cores=2))) is None


def test_a_kept_host_takes_no_other_vm() -> None:
    wanted = request(vm(cores=1, memory="64Mi"), kept={"host-a": "default/large"})

    assert placed(wanted, fleet(host("host-a"), host("host-b"))).node_name == "host-b"
    assert refused(wanted, fleet(host("host-a"))).counts[0].cause == "Kept"
