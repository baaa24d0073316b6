"""The kubelet's pod resources API, spoken over a real socket: what pods hold is read, and kept while it is silent."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from numavm_agent.errors import KubeletUnavailable
from numavm_agent.host.reader import LinuxHostReader
from numavm_agent.kubelet.podresources_pb2 import AllocatableResourcesResponse, PodResources
from numavm_agent.kubelet.socket import SOCKET, KubeletSocket
from numavm_agent.reconcile.other_users import OtherUsersReader
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import NumaHostStatus
from numavm_api.others import KubeletMemory, KubeletUse, OtherUses
from numavm_api.quantity import BASE_PAGE, GIBIBYTE, MEBIBYTE, Bytes
from support.kubelet_server import PodResourcesServer, memory, pod, serving

HUGE = Bytes(2 * MEBIBYTE)
PAIR = CpuSet.parse("2-3")


class StoppedClock:
    """Time as the test sets it."""

    seconds = 100.0

    def now(self) -> float:
        """Return seconds."""
        return self.seconds

    def boottime(self) -> float:
        """Return seconds."""
        return self.seconds


@pytest.fixture
def root() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="nv-", dir="/tmp"))  # a socket wants a short path
    yield directory
    shutil.rmtree(directory)


def gib(amount: float) -> Bytes:
    return Bytes(int(amount * GIBIBYTE))


def test_no_socket_is_no_kubelet(root: Path) -> None:
    assert KubeletSocket(root).use() is None
    assert not LinuxHostReader(root).kubelet_runs()
    (root / SOCKET).parent.mkdir(parents=True)
    (root / SOCKET).write_text("a file is no socket")
    assert KubeletSocket(root).use() is None


def test_what_pods_hold_and_may_hold_is_read(root: Path) -> None:
    answers = PodResourcesServer(
        pods=[
            pod(
                "pinned", [2, 3], [memory("memory", gib(1), 0), memory("hugepages-2Mi", gib(1), 0)]
            ),
            pod("too", [6], [memory("memory", gib(0.5), 0)]),
            pod("floats"),
        ],
        allocatable=AllocatableResourcesResponse(
            cpu_ids=[1, 2, 3, 5, 6, 7],
            memory=[memory("memory", gib(3), 0), memory("memory", gib(4), 1)],
        ),
    )
    with serving(answers, root):
        assert LinuxHostReader(root).kubelet_runs()
        use = KubeletSocket(root).use()
    expected = KubeletUse(
        exclusive_cpus=CpuSet.parse("2-3,6"),
        allocatable_cpus=CpuSet.parse("1-3,5-7"),
        memory=[
            KubeletMemory(cell=0, page_size=BASE_PAGE, amount=gib(1.5)),
            KubeletMemory(cell=0, page_size=HUGE, amount=gib(1)),
        ],
        allocatable_memory=[
            KubeletMemory(cell=0, page_size=BASE_PAGE, amount=gib(3)),
            KubeletMemory(cell=1, page_size=BASE_PAGE, amount=gib(4)),
        ],
    )
    assert use == expected


def test_memory_on_a_group_of_cells_counts_on_each(root: Path) -> None:
    answers = PodResourcesServer(pods=[pod("wide", [], [memory("memory", gib(2), 0, 1)])])
    with serving(answers, root):
        use = KubeletSocket(root).use()
    assert use is not None
    assert use.promised() == {(0, BASE_PAGE): gib(2), (1, BASE_PAGE): gib(2)}


def test_what_a_pod_holds_itself_has_its_containers_in_it(root: Path) -> None:
    whole = pod("whole", [2], [memory("memory", gib(1), 0)])
    both = PodResources(
        name="whole",
        containers=whole.containers,
        cpu_ids=[2, 3],
        memory=[memory("memory", gib(3), 0)],
    )
    with serving(PodResourcesServer(pods=[both]), root):
        use = KubeletSocket(root).use()
    assert use is not None
    assert use.exclusive_cpus == PAIR
    assert use.promised() == {(0, BASE_PAGE): gib(3)}


def test_a_kubelet_that_refuses_or_is_gone_is_said_so(root: Path) -> None:
    answers = PodResourcesServer(refuses=True)
    with serving(answers, root), pytest.raises(KubeletUnavailable, match="rejected by rate limit"):
        KubeletSocket(root).use()


def test_its_last_word_counts_while_it_is_silent_and_over_a_restart_of_the_agent(
    root: Path,
) -> None:
    answers = PodResourcesServer(pods=[pod("pinned", [2, 3])])
    clock = StoppedClock()
    reader = OtherUsersReader(KubeletSocket(root), clock)
    with serving(answers, root):
        first = reader.read(CpuSet.of(7), NumaHostStatus())
        assert (first.kubelet_runs, first.cpus) == (True, CpuSet.of(2, 3, 7))

        answers.refuses = True
        silent = reader.read(CpuSet(), NumaHostStatus())
        assert silent.cpus == PAIR
        assert "rejected" in (silent.kubelet_error or "")

        reported = NumaHostStatus(others=first.reported())
        successor = OtherUsersReader(KubeletSocket(root), clock)
        assert successor.read(CpuSet(), reported).cpus == PAIR

        answers.refuses, answers.pods = False, []
        assert reader.read(CpuSet(), NumaHostStatus()).cpus == PAIR, "not asked at each turn"
        clock.seconds += 60
        again = reader.read(CpuSet(), NumaHostStatus())
        assert (again.cpus, again.kubelet_error) == (CpuSet(), None)


def test_its_word_survives_numahosts_status() -> None:
    held = KubeletMemory(cell=1, page_size=HUGE, amount=gib(1))
    use = KubeletUse(exclusive_cpus=PAIR, allocatable_cpus=CpuSet.of(1), memory=[held])
    status = NumaHostStatus(others=OtherUses(kubelet=use))
    assert NumaHostStatus.model_validate(status.to_api()) == status
