"""A lab host from first to last: it comes up once, runs KVM guests, survives a power cut, and leaves nothing behind."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from numavm_api.cpuset import CpuSet
from numavm_lab.errors import LabError
from numavm_lab.guest import Report, parse_reports, witness_images
from numavm_lab.hosts import HostSpec, HostState, Lab, LabCell, LabHost
from numavm_lab.state import processes_owned_by
from support.wait import wait_for

# The end-to-end suite does the same by way of the product.
pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

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
