"""This machine, as the kernel, libvirt and QEMU have it: the reader, the KVM probe, and files behind symbolic links."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from lxml import etree

from numavm_agent.topology.capabilities import parse_capabilities
from numavm_agent.topology.host import read_host
from numavm_agent.topology.kvm import KVM_DEVICE, probe_kvm, run_probe_guest
from numavm_agent.topology.safe_paths import UnsafePath, check_host_file
from support.embedded_libvirt import EmbeddedLibvirt
from support.made_up_sysfs import MadeUpCell, MadeUpHost, write_sysfs

EMULATOR = "qemu-system-x86_64"


def test_the_reader_and_libvirt_see_the_same_made_up_host(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Two independent readers of one sysfs: libvirt's C code, and ours."""
    directory = tmp_path_factory.mktemp("both")
    host = MadeUpHost(
        cells={
            0: MadeUpCell((0, 1, 2, 3), hugepages={2048: (64, 60)}),
            1: MadeUpCell((4, 5, 6, 7), memory_mib=2048),
            2: MadeUpCell((), memory_mib=8192),
        },
        threads=2,
        distances=((10, 21, 31), (21, 10, 17), (31, 17, 10)),
    )
    ours = read_host(write_sysfs(directory / "ours", host))
    with EmbeddedLibvirt(directory, host) as libvirt:
        text = "\n".join(libvirt.run("capabilities"))

    capabilities = etree.fromstring(text)
    cells = {
        int(str(one.get("id"))): one for one in capabilities.iterfind(".//topology/cells/cell")
    }
    for cell in ours.cells:
        theirs = cells[cell.id]
        assert int(theirs.findtext("memory") or 0) * 1024 == cell.memory.total
        assert {
            int(str(one.get("id"))): str(one.get("siblings")) for one in theirs.iterfind("cpus/cpu")
        } == {cpu.id: str(cpu.siblings) for cpu in cell.cpus}
        assert {
            int(str(one.get("id"))): int(str(one.get("value")))
            for one in theirs.iterfind("distances/sibling")
        } == {one.cell: one.value for one in cell.distances}
    assert "pc-q35-7.2" in parse_capabilities(text).machine_types


def test_this_machine() -> None:
    found = read_host()

    cpus = {cpu.id for cell in found.cells for cpu in cell.cpus}
    assert cpus == set(range(os.cpu_count() or 0)) - set(found.offline_cpus)
    assert found.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert all(0 < cell.memory.free <= cell.memory.total for cell in found.cells)


def test_the_probe_guest_runs() -> None:
    """Under emulation, which always works: a guest that could not finish anywhere would prove nothing."""
    assert run_probe_guest(EMULATOR, "tcg", 60).works


def test_a_probe_that_does_not_finish_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deadline too short for any guest stands for one that hangs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = run_probe_guest(EMULATOR, "tcg", 0.001)

    assert not found.works
    assert "did not finish" in found.message
    left = subprocess.run(
        ["pgrep", "-f", f"{tmp_path}/numavm-probe-"], capture_output=True, check=False
    )
    assert left.stdout == b""


def test_a_probe_of_what_qemu_does_not_have_says_why() -> None:
    found = run_probe_guest(EMULATOR, "nonsense", 60)

    assert not found.works
    assert "nonsense" in found.message


def test_the_kvm_probe_agrees_with_a_kernel_that_boots(tmp_path: Path) -> None:
    """The same question asked of a real kernel: does it get as far as its first line under KVM?"""
    if not KVM_DEVICE.exists():
        assert not probe_kvm(EMULATOR, 30).works
        return
    kernel = max(Path("/boot").glob("vmlinuz-*"))
    log = tmp_path / "serial.log"
    argv = [
        *("timeout", "--kill-after=1", "15", EMULATOR, "-accel", "kvm", "-cpu", "max"),
        *("-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-kernel", str(kernel)),
        *("-append", "console=ttyS0 panic=-1", "-serial", f"file:{log}"),
    ]
    subprocess.run(argv, capture_output=True, check=False, timeout=40)

    booted = log.exists() and "Linux version" in log.read_text(errors="replace")
    assert probe_kvm(EMULATOR, 30).works == booted


def test_files_that_may_be_used(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"12345")

    assert check_host_file(str(disk)).st_size == 5


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("link.img", "is a symbolic link to"),
        ("through/disk.img", "is a symbolic link to"),
        ("absent.img", "No such file or directory"),
        ("pipe", "neither a regular file nor a block device"),
        (".", "component '.'"),
        ("../{name}/disk.img", "component '..'"),
        ("disk.img/x", "Not a directory"),
        ("", "neither a regular file"),
    ],
)
def test_files_that_may_not(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "disk.img").write_bytes(b"")
    (tmp_path / "link.img").symlink_to("disk.img")
    (tmp_path / "through").symlink_to(".")
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(UnsafePath) as caught:
        check_host_file(f"{tmp_path}/{path}".format(name=tmp_path.name).rstrip("/"))

    assert reason in str(caught.value)


def test_a_link_above_the_directory_counts_too(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "disk.img").write_bytes(b"")
    (tmp_path / "alias").symlink_to(real)

    with pytest.raises(UnsafePath, match=r"alias' is a symbolic link"):
        check_host_file(str(tmp_path / "alias" / "disk.img"))
