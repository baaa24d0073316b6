"""What the operator says about a NumaVM."""

import itertools
from dataclasses import replace

import pytest

from numavm_api.conditions import (
    ClaimRefusalReason,
    Condition,
    ConditionStatus,
    ConditionType,
    PrintableStatus,
    Reason,
)
from numavm_api.numavm import Domain, NumaVMSpec, RunStrategy
from numavm_api.vm_status import DomainState, DomainStatus, Refusal, ShutoffReason
from numavm_operator.reconcile.report import report, stated
from numavm_operator.reconcile.world import Outcome, Reach, Waiting, World
from support.operator_worlds import NODE, WorldMaker, claim, reported

NOW = "2026-01-02T00:00:00Z"
BEFORE = "2026-01-01T00:00:00Z"


def said(world: World, kind: ConditionType) -> tuple[ConditionStatus, str]:
    (found,) = (one for one in report(world, now=NOW).conditions if one.type == kind)
    return found.status, found.reason


def word(world: World) -> PrintableStatus:
    return report(world, now=NOW).printable_status


def running(**more: object) -> DomainStatus:
    base = {
        "node_name": NODE,
        "state": DomainState.RUNNING,
        "placement_id": "c1",
        "observed_generation": 1,
    }
    return DomainStatus.model_validate({**base, **more})


def agent_says(
    kind: ConditionType, status: ConditionStatus, reason: Reason, message: str = ""
) -> Condition:
    return Condition(
        type=kind, status=status, reason=reason, message=message, last_transition_time=BEFORE
    )


def test_a_vm_that_runs_under_its_claim_is_ready() -> None:
    world = WorldMaker(placement=claim(), domain=running()).make()

    assert said(world, ConditionType.READY) == ("True", Reason.RUNNING)
    assert said(world, ConditionType.SCHEDULED) == ("True", Reason.PLACED)
    assert said(world, ConditionType.HOST_REACHABLE) == ("True", Reason.LEASE_FRESH)
    assert said(world, ConditionType.ACCEPTED) == ("True", Reason.VALID)
    assert word(world) is PrintableStatus.RUNNING


def test_a_vm_that_stands_still_is_not_ready() -> None:
    says = agent_says(ConditionType.RUNNING, "False", Reason.PAUSED, "a disk failed")
    world = WorldMaker(
        placement=claim(), domain=running(state=DomainState.PAUSED), conditions=[says]
    ).make()

    assert said(world, ConditionType.READY) == ("False", Reason.PAUSED)
    assert word(world) is PrintableStatus.PAUSED


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (None, ("Unknown", Reason.WAITING_FOR_AGENT)),
        (running(placement_id="c0"), ("Unknown", Reason.WAITING_FOR_AGENT)),
        (running(node_name="host-b"), ("Unknown", Reason.WAITING_FOR_AGENT)),
        (running(observed_generation=0), ("Unknown", Reason.WAITING_FOR_AGENT)),
        (running(observed_generation=None), ("Unknown", Reason.WAITING_FOR_AGENT)),
        (running(state=DomainState.SHUTOFF), ("False", Reason.STARTING)),
    ],
)
def test_what_the_agent_has_not_said_of_this_claim_and_generation_is_not_ready(
    domain: DomainStatus | None, expected: tuple[str, str]
) -> None:
    world = WorldMaker(placement=claim(), domain=domain).make()

    assert said(world, ConditionType.READY) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (
            agent_says(ConditionType.NUMA_ALIGNED, "False", Reason.PAGES_MISPLACED),
            ("False", Reason.PAGES_MISPLACED),
        ),
        (
            agent_says(ConditionType.NUMA_ALIGNED, "Unknown", Reason.NOT_VERIFIED),
            ("Unknown", Reason.NOT_VERIFIED),
        ),
        (
            agent_says(ConditionType.NUMA_ALIGNED, "False", Reason.SPANS_CELLS),
            ("True", Reason.RUNNING),
        ),
        (
            agent_says(ConditionType.RESTART_REQUIRED, "True", Reason.PENDING_CHANGES),
            ("False", Reason.PENDING_CHANGES),
        ),
        (
            agent_says(ConditionType.RUNNING, "False", Reason.START_FAILED),
            ("False", Reason.START_FAILED),
        ),
    ],
)
def test_ready_follows_what_the_kernel_and_the_agent_say(
    condition: Condition, expected: tuple[str, str]
) -> None:
    world = WorldMaker(placement=claim(), domain=running(), conditions=[condition]).make()

    assert said(world, ConditionType.READY) == expected


