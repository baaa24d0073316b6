"""The operator's pulse, and its metrics of what it sees."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from numavm_operator.observed import Backlog, Observed, fragmentation
from numavm_operator.picture import Kind, Picture
from numavm_operator.pulse import LONGEST_WAIT_SECONDS, LOOP_SECONDS, Pulse
from support.fleet_objects import db, host_a, web
from support.hands import Hands

_GIB = 2**30


def picture_of(vms: list[dict[str, Any]]) -> Picture:
    picture = Picture(
        Hands(), look_at=lambda _: None, wake_scheduler=lambda: None, host_reported=lambda _: None
    )
    for number, (kind, raw) in enumerate(
        [(Kind.HOST, host_a()), *((Kind.VM, vm) for vm in vms)], start=1
    ):
        raw["metadata"]["resourceVersion"] = str(number)
        picture.saw(kind, raw, deleted=False)
    return picture


def samples(picture: Picture, limit: int = 2000) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(Observed(picture, lambda: Backlog(3, 1.5), lambda: {Kind.VM: 9.0}, limit))
    text = generate_latest(registry).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_capacity_used_and_free_per_cell() -> None:
    found = samples(picture_of([db(), web()]))

    assert found["numavm_host_cell_cpus", "0", "host-a", "dedicated"] == 3
    assert found["numavm_host_cell_cpus", "1", "host-a", "housekeeping"] == 1
    assert found["numavm_host_cell_cpus_free", "0", "host-a"] == 1
    assert found["numavm_host_cell_cpus_free", "1", "host-a"] == 1
    assert found["numavm_host_cell_memory_held_bytes", "0", "host-a", str(2 * 2**20)] == _GIB
    # 256Mi of QEMU's for db, 512Mi and 128Mi for web, which the host does not report yet.
    assert found["numavm_host_cell_memory_held_bytes", "1", "host-a", "4096"] == 896 * 2**20
    assert found["numavm_host_cell_memory_bytes", "1", "host-a", "4096"] == 6 * _GIB
    assert found["numavm_host_fragmentation_ratio", "host-a", "cpus"] == 0.5
    assert found["numavm_host_ready", "host-a"] == 1
    assert found["numavm_host_reachable", "host-a"] == 0  # no Lease was seen


def test_conditions_queue_and_watches() -> None:
    found = samples(picture_of([db()]))

    aligned = ("numavm_status_condition", "db", "prod", "False", "NumaAligned")
    assert found[aligned] == 1
    assert found["numavm_vm_info", "db", "prod", "host-a"] == 1
    assert found["numavm_vms", "Running"] == 1
    assert found["numavm_operator_queue_depth",] == 3
    assert found["numavm_operator_queue_oldest_seconds",] == 1.5
    assert found["numavm_operator_watch_age_seconds", "numavms"] == 9


def test_series_are_bounded_with_a_thousand_vms() -> None:
    vms = []
    for number in range(1000):
        vm = db()
        vm["metadata"] |= {"name": f"vm-{number:04}", "uid": f"uid-{number}"}
        vm["status"].pop("placement")
        vms.append(vm)

    few, many = samples(picture_of(vms[:50]), 50), samples(picture_of(vms), 50)

    assert len(many) == len(few)
    assert many["numavm_vm_series_omitted",] == 950
    assert few["numavm_vm_series_omitted",] == 0
    assert many["numavm_vms", "Running"] == 1000


@pytest.mark.parametrize(
    ("free", "ratio"), [([], 0), ([0, 0], 0), ([4, 0], 0), ([2, 2], 0.5), ([1, 1, 2], 0.5)]
)
def test_fragmentation_is_what_lies_outside_the_emptiest_cell(
    free: list[int], ratio: float
) -> None:
    assert fragmentation(free) == ratio


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def pulse(clock: Hands) -> Pulse:
    made = Pulse(clock, resync_seconds=300)
    assert made.problem(0) == "the first list is not complete"
    made.listed({Kind.LEASE: True})
    assert made.problem(0) is None
    return made


def test_a_watch_that_shows_nothing_of_what_a_list_shows_is_dead(
    pulse: Pulse, clock: Hands
) -> None:
    clock.at += 300
    pulse.listed({Kind.LEASE: True, Kind.VM: False})
    assert pulse.problem(0) == "the watch of leases shows nothing of what a full list showed"
    pulse.saw(Kind.LEASE)
    assert pulse.problem(0) is None


def test_a_watch_that_was_a_moment_late_is_not(pulse: Pulse, clock: Hands) -> None:
    clock.at += 10
    pulse.saw(Kind.LEASE)
    clock.at += 290
    pulse.listed({Kind.LEASE: True})

    assert pulse.problem(0) is None
    assert pulse.ages() == {Kind.LEASE: 290}


def test_old_lists_hung_loops_and_stuck_workers_are_problems(pulse: Pulse, clock: Hands) -> None:
    pulse.judged()
    assert "for a worker" in (pulse.problem(LONGEST_WAIT_SECONDS + 1) or "")
    clock.at += LOOP_SECONDS + 1
    assert "hosts were last judged" in (pulse.problem(0) or "")
    clock.at += 901
    assert "the last full list is" in (pulse.problem(0) or "")
