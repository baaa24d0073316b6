"""Small parts of the agent that stand alone: who owns a domain, whose pages are whose, workers, the token's file."""

import threading
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import Configuration

from numavm_agent.kube.transport import TokenFile
from numavm_agent.ports import UnreadableVm, VmObject
from numavm_agent.reconcile.decide import Owner
from numavm_agent.reconcile.host_state import cells_now
from numavm_agent.reconcile.unlisted import owner_of
from numavm_agent.reconcile.workers import JobKind, UnexpectedError, Workers
from numavm_agent.topology.allocatable import OwnResident
from numavm_agent.topology.readings import CellReading, HostTopology, MemoryReading, PagePool
from numavm_api.cpuset import CpuSet
from numavm_api.errors import TransientError
from numavm_api.numahost import NumaHostSpec
from numavm_api.quantity import GIBIBYTE, Bytes
from numavm_api.vm_status import NumaVMStatus
from support.agent_values import HUGE, spec, vm
from support.wait import wait_for


def placed(node: str | None, **changes: Any) -> VmObject:
    return vm(changes.pop("wanted", spec()), status=NumaVMStatus(node_name=node), **changes)


@pytest.mark.parametrize(
    ("answer", "owner"),
    [
        (None, Owner.MISSING),
        (placed("me", uid="another"), Owner.MISSING),
        (UnreadableVm("ns", "vm", "uid-1", "?"), Owner.UNKNOWN),
        (UnreadableVm("ns", "vm", "another", "?"), Owner.MISSING),
        (placed("me"), Owner.HERE),
        (placed("me", deleting=True), Owner.HERE),
        (placed("other"), Owner.ELSEWHERE),
        (placed(None), Owner.UNPLACED),
        (placed(None, deleting=True), Owner.UNWANTED),
        (placed("other", deleting=True), Owner.UNWANTED),
        (placed(None, wanted=spec(runStrategy="Halted")), Owner.UNWANTED),
    ],
)
def test_whose_a_domain_is(answer: VmObject | UnreadableVm | None, owner: Owner) -> None:
    assert owner == owner_of(answer, "uid-1", "me")


def topology(*, free_pages: int) -> HostTopology:
    memory = MemoryReading(Bytes(GIBIBYTE), Bytes(GIBIBYTE // 2), Bytes(0))
    cell = CellReading(0, (), memory, (PagePool(HUGE, 64, free_pages),), ())
    return HostTopology("boot", (cell,), CpuSet(), ())


def pages(of: HostTopology, own: int, before: list[Any], *, changing: bool) -> tuple[int, int]:
    resident = OwnResident(huge={(0, HUGE): own})
    cells = cells_now(of, NumaHostSpec(), resident, before, changing=changing)
    return cells[0].hugepages[0].allocatable, cells[0].hugepages[0].free


def test_pages_of_others_are_not_handed_out_and_own_ones_are() -> None:
    assert pages(topology(free_pages=32), 32, [], changing=False) == (64, 32)
    assert pages(topology(free_pages=24), 32, [], changing=False) == (56, 24)


def test_while_a_domain_is_made_nobody_elses_share_is_judged() -> None:
    before = cells_now(topology(free_pages=64), NumaHostSpec(), OwnResident(), [], changing=False)
    assert pages(topology(free_pages=32), 0, before, changing=True) == (64, 32)
    assert pages(topology(free_pages=32), 0, before, changing=False) == (32, 32)


def test_a_worker_survives_what_goes_wrong_and_says_so() -> None:
    woken = threading.Event()
    workers: Workers[str] = Workers(1, woken.set)

    def refuses() -> str:
        raise TransientError("not now")

    def breaks() -> str:
        raise KeyError("x")

    for uid, work in (("a", refuses), ("b", breaks), ("c", lambda: "done")):
        workers.submit(uid, JobKind.START, work)
    done = {}
    while len(done) < 3:
        found = wait_for(workers.take_done, describe="a job is done", poll_seconds=0.01)
        done |= {one.uid: one.outcome for one in found}
    assert isinstance(done["a"], TransientError)
    assert isinstance(done["b"], UnexpectedError)
    assert "KeyError" in str(done["b"])
    assert done["c"] == "done"
    assert woken.is_set()


def test_a_vm_counts_as_busy_until_its_outcome_is_taken() -> None:
    workers: Workers[str] = Workers(1, lambda: None)
    workers.submit("a", JobKind.STOP, lambda: "done")
    assert workers.doing("a") is JobKind.STOP
    wait_for(workers.take_done, describe="the job is done", poll_seconds=0.01)
    assert workers.doing("a") is None


def test_a_token_follows_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n", encoding="ascii")
    configuration: Any = Configuration()
    configuration.refresh_api_key_hook = TokenFile(file)

    def token() -> str:
        return str(configuration.get_api_key_with_prefix("BearerToken"))

    assert token() == "Bearer first"
    renewed = tmp_path / "renewed"
    renewed.write_text("other", encoding="ascii")
    renewed.replace(file)
    assert token() == "Bearer other"
