"""Which hosts count as alive."""

from numavm_api.numahost import LEASE_SECONDS, NumaHostSpec, NumaHostStatus
from numavm_operator.hosts import HostWatch
from numavm_operator.objects import Host, HostLease
from numavm_operator.reconcile.world import Reach
from support.hands import Hands


def host(version: int = 5) -> Host:
    return Host("a", version, NumaHostSpec(), NumaHostStatus())


def lease(beat: str, host_version: int | None = 5) -> HostLease:
    return HostLease("numavm-host-a", 1, beat, host_version)


def watch() -> tuple[HostWatch, Hands]:
    clock = Hands()
    return HostWatch(clock), clock


def test_a_lease_that_was_found_is_not_yet_one_that_was_seen_to_change() -> None:
    hosts, clock = watch()
    hosts.saw(lease("1"))

    assert hosts.reach(host(), "a") is Reach.UNDETERMINED
    assert not hosts.confirmed(host())

    clock.at += LEASE_SECONDS
    assert hosts.reach(host(), "a") is Reach.UNREACHABLE


def test_a_change_counts_for_the_leases_length_by_our_own_clock() -> None:
    hosts, clock = watch()
    hosts.saw(lease("1"))
    hosts.saw(lease("2"))

    clock.at += LEASE_SECONDS - 0.1
    assert hosts.reach(host(), "a") is Reach.REACHABLE
    assert hosts.confirmed(host())
    clock.at += 0.2
    assert hosts.reach(host(), "a") is Reach.UNREACHABLE
    assert not hosts.confirmed(host())


def test_a_report_older_than_what_the_agent_found_true_confirms_nothing() -> None:
    hosts, _ = watch()
    hosts.saw(lease("1"))
    hosts.saw(lease("2", host_version=6))

    assert not hosts.confirmed(host(version=5))
    assert hosts.confirmed(host(version=6))
    assert hosts.confirmed(host(version=7))


def test_a_lease_without_the_agents_word_confirms_nothing() -> None:
    hosts, _ = watch()
    hosts.saw(lease("1"))
    hosts.saw(lease("2", host_version=None))

    assert not hosts.confirmed(host())


def test_a_host_says_itself_how_long_its_lease_counts() -> None:
    hosts, clock = watch()
    hosts.saw(HostLease("numavm-host-a", 1, "1", 5, seconds=3))
    hosts.saw(HostLease("numavm-host-a", 2, "2", 5, seconds=3))

    clock.at += 2.9
    assert hosts.reach(host(), "a") is Reach.REACHABLE
    clock.at += 0.2
    assert hosts.reach(host(), "a") is Reach.UNREACHABLE


def test_who_begins_to_lead_begins_to_watch() -> None:
    hosts, clock = watch()
    hosts.saw(lease("1"))
    hosts.saw(lease("2"))
    clock.at += 2 * LEASE_SECONDS

    hosts.began_to_lead()

    assert hosts.reach(host(), "a") is Reach.UNDETERMINED
    assert not hosts.settled
    clock.at += LEASE_SECONDS
    assert hosts.settled


def test_a_host_without_a_numahost_is_unreachable() -> None:
    hosts, clock = watch()
    hosts.saw(lease("1"))
    hosts.saw(lease("2"))
    clock.at += LEASE_SECONDS

    assert hosts.reach(None, "a") is Reach.UNREACHABLE
