"""The agent's pulse and metrics."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from numavm_agent.host.schedstat import VcpuTime, vcpu_times
from numavm_agent.metrics import Observed, Sources
from numavm_agent.pulse import HUNG_SECONDS, GuestNow, Pulse, TurnResult
from numavm_api.cpuset import CpuSet
from numavm_api.placement import Placement
from numavm_api.vm_status import CellStatus, NumaStatus, Resident
from support.fleet_objects import DB_UID, db_placement


@dataclass
class SetClock:
    """A clock that the test sets."""

    at: float = 1000.0

    def boottime(self) -> float:
        """Return what the test has set."""
        return self.at

    def now(self) -> float:
        """Return what the test has set."""
        return self.at


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def pulse(clock: SetClock) -> Pulse:
    return Pulse(clock, period_seconds=5)


def test_it_is_of_no_use_before_a_good_turn(pulse: Pulse) -> None:
    assert "none" in (pulse.problem() or "")
    pulse.began()
    pulse.turned(TurnResult.API_UNAVAILABLE)
    assert "api_unavailable" in (pulse.problem() or "")
    pulse.began()
    pulse.turned(TurnResult.OK)
    assert pulse.problem() is None


def test_good_turns_age(pulse: Pulse, clock: SetClock) -> None:
    pulse.began()
    pulse.turned(TurnResult.OK)
    clock.at += 31
    pulse.began()
    pulse.turned(TurnResult.LIBVIRT_UNAVAILABLE)

    assert pulse.problem() == (
        "the last good turn of the loop was 31 s ago; the last: libvirt_unavailable"
    )
    assert pulse.turns()[TurnResult.LIBVIRT_UNAVAILABLE] == 1


def test_a_turn_that_does_not_end_hangs_and_the_time_between_turns_does_not(
    pulse: Pulse, clock: SetClock
) -> None:
    pulse.began()
    clock.at += HUNG_SECONDS + 1
    assert "so far" in (pulse.hangs() or "")
    pulse.turned(TurnResult.OK)
    clock.at += HUNG_SECONDS + 1
    assert pulse.hangs() is None


def samples(pulse: Pulse, sources: Sources) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(Observed(pulse, sources))
    text = generate_latest(registry).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def guest(numa: NumaStatus | None) -> GuestNow:
    placement = Placement.model_validate(db_placement())
    return GuestNow("prod", "db", DB_UID, 42, placement, numa)


def test_memory_on_other_host_cells_than_promised_is_counted(pulse: Pulse) -> None:
    cell = CellStatus(
        id=0,
        host_cells=CpuSet.of(0),
        vcpus=CpuSet.of(0, 1),
        pcpus=CpuSet.of(2, 3),
        resident=[Resident(host_cell=0, bytes=100), Resident(host_cell=1, bytes=7)],
        pinned=True,
        aligned=False,
    )
    pulse.runs([guest(NumaStatus(cells=[cell], verified_at="now"))])
    sources = Sources(
        vcpu_times=lambda pid: [VcpuTime(1, 2.0, 0.5)] if pid == 42 else [],
        balloons=lambda: {DB_UID: {"current": 1024}, "other": {"current": 1}},
    )

    found = samples(pulse, sources)
    assert found["numavm_agent_memory_promised_bytes", "0", "0", "db", "prod"] == 2**30
    assert found["numavm_agent_memory_resident_bytes", "0", "1", "db", "prod"] == 7
    assert found["numavm_agent_memory_misaligned_bytes", "db", "prod"] == 7
    assert found["numavm_agent_threads_pinned", "db", "prod"] == 1
    assert found["numavm_agent_vcpu_wait_seconds_total", "db", "prod", "1"] == 0.5
    balloons = [key for key in found if key[0] == "numavm_agent_balloon_bytes"]
    assert balloons == [("numavm_agent_balloon_bytes", "current", "db", "prod")]


def test_pages_that_were_not_read_are_not_said_to_be_aligned(pulse: Pulse) -> None:
    pulse.runs([guest(None)])

    found = samples(pulse, Sources(lambda _pid: [], dict))
    assert not [key for key in found if key[0] == "numavm_agent_memory_misaligned_bytes"]


def test_times_are_read_of_vcpu_threads_only(tmp_path: Path) -> None:
    for tid, name, schedstat in (
        (42, "qemu-system-x86", "9 9 9"),
        (43, "CPU 0/KVM", "2500000000 500000000 12"),
        (44, "CPU 1/TCG", "1000000000 0 1"),
        (45, "IO mon_iothread", "9 9 9"),
    ):
        task = tmp_path / "42" / "task" / str(tid)
        task.mkdir(parents=True)
        (task / "comm").write_text(f"{name}\n")
        (task / "schedstat").write_text(f"{schedstat}\n")

    assert list(vcpu_times(42, tmp_path)) == [VcpuTime(0, 2.5, 0.5), VcpuTime(1, 1.0, 0.0)]
    assert list(vcpu_times(7, tmp_path)) == []
