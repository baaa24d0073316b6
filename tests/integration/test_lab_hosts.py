"""A lab host is a real NUMA host: its kernel, its libvirt and its KVM are asked, not its description."""

import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from numavm_api.cpuset import CpuSet
from numavm_lab.errors import LabError
from numavm_lab.guest import Report, parse_reports, witness_images
from numavm_lab.hosts import HostSpec, HostState, Lab, LabCell, LabHost
from numavm_lab.state import processes_owned_by
from support.wait import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

MIB = 2**20
SPEC = HostSpec(
    name="numa-1",
    kvm=True,
    cells=(
        LabCell(cpus=2, memory=1024 * MIB, hugepages={2 * MIB: 16}),
        LabCell(cpus=2, memory=1024 * MIB, hugepages={2 * MIB: 24}),
    ),
    distances=((10, 17), (17, 10)),
)
DOMAIN = """
<domain type='kvm'>
  <name>witness</name>
  <memory unit='MiB'>192</memory>
  <vcpu>2</vcpu>
  <numatune>
    <memory mode='strict' nodeset='0-1'/>
    <memnode cellid='0' mode='strict' nodeset='1'/>
    <memnode cellid='1' mode='strict' nodeset='0'/>
  </numatune>
  <os>
    <type machine='q35'>hvm</type>
    <kernel>/var/lib/libvirt/images/vmlinuz</kernel>
    <initrd>/var/lib/libvirt/images/initrd</initrd>
    <cmdline>console=ttyS0 quiet mitigations=off nokaslr</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='host-passthrough'>
    <numa>
      <cell id='0' cpus='0' memory='96' unit='MiB'/>
      <cell id='1' cpus='1' memory='96' unit='MiB'/>
    </numa>
  </cpu>
  <devices>
    <serial type='file'><source path='/var/log/libvirt/qemu/witness-serial.log'/></serial>
  </devices>
</domain>
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of its own, in a directory that is short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="numavm-"))
    made = Lab(directory / "lab")
    yield made
    made.down()
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    """A running host of two cells."""
    (host,) = lab.up([SPEC], report=print)
    return host


def text(host: LabHost, *argv: str) -> str:
    return host.exec(argv).stdout.strip()


def test_the_kernel_has_the_cells_of_the_description(host: LabHost) -> None:
    node = "/sys/devices/system/node"

    assert text(host, "cat", f"{node}/online") == "0-1"
    assert text(host, "cat", f"{node}/node0/cpulist", f"{node}/node1/cpulist") == "0-1\n2-3"
    assert text(host, "cat", f"{node}/node0/distance", f"{node}/node1/distance") == "10 17\n17 10"
    pages = "hugepages/hugepages-2048kB/nr_hugepages"
    assert text(host, "cat", f"{node}/node0/{pages}", f"{node}/node1/{pages}") == "16\n24"


def test_libvirt_inside_sees_the_same_cells(host: LabHost) -> None:
    capabilities = text(host, "virsh", "-c", "qemu:///system", "capabilities")

    assert re.findall(r"<sibling id='(\d)' value='(\d+)'/>", capabilities) == [
        ("0", "10"),
        ("1", "17"),
        ("0", "17"),
        ("1", "10"),
    ]


def test_the_host_has_its_name_the_right_time_and_the_controllers_libvirt_needs(
    host: LabHost,
) -> None:
    before = time.time()
    name, clock, controllers = text(
        host, "sh", "-c", "hostname; date +%s; cat /sys/fs/cgroup/cgroup.subtree_control"
    ).splitlines()

    assert name == "numa-1"
    assert abs(int(clock) - before) < 10
    assert {"cpuset", "cpu", "memory", "hugetlb"} <= set(controllers.split())


def test_commands_give_their_output_errors_and_exit_code_and_take_input(host: LabHost) -> None:
    script = 'cat; echo "$1 $A" >&2; exit 3'
    done = host.exec(
        ["sh", "-c", script, "x", "a  'b"], check=False, input="in", environment={"A": "$c"}
    )

    assert (done.returncode, done.stdout, done.stderr) == (3, "in", "a  'b $c\n")


def test_a_failing_command_is_an_error_that_shows_what_it_said(host: LabHost) -> None:
    with pytest.raises(LabError, match=r"numa-1: ls /absent: exit code 2\n.*No such file"):
        host.exec(["ls", "/absent"])


def test_many_commands_at_once_keep_apart(host: LabHost) -> None:
    with ThreadPoolExecutor(max_workers=20) as pool:
        answers = list(pool.map(lambda number: text(host, "echo", str(number)), range(40)))

    assert answers == [str(number) for number in range(40)]


def test_a_file_arrives_whole_with_its_mode(host: LabHost) -> None:
    content = bytes(range(256)) * 100
    host.copy_in("/run/new/directory/file", content, mode=0o600)

    size, mode = text(host, "stat", "-c", "%s %a", "/run/new/directory/file").split()
    digest = text(host, "sha256sum", "/run/new/directory/file").split()[0]

    assert (size, mode) == ("25600", "600")
    here = subprocess.run(["sha256sum"], input=content, capture_output=True, check=True)
    assert digest == here.stdout.decode().split()[0]


def test_a_service_runs_until_it_is_stopped_and_its_log_is_read_outside(host: LabHost) -> None:
    script = "trap 'echo stopped; exit' TERM; echo started $A; while :; do sleep 1; done"
    argv = ["/bin/sh", "-c", script]
    log = host.start_service("sample", argv, environment={"A": "a b"})
    wait_for(
        lambda: log.read_text() if log.exists() else "",
        until=lambda seen: "started a b" in seen,
        deadline_seconds=60,
        describe="the service's first line in its log",
    )

    host.start_service("sample", argv)
    assert host.is_service_running("sample")
    host.stop_service("sample")
    host.stop_service("sample")

    assert not host.is_service_running("sample")
    assert log.read_text() == "started a b\nstopped\n"
    with pytest.raises(LabError):
        host.signal_service("sample", signal.SIGTERM)


def test_nothing_inside_can_write_to_this_machines_root_file_system(host: LabHost) -> None:
    for directory in ("/usr", "/root", "/boot"):
        done = host.exec(["touch", f"{directory}/numavm-was-here"], check=False)

        assert "Read-only file system" in done.stderr
    host.exec(["touch", "/etc/numavm-was-here", "/var/numavm-was-here"])
    assert not [path for path in ("/etc", "/var") if Path(path, "numavm-was-here").exists()]


@pytest.mark.long  # the end-to-end suite does the same by way of the product
def test_a_kvm_guest_lies_on_the_nodes_it_is_bound_to_and_sees_its_cells(host: LabHost) -> None:
    kernel, initrd = witness_images()
    for image, name in ((kernel, "vmlinuz"), (initrd, "initrd")):
        host.exec(["install", "-D", "-m", "644", str(image), f"/var/lib/libvirt/images/{name}"])
    host.copy_in("/run/witness.xml", DOMAIN.encode())
    host.exec(["virsh", "-c", "qemu:///system", "create", "/run/witness.xml"])
    try:
        report = wait_for(
            lambda: reports(host), deadline_seconds=180, poll_seconds=1, describe="a report"
        )[-1]
        maps = text(host, "sh", "-c", 'cat "/proc/$(cat /run/libvirt/qemu/witness.pid)/numa_maps"')

        assert [node.cpus for node in report.nodes] == [CpuSet.of(0), CpuSet.of(1)]
        guest_memory = [line for line in maps.splitlines() if " bind:" in line and "anon=" in line]
        found = {re.findall(r" bind:(\S+)| N(\d)=", line)[0][0] for line in guest_memory}
        assert found == {"0", "1"}
        for line in guest_memory:
            (bound,) = re.findall(r" bind:(\S+)", line)
            assert set(re.findall(r" N(\d)=", line)) == {bound}

        host.exec(["virsh", "-c", "qemu:///system", "shutdown", "witness", "--mode", "acpi"])
        wait_for(
            lambda: text(host, "virsh", "-c", "qemu:///system", "list", "--name"),
            until=lambda running: running == "",
            deadline_seconds=90,
            poll_seconds=1,
            describe="no domain after the guest's power button",
        )
    finally:
        host.exec(["virsh", "-c", "qemu:///system", "destroy", "witness"], check=False)


def reports(host: LabHost) -> list[Report]:
    log = "/var/log/libvirt/qemu/witness-serial.log"
    return parse_reports(host.exec(["cat", log], check=False).stdout)


def test_running_up_again_leaves_a_running_host_alone(lab: Lab, host: LabHost) -> None:
    before = host.pid
    (again,) = lab.up([SPEC])

    assert again.pid == before
    with pytest.raises(LabError, match="another description"):
        lab.up([SPEC.model_copy(update={"distances": None})])


@pytest.mark.long  # the end-to-end suite does the same by way of the product
def test_a_power_cut_ends_everything_at_once_and_the_host_comes_back_as_it_was(
    lab: Lab, host: LabHost
) -> None:
    machine = text(host, "cat", "/etc/machine-id")
    host.exec(["touch", "/run/lost", "/var/lost"])
    host.kill()

    assert host.state is HostState.STOPPED
    assert list(processes_owned_by(host.paths.directory)) == []
    with pytest.raises(LabError, match="not running"):
        host.exec(["true"])

    host.power_cycle()
    assert lab.host("numa-1").state is HostState.READY
    assert text(host, "cat", "/etc/machine-id") == machine
    assert host.exec(["ls", "/run/lost", "/var/lost"], check=False).returncode == 2


def test_going_down_leaves_nothing_behind(lab: Lab, host: LabHost) -> None:
    mounts = Path("/proc/self/mounts").read_text()
    assert host.pid is not None
    processes = [process.pid for process in processes_owned_by(lab.run_directory)]
    assert len(processes) >= 4
    lab.down()
    lab.down()

    assert [pid for pid in processes if psutil.pid_exists(pid) and is_ours(pid, lab)] == []
    assert not lab.run_directory.exists()
    assert list(lab.run_directory.parent.iterdir()) == []
    assert Path("/proc/self/mounts").read_text() == mounts


def is_ours(pid: int, lab: Lab) -> bool:
    return pid in {process.pid for process in processes_owned_by(lab.run_directory)}
