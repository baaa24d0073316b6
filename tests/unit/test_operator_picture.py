"""The operator's picture: when placement may begin, and who is looked at when something changes."""

from typing import Any

import pytest

from numavm_api.numahost import LEASE_HOST_VERSION_ANNOTATION, LEASE_SECONDS
from numavm_operator.objects import VmKey
from numavm_operator.picture import Kind, Picture
from numavm_operator.reconcile.world import Outcome, Reach, Waiting
from support.hands import Hands
from support.operator_worlds import UID, claim

Json = dict[str, Any]


class Watched:
    """A picture, its clock, and what it asked for."""

    def __init__(self) -> None:
        self.clock = Hands()
        self.looked_at: list[VmKey] = []
        self.woken = 0
        self.reported: list[str] = []
        self.picture = Picture(
            self.clock,
            look_at=self.looked_at.append,
            wake_scheduler=self._wake,
            host_reported=self.reported.append,
        )
        self.version = 0

    def _wake(self) -> None:
        self.woken += 1

    def see(self, kind: Kind, raw: Json, *, deleted: bool = False) -> None:
        """Have the picture see an object, each newer than the one before."""
        self.version += 1
        raw["metadata"]["resourceVersion"] = str(self.version)
        self.picture.saw(kind, raw, deleted=deleted)

    def host(self, name: str = "a", *, claims: list[Json] | None = None, **spec: Any) -> None:
        """Show a NumaHost."""
        raw = {"metadata": {"name": name}, "spec": spec, "status": {"claims": claims or []}}
        self.see(Kind.HOST, raw)
        self.see(Kind.NODE, {"metadata": {"name": name}})

    def beat(self, name: str = "a", *, found_true: int = 0) -> None:
        """Show its Lease, renewed."""
        annotations = {LEASE_HOST_VERSION_ANNOTATION: str(found_true)}
        metadata = {"name": f"numavm-host-{name}", "annotations": annotations}
        lease = {"holderIdentity": name, "renewTime": f"{self.version}"}
        self.see(Kind.LEASE, {"metadata": metadata, "spec": lease})

    def vm(self, uid: str = UID, *, deleted: bool = False, **status: Any) -> None:
        """Show a NumaVM."""
        metadata = {"namespace": "ns", "name": "vm", "uid": uid, "generation": 1}
        spec = {"domain": {"memory": {"guest": "1Gi"}}}
        self.see(Kind.VM, {"metadata": metadata, "spec": spec, "status": status}, deleted=deleted)


@pytest.fixture
def watched() -> Watched:
    made = Watched()
    made.picture.complete = True
    return made


def held(uid: str = UID) -> Json:
    return {"uid": uid, "namespace": "ns", "name": "vm", "placement": claim().to_api()}


KEY = VmKey("ns", "vm")


def test_nothing_is_placed_before_everything_was_listed(watched: Watched) -> None:
    watched.picture.complete = False

    assert not watched.picture.open_for_placement
    watched.picture.complete = True
    assert watched.picture.open_for_placement


def test_placement_waits_for_each_host_to_confirm_or_to_be_found_dead(watched: Watched) -> None:
    for name in ("a", "b"):
        watched.host(name)
        watched.beat(name)
    watched.beat("a")

    assert not watched.picture.open_for_placement
    watched.beat("b")
    assert watched.picture.open_for_placement


def test_placement_does_not_wait_for_the_dead_for_ever_nor_for_the_fenced(watched: Watched) -> None:
    watched.host("a")
    assert not watched.picture.open_for_placement
    watched.clock.at += LEASE_SECONDS
    assert watched.picture.open_for_placement

    fresh = Watched()
    fresh.picture.complete = True
    fresh.host("a", fenced=True)
    assert fresh.picture.open_for_placement


def test_who_started_over_waits_even_for_hosts_that_no_object_names(watched: Watched) -> None:
    watched.picture.patient = True

    assert not watched.picture.open_for_placement
    watched.clock.at += LEASE_SECONDS
    assert watched.picture.open_for_placement


def test_a_report_older_than_its_agent_found_true_does_not_open_placement(watched: Watched) -> None:
    watched.host()
    watched.beat()
    watched.beat(found_true=10**6)

    assert not watched.picture.open_for_placement


def test_a_vm_is_looked_at_when_a_hosts_claim_on_it_comes_or_goes(watched: Watched) -> None:
    watched.vm()
    watched.host()
    watched.looked_at.clear()

    watched.host()
    assert watched.looked_at == []
    watched.host(claims=[held()])
    assert watched.looked_at == [KEY]
    watched.host(claims=[held()])
    assert watched.looked_at == [KEY]
    watched.host()
    assert watched.looked_at == [KEY, KEY]


def test_a_hosts_vms_are_looked_at_when_its_lease_runs_out(watched: Watched) -> None:
    watched.vm(nodeName="a", placement=claim().to_api())
    watched.host()
    watched.beat()
    watched.beat()
    watched.looked_at.clear()

    watched.clock.at += LEASE_SECONDS - 1
    watched.picture.judge_hosts()
    assert watched.looked_at == []

    watched.clock.at += 1
    watched.picture.judge_hosts()
    watched.picture.judge_hosts()
    assert watched.looked_at == [KEY]
    world = watched.picture.world(KEY)
    assert world is not None
    assert world.host is not None
    assert world.host.reach is Reach.UNREACHABLE


def test_only_a_confirmed_host_with_a_node_is_offered_to_placement(watched: Watched) -> None:
    watched.host()
    watched.beat()
    assert not watched.picture.ledger.fleet.hosts["a"].reachable
    watched.beat()
    assert watched.picture.ledger.fleet.hosts["a"].reachable

    watched.see(Kind.NODE, {"metadata": {"name": "a"}}, deleted=True)
    watched.picture.judge_hosts()

    assert not watched.picture.ledger.fleet.hosts["a"].reachable


def test_the_schedulers_word_is_on_one_uid_and_goes_with_it(watched: Watched) -> None:
    watched.vm()
    vm = watched.picture.vms.get(KEY)
    assert vm is not None
    word = Waiting(Outcome.UNSCHEDULABLE, "0/1 hosts fit")

    assert watched.picture.set_waiting(vm, word)
    assert not watched.picture.set_waiting(vm, word)
    assert watched.picture.waiting(vm) == word

    watched.vm("another")
    again = watched.picture.vms.get(KEY)
    assert again is not None
    assert watched.picture.waiting(again) is None


def test_every_change_of_a_report_is_told_to_the_scheduler(watched: Watched) -> None:
    watched.host()
    watched.host(unschedulable=True)

    assert watched.reported == ["a", "a"]
