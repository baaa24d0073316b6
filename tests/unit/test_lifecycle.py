"""When a VM is wanted to run: every run strategy against every way a domain can end."""

import itertools

import pytest

from numavm_api.conditions import ClaimRefusalReason
from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.lifecycle import Wanted, how_it_ended, is_released, refusal_of, wants_to_run
from numavm_api.numavm import Domain, NumaVMSpec, RunStrategy
from numavm_api.placement import CpuPlacement, PlacedCell, Placement
from numavm_api.quantity import Bytes
from numavm_api.vm_status import DomainRefusal, DomainState, DomainStatus, ShutoffReason


def spec(strategy: RunStrategy, token: str | None = None) -> NumaVMSpec:
    return NumaVMSpec(run_strategy=strategy, restart_token=token, domain=Domain())


def ended(reason: ShutoffReason | None, token: str | None = None) -> DomainStatus:
    return DomainStatus(
        node_name="host-a", state=DomainState.SHUTOFF, shutoff_reason=reason, restart_token=token
    )


def claim(identity: str = "c1") -> Placement:
    cell = PlacedCell(
        id=0,
        host_cells=CpuSet.of(0),
        mode=BindingMode.STRICT,
        memory=Bytes(1 << 30),
        vcpus=CpuSet.of(0),
        pcpus=[CpuSet.of(1)],
    )
    return Placement(
        id=identity,
        epoch=1,
        request_hash="h",
        cpu_placement=CpuPlacement.DEDICATED,
        summary="0->0",
        cells=[cell],
        dedicated_cpus=CpuSet.of(1),
        overhead=Bytes(0),
        overhead_cell=0,
    )


BY_ITSELF = set(ShutoffReason) - {ShutoffReason.STOPPED, ShutoffReason.START_FAILED}

FINISHES = {(RunStrategy.RERUN_ON_FAILURE, ShutoffReason.GUEST_SHUTDOWN)} | {
    (RunStrategy.ONCE, reason) for reason in BY_ITSELF
}


@pytest.mark.parametrize(
    ("strategy", "reason"), list(itertools.product(RunStrategy, [None, *ShutoffReason]))
)
def test_an_ended_domain_is_started_again_unless_its_strategy_is_finished_with_it(
    strategy: RunStrategy, reason: ShutoffReason | None
) -> None:
    if strategy is RunStrategy.HALTED:
        expected = Wanted.HALTED
    elif (strategy, reason) in FINISHES:
        expected = Wanted.FINISHED
    else:
        expected = Wanted.RUNNING

    assert expected is wants_to_run(spec(strategy), ended(reason))


@pytest.mark.parametrize(("strategy", "reason"), sorted(FINISHES))
def test_a_new_restart_token_starts_a_finished_vm(
    strategy: RunStrategy, reason: ShutoffReason
) -> None:
    assert Wanted.RUNNING is wants_to_run(spec(strategy, "2"), ended(reason, "1"))
    assert Wanted.FINISHED is wants_to_run(spec(strategy, "2"), ended(reason, "2"))


@pytest.mark.parametrize("strategy", RunStrategy)
def test_a_vm_under_deletion_is_never_wanted(strategy: RunStrategy) -> None:
    assert Wanted.DELETED is wants_to_run(spec(strategy), None, deleting=True)


@pytest.mark.parametrize("strategy", [s for s in RunStrategy if s is not RunStrategy.HALTED])
@pytest.mark.parametrize(
    "state", [DomainState.RUNNING, DomainState.PAUSED, DomainState.SHUTDOWN, None]
)
def test_a_domain_that_is_there_or_never_was_is_wanted(
    strategy: RunStrategy, state: DomainState | None
) -> None:
    domain = DomainStatus(node_name="host-a", state=state) if state else None

    assert Wanted.RUNNING is wants_to_run(spec(strategy), domain)


def test_a_crashed_domain_that_libvirt_still_keeps_has_ended() -> None:
    domain = DomainStatus(node_name="host-a", state=DomainState.CRASHED)

    assert ShutoffReason.CRASHED is how_it_ended(domain)
    assert Wanted.FINISHED is wants_to_run(spec(RunStrategy.ONCE), domain)
    assert Wanted.RUNNING is wants_to_run(spec(RunStrategy.RERUN_ON_FAILURE), domain)


def test_a_refused_claim_is_no_end() -> None:
    refused = DomainStatus(
        node_name="host-a", state=DomainState.SHUTOFF, refused=refusal("c1"), released="c1"
    )

    assert how_it_ended(refused) is None
    assert Wanted.RUNNING is wants_to_run(spec(RunStrategy.ONCE), refused)


def refusal(identity: str) -> DomainRefusal:
    return DomainRefusal(
        placement_id=identity,
        reason=ClaimRefusalReason.CPU_TAKEN,
        message="CPU 1 is held by others",
        time="2026-01-01T00:00:00Z",
    )


@pytest.mark.parametrize(
    ("released", "node", "expected"),
    [("c1", "host-a", True), ("c0", "host-a", False), (None, "host-a", False), ("c1", "b", False)],
)
def test_only_the_claims_own_host_can_release_it(
    released: str | None, node: str, *, expected: bool
) -> None:
    domain = DomainStatus(node_name=node, state=DomainState.SHUTOFF, released=released)

    assert expected is is_released(claim(), "host-a", domain)


def test_only_a_refusal_of_exactly_this_claim_by_its_host_counts() -> None:
    domain = DomainStatus(node_name="host-a", state=DomainState.SHUTOFF, refused=refusal("c1"))

    assert refusal("c1") == refusal_of(claim("c1"), "host-a", domain)
    assert refusal_of(claim("c2"), "host-a", domain) is None
    assert refusal_of(claim("c1"), "host-b", domain) is None
    assert refusal_of(claim("c1"), "host-a", None) is None