def test_a_reason_that_only_a_newer_agent_knows_is_no_obstacle() -> None:
    condition = agent_says(ConditionType.NUMA_ALIGNED, "False", Reason.PAGES_MISSING)
    newer = condition.model_copy(update={"reason": "SomethingNew"})
    world = WorldMaker(placement=claim(), domain=running(), conditions=[newer]).make()

    assert said(world, ConditionType.READY) == ("False", Reason.NOT_VERIFIED)


@pytest.mark.parametrize(
    ("threads_per_core", "cpu", "warned"),
    [
        (1, {"threads": 2, "dedicatedCpuPlacement": True}, True),
        (2, {"threads": 2, "dedicatedCpuPlacement": True}, False),
        (None, {"threads": 2, "dedicatedCpuPlacement": True}, False),
        (1, {"threads": 1, "dedicatedCpuPlacement": True}, False),
        (1, {"threads": 2}, False),  # the API server warns of these by itself
    ],
)
def test_guest_threads_on_a_host_without_smt_are_warned_of_where_the_host_is_known(
    threads_per_core: int | None, cpu: dict[str, object], *, warned: bool
) -> None:
    world = WorldMaker(placement=claim(), domain=running()).make()
    assert world.host is not None
    domain = Domain.model_validate({"cpu": cpu})
    spec = NumaVMSpec(domain=domain)
    host = replace(world.host, threads_per_core=threads_per_core)
    world = replace(world, vm=replace(world.vm, spec=spec), host=host)

    (found,) = (one for one in report(world, now=NOW).conditions if one.type == "Scheduled")
    assert (found.status, "spec.domain.cpu.threads 2 is vain" in found.message) == ("True", warned)


def test_an_unreachable_host_makes_everything_about_the_vm_unknown() -> None:
    world = WorldMaker(placement=claim(), domain=running(), reach=Reach.UNREACHABLE).make()

    assert said(world, ConditionType.HOST_REACHABLE) == ("False", Reason.LEASE_EXPIRED)
    assert said(world, ConditionType.READY) == ("Unknown", Reason.HOST_UNREACHABLE)
    assert word(world) is PrintableStatus.UNKNOWN


def test_what_was_said_before_the_host_booted_anew_does_not_count() -> None:
    before = running(boot_id="first")
    same = WorldMaker(placement=claim(), domain=before, boot_id="first").make()
    anew = WorldMaker(placement=claim(), domain=before, boot_id="second").make()

    assert said(same, ConditionType.READY) == ("True", Reason.RUNNING)
    assert said(anew, ConditionType.READY) == ("Unknown", Reason.WAITING_FOR_AGENT)
    assert word(anew) is PrintableStatus.STARTING


def test_a_deletion_that_waits_for_an_agent_names_it() -> None:
    world = WorldMaker(
        deleting=True, placement=claim(), domain=running(), reach=Reach.UNREACHABLE
    ).make()

    (ready,) = (one for one in report(world, now=NOW).conditions if one.type == "Ready")
    assert (ready.status, ready.reason) == ("Unknown", Reason.WAITING_FOR_AGENT)
    assert NODE in ready.message
    assert word(world) is PrintableStatus.TERMINATING


def test_a_new_leader_changes_nothing_about_hosts_it_does_not_know_yet() -> None:
    known = agent_says(ConditionType.HOST_REACHABLE, "True", Reason.LEASE_FRESH, "fresh")
    world = WorldMaker(
        placement=claim(), domain=running(), reach=Reach.UNDETERMINED, conditions=[known]
    ).make()

    (reachable,) = (one for one in report(world, now=NOW).conditions if one.type == "HostReachable")
    assert (reachable.status, reachable.reason, reachable.message) == (
        "True",
        Reason.LEASE_FRESH,
        "fresh",
    )
    assert reachable.last_transition_time == BEFORE


@pytest.mark.parametrize(
    ("outcome", "reason", "expected"),
    [
        (Outcome.UNSCHEDULABLE, Reason.UNSCHEDULABLE, PrintableStatus.ERROR_UNSCHEDULABLE),
        (Outcome.UNDECIDED, Reason.UNDECIDED, PrintableStatus.PROVISIONING),
        (Outcome.WAITING_FOR_HOSTS, Reason.WAITING_FOR_HOSTS, PrintableStatus.PROVISIONING),
    ],
)
def test_what_waits_says_why(outcome: Outcome, reason: Reason, expected: PrintableStatus) -> None:
    world = WorldMaker(waiting=Waiting(outcome, "because")).make()

    assert said(world, ConditionType.SCHEDULED) == ("False", reason)
    assert said(world, ConditionType.READY) == ("False", reason)
    assert word(world) is expected


