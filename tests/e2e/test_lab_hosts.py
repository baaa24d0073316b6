"""A lab host is a real NUMA host: its kernel and its libvirt are asked, not its description."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from numavm_lab.errors import LabError
from numavm_lab.hosts import LabHost
from numavm_lab.stack import Stack
from support.wait import wait_for

pytestmark = pytest.mark.lab


def text(host: LabHost, *argv: str) -> str:
    return host.exec(argv).stdout.strip()


def test_the_kernel_has_the_cells_of_the_description(host_b: LabHost) -> None:
    node = "/sys/devices/system/node"

    def of_each(file: str) -> list[str]:
        return text(host_b, "sh", "-c", f"cat {node}/node?/{file}").splitlines()

    assert text(host_b, "cat", f"{node}/online") == "0-3"
    assert of_each("cpulist") == ["0-3", "4-7", "8-11", "12-15"]
    assert of_each("distance") == ["10 12 21 31", "12 10 31 21", "21 31 10 12", "31 21 12 10"]
    assert of_each("hugepages/hugepages-2048kB/nr_hugepages") == ["128"] * 4
    siblings = "/sys/devices/system/cpu/cpu2/topology/thread_siblings_list"
    assert text(host_b, "cat", siblings) == "2-3"


def test_libvirt_inside_sees_the_same_cells(host_a: LabHost) -> None:
    capabilities = text(host_a, "virsh", "-c", "qemu:///system", "capabilities")

    assert re.findall(r"<sibling id='(\d)' value='(\d+)'/>", capabilities) == [
        ("0", "10"),
        ("1", "20"),
        ("0", "20"),
        ("1", "10"),
    ]


def test_the_host_has_its_name_the_right_time_and_the_controllers_libvirt_needs(
    host_b: LabHost,
) -> None:
    before = time.time()
    name, clock, controllers = text(
        host_b, "sh", "-c", "hostname; date +%s; cat /sys/fs/cgroup/cgroup.subtree_control"
    ).splitlines()

    assert name == "host-b"
    assert abs(int(clock) - before) < 10
    assert {"cpuset", "cpu", "memory", "hugetlb"} <= set(controllers.split())


def test_commands_give_their_output_errors_and_exit_code_and_take_input(host_b: LabHost) -> None:
    script = 'cat; echo "$1 $A" >&2; exit 3'
    done = host_b.exec(
        ["sh", "-c", script, "x", "a  'b"], check=False, input="in", environment={"A": "$c"}
    )

    assert (done.returncode, done.stdout, done.stderr) == (3, "in", "a  'b $c\n")


def test_a_failing_command_is_an_error_that_shows_what_it_said(host_b: LabHost) -> None:
    with pytest.raises(LabError, match=r"host-b: ls /absent: exit code 2\n.*No such file"):
        host_b.exec(["ls", "/absent"])


def test_many_commands_at_once_keep_apart(host_b: LabHost) -> None:
    with ThreadPoolExecutor(max_workers=20) as pool:
        answers = list(pool.map(lambda number: text(host_b, "echo", str(number)), range(40)))

    assert answers == [str(number) for number in range(40)]


def test_a_file_arrives_whole_with_its_mode(host_b: LabHost) -> None:
    content = bytes(range(256)) * 100
    host_b.copy_in("/run/new/directory/file", content, mode=0o600)

    size, mode = text(host_b, "stat", "-c", "%s %a", "/run/new/directory/file").split()
    digest = text(host_b, "sha256sum", "/run/new/directory/file").split()[0]

    assert (size, mode) == ("25600", "600")
    here = subprocess.run(["sha256sum"], input=content, capture_output=True, check=True)
    assert digest == here.stdout.decode().split()[0]


def test_a_service_runs_until_it_is_stopped_and_its_log_is_read_outside(host_b: LabHost) -> None:
    script = "trap 'echo stopped; exit' TERM; echo started $A; while :; do sleep 1; done"
    argv = ["/bin/sh", "-c", script]
    log = host_b.start_service("sample", argv, environment={"A": "a b"})
    wait_for(
        lambda: log.read_text() if log.exists() else "",
        until=lambda seen: "started a b" in seen,
        deadline_seconds=60,
        describe="the service's first line in its log",
    )

    host_b.start_service("sample", argv)
    assert host_b.is_service_running("sample")
    host_b.stop_service("sample")
    host_b.stop_service("sample")

    assert not host_b.is_service_running("sample")
    assert log.read_text() == "started a b\nstopped\n"
    with pytest.raises(LabError):
        host_b.signal_service("sample", signal.SIGTERM)


def test_nothing_inside_can_write_to_this_machines_root_file_system(host_b: LabHost) -> None:
    for directory in ("/usr", "/root", "/boot"):
        done = host_b.exec(["touch", f"{directory}/numavm-was-here"], check=False)

        assert "Read-only file system" in done.stderr
    host_b.exec(["touch", "/etc/numavm-was-here", "/var/numavm-was-here"])
    assert not [path for path in ("/etc", "/var") if Path(path, "numavm-was-here").exists()]


def test_running_up_again_leaves_a_running_host_alone(stack: Stack, host_b: LabHost) -> None:
    before = host_b.pid
    (again,) = stack.lab.up([host_b.spec])

    assert again.pid == before
    with pytest.raises(LabError, match="another description"):
        stack.lab.up([host_b.spec.model_copy(update={"distances": None})])
