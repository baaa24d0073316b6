"""The ledger: what any source says is held is held, once, until no source says so."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from numavm_api.cpuset import CpuSet
from numavm_api.numahost import HeldClaim, NumaHostSpec, NumaHostStatus
from numavm_api.placement import Placement
from numavm_api.vm_status import DomainState, DomainStatus
from numavm_operator.ledger import Ledger
from numavm_operator.objects import Host, Vm
from support.operator_worlds import NODE, UID, WorldMaker, claim


class Woken:
    """Counts how often capacity appeared."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        """Count."""
        self.times += 1


def vm(placement: Placement | None = None, released: str | None = None) -> Vm:
    domain = None
    if released:
        domain = DomainStatus(node_name=NODE, state=DomainState.SHUTOFF, released=released)
    return WorldMaker(placement=placement, domain=domain).make().vm


def host(*placements: Placement, fenced: bool = False, highest_epoch: int = 0) -> Host:
    claims = [
        HeldClaim(uid=UID, namespace="ns", name="vm", placement=placement)
        for placement in placements
    ]
    status = NumaHostStatus(claims=claims, highest_epoch=highest_epoch)
    return Host(NODE, 1, NumaHostSpec(fenced=fenced), status)


def see(ledger: Ledger, seen: Host | None) -> None:
    ledger.host_changed(NODE, seen, node=None, reachable=True)


def held(ledger: Ledger) -> set[str]:
    return {one.id for one in ledger.fleet.claims(NODE).get(UID, ())}


def test_one_claim_from_three_sources_is_held_once_until_the_last_gives_it_up() -> None:
    ledger = Ledger(Woken())
    ledger.assume(UID, NODE, claim())
    ledger.vm_changed(None, vm(claim()))
    see(ledger, host(claim()))

    assert held(ledger) == {"c1"}
    ledger.forget(UID)
    assert held(ledger) == {"c1"}
    ledger.vm_changed(vm(claim()), vm())
    assert held(ledger) == {"c1"}
    see(ledger, host())
    assert held(ledger) == set()


def test_two_claims_of_one_vm_are_both_held() -> None:
    ledger = Ledger(Woken())
    ledger.vm_changed(None, vm(claim("c2", cpus=CpuSet.of(2))))
    see(ledger, host(claim("c1", cpus=CpuSet.of(1))))

    assert held(ledger) == {"c1", "c2"}
    assert [report.claim.placement.id for report in ledger.reports_of(UID)] == ["c1"]


def test_a_report_that_its_agent_has_taken_back_since_counts_for_nothing() -> None:
    woken = Woken()
    ledger = Ledger(woken)
    see(ledger, host(claim()))
    before = vm(claim())
    ledger.vm_changed(None, before)
    woken.times = 0

    ledger.vm_changed(before, vm(released="c1"))

    assert held(ledger) == set()
    assert ledger.reports_of(UID) == ()
    assert woken.times == 1


def test_what_was_released_counts_for_nothing_even_when_the_vm_has_gone() -> None:
    ledger = Ledger(Woken())
    see(ledger, host(claim()))
    ledger.vm_changed(None, vm(released="c1"))
    ledger.vm_changed(vm(released="c1"), None)

    assert held(ledger) == set()
    see(ledger, host(claim("c1", cpus=CpuSet.of(5))))
    assert held(ledger) == set()
    see(ledger, host())
    see(ledger, host(claim("c9")))
    assert held(ledger) == {"c9"}


def test_a_vm_that_vanished_leaves_what_its_host_still_reports() -> None:
    ledger = Ledger(Woken())
    ledger.vm_changed(None, vm(claim()))
    see(ledger, host(claim()))

    ledger.vm_changed(vm(claim()), None)

    assert held(ledger) == {"c1"}


def test_a_re_created_vm_does_not_keep_its_forerunners_claim() -> None:
    ledger = Ledger(Woken())
    ledger.vm_changed(None, vm(claim()))

    ledger.vm_changed(vm(claim()), replace(vm(), uid="another"))

    assert held(ledger) == set()


def test_a_fenced_host_holds_nothing_and_holds_again_when_it_is_back() -> None:
    ledger = Ledger(Woken())
    ledger.vm_changed(None, vm(claim("c1")))
    see(ledger, host(claim("c2")))
    assert held(ledger) == {"c1", "c2"}

    see(ledger, host(claim("c2"), fenced=True))
    assert held(ledger) == set()

    see(ledger, host(claim("c2")))
    assert held(ledger) == {"c1", "c2"}


def test_claims_on_a_host_that_is_gone_stay() -> None:
    ledger = Ledger(Woken())
    see(ledger, host())
    ledger.vm_changed(None, vm(claim()))

    see(ledger, None)

    assert held(ledger) == {"c1"}
    assert NODE not in ledger.fleet.hosts


def test_the_highest_epoch_is_that_of_any_claim_or_host() -> None:
    ledger = Ledger(Woken())
    assert ledger.highest_epoch == 0
    ledger.vm_changed(None, vm(claim(epoch=4)))
    assert ledger.highest_epoch == 4
    see(ledger, host(claim("c2", epoch=6), highest_epoch=5))
    assert ledger.highest_epoch == 6
    see(ledger, host(highest_epoch=9))
    assert ledger.highest_epoch == 9


_sources = st.tuples(
    st.sampled_from(["status", "report", "assume"]), st.sampled_from(["c1", "c2", None])
)


@given(st.lists(_sources, max_size=12))
def test_in_whatever_order_sources_speak_their_union_is_held(said: list[tuple[str, str]]) -> None:
    ledger = Ledger(Woken())
    now: dict[str, str | None] = {"status": None, "report": None, "assume": None}
    known = vm()
    ledger.vm_changed(None, known)
    for source, identity in said:
        placement = claim(identity) if identity else None
        now[source] = identity
        match source:
            case "status":
                changed = vm(placement)
                ledger.vm_changed(known, changed)
                known = changed
            case "report":
                see(ledger, host(*([placement] if placement else [])))
            case _:
                ledger.forget(UID)
                if placement:
                    ledger.assume(UID, NODE, placement)

        assert held(ledger) == {one for one in now.values() if one}