def test_the_host_kept_for_a_vm_is_named_only_while_it_waits_for_one() -> None:
    waits = Waiting(Outcome.UNSCHEDULABLE, "because", kept_node=NODE)
    worlds = [
        WorldMaker(waiting=waits),
        WorldMaker(waiting=waits, placement=claim()),
        WorldMaker(waiting=waits, strategy=RunStrategy.HALTED),
        WorldMaker(waiting=Waiting(Outcome.UNSCHEDULABLE, "because")),
    ]

    assert [report(one.make(), now=NOW).reserved_node_name for one in worlds] == [
        NODE,
        None,
        None,
        None,
    ]


def test_what_waits_names_the_refusals() -> None:
    refusal = Refusal(
        node_name=NODE,
        placement_id="c0",
        reason=ClaimRefusalReason.CPU_TAKEN,
        message="CPU 3 is taken",
        host_resource_version="1",
        time=BEFORE,
    )
    world = WorldMaker(
        waiting=Waiting(Outcome.UNSCHEDULABLE, "0/1 hosts fit"), refusals=[refusal]
    ).make()

    (scheduled,) = (one for one in report(world, now=NOW).conditions if one.type == "Scheduled")
    assert scheduled.message == f"0/1 hosts fit {NODE} refused (CpuTaken): CPU 3 is taken"


@pytest.mark.parametrize(
    ("maker", "ready", "expected"),
    [
        (
            WorldMaker(strategy=RunStrategy.HALTED),
            ("True", Reason.HALTED),
            PrintableStatus.STOPPED,
        ),
        (
            WorldMaker(strategy=RunStrategy.HALTED, placement=claim(), domain=running()),
            ("False", Reason.STOPPING),
            PrintableStatus.STOPPING,
        ),
        (
            WorldMaker(
                strategy=RunStrategy.ONCE,
                domain=DomainStatus(
                    node_name=NODE,
                    state=DomainState.SHUTOFF,
                    shutoff_reason=ShutoffReason.GUEST_SHUTDOWN,
                ),
            ),
            ("True", Reason.FINISHED),
            PrintableStatus.STOPPED,
        ),
        (
            WorldMaker(violations=("spec.x is 1, but 2: do 3.",)),
            ("False", Reason.INVALID_SPEC),
            PrintableStatus.ERROR_INVALID,
        ),
        (
            WorldMaker(claimed=(reported(claim("r1"), confirmed=False),)),
            ("Unknown", Reason.WAITING_FOR_OPERATOR),
            PrintableStatus.UNKNOWN,
        ),
        (
            WorldMaker(placement=claim(), domain=running(state=DomainState.SHUTOFF, failures=3)),
            ("False", Reason.STARTING),
            PrintableStatus.CRASH_LOOP_BACK_OFF,
        ),
    ],
)
def test_each_state_has_its_word(
    maker: WorldMaker, ready: tuple[str, str], expected: PrintableStatus
) -> None:
    assert said(maker.make(), ConditionType.READY) == ready
    assert word(maker.make()) is expected


def test_a_report_that_stands_already_is_the_same_report() -> None:
    """An apply that changes nothing is not sent.

    In every state, what was written reads back equal.
    """
    for strategy, deleting, reach, held, waits in itertools.product(
        RunStrategy,
        (True, False),
        Reach,
        (True, False),
        (None, Waiting(Outcome.UNSCHEDULABLE, "x" * 5000)),
    ):
        maker = WorldMaker(
            strategy=strategy,
            deleting=deleting,
            reach=reach,
            placement=claim() if held else None,
            domain=running() if held else None,
            waiting=waits,
        )
        written = report(maker.make(), now=BEFORE)
        maker.conditions = [
            agent_says(ConditionType.RUNNING, "True", Reason.RUNNING),
            *reversed(written.conditions),
        ]
        world = maker.make()
        status = world.vm.status.model_copy(
            update={
                "observed_generation": written.observed_generation,
                "printable_status": written.printable_status,
            }
        )
        vm = replace(world.vm, status=status)
        again = World(vm, world.host, world.claimed, world.waiting)

        assert report(again, now=NOW) == stated(again)
