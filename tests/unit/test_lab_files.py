"""What lab hosts are given to boot with: archives, modules, keys, versions, reports."""

import gzip
import lzma
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from numavm_api.cpuset import CpuSet
from numavm_lab.errors import LabError, MissingPrerequisiteError
from numavm_lab.guest import cpio, parse_reports
from numavm_lab.guest.kernel import find_kernel, uncompressed, version_key
from numavm_lab.hosts.bootfiles import hidden_directories, host_variables, hugepage_lines
from numavm_lab.hosts.initramfs import inside
from numavm_lab.hosts.model import HostSpec, LabCell
from numavm_lab.hosts.ssh import Ssh, SshKeys, check_socket_path
from numavm_lab.hosts.virtiofsd import parse_version

KEYS = SshKeys(Path("/k/u"), Path("/k/u.pub"), Path("/k/h"), Path("/k/known"))
REPORT = (
    'NUMAVM-WITNESS {"sequence":1,"uptimeSeconds":7.57,"uuid":"","onlineCpus":"0-1",'
    '"possibleCpus":"0-3","onlineNodes":"0-1","cpus":[{"id":0,"package":0,"die":0,"core":0,'
    '"siblings":"0"},{"id":1,"package":0,"die":0,"core":1,"siblings":"1"}],"nodes":[{"id":0,'
    '"cpus":"0-1","memoryKib":61540,"distances":[10,21],"hugepages":{"1048576":0,"2048":3}},'
    '{"id":1,"cpus":"","memoryKib":94252,"distances":[21,10],"hugepages":{}}],"disks":[],'
    '"nics":[{"name":"eth0","mac":"52:54:00:12:34:56","node":-1}],"touchedMib":8,'
    '"commandLine":"console=ttyS0 a=\\"b\\""}'
)


def test_an_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    image = cpio.archive(
        {
            "a/b/file": cpio.file(b"odd", 0o755),
            "link": cpio.symlink("a/b/file"),
            "empty": cpio.directory(),
        }
    )

    subprocess.run(["cpio", "-id", "--quiet"], input=image, cwd=tmp_path, check=True)

    assert (tmp_path / "link").read_bytes() == b"odd"
    assert (tmp_path / "a/b/file").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "empty").is_dir()


def test_the_same_input_gives_the_same_archive() -> None:
    one = {"b": cpio.file(b"1"), "a": cpio.character_device(5, 1)}

    assert cpio.archive(one) == cpio.archive(dict(reversed(one.items())))


def test_cloud_kernels_come_first_then_the_newest(tmp_path: Path) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    boot.mkdir()
    for release in ("6.9.1-cloud-amd64", "6.10.0-cloud-amd64", "6.12.0-amd64", "7.0.0-cloud-amd64"):
        (boot / f"vmlinuz-{release}").touch()
        if not release.startswith("7"):  # its modules are not installed
            (modules / release).mkdir(parents=True)
            (modules / release / "modules.dep").touch()

    assert find_kernel(boot, modules).release == "6.10.0-cloud-amd64"
    assert version_key("6.10.0-1") > version_key("6.9.0-2")


def test_a_machine_without_a_kernel_is_told_which_package_has_one(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisiteError, match="apt-get install linux-image-cloud-amd64"):
        find_kernel(tmp_path, tmp_path)


def test_modules_are_read_whatever_their_compression(tmp_path: Path) -> None:
    (tmp_path / "a.ko").write_bytes(b"module")
    (tmp_path / "a.ko.xz").write_bytes(lzma.compress(b"module"))
    (tmp_path / "a.ko.gz").write_bytes(gzip.compress(b"module"))

    assert {b"module"} == {uncompressed(path) for path in tmp_path.iterdir()}


def test_a_compression_that_is_not_known_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.ko.br").touch()

    with pytest.raises(LabError, match=r"compression \.br"):
        uncompressed(tmp_path / "a.ko.br")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("virtiofsd 1.14.0\n", (1, 14, 0)),
        ("virtiofsd backend 1.10.1\n", (1, 10, 1)),
        ("virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n", None),
        ("", None),
    ],
)
def test_the_daemon_of_old_qemus_is_told_apart(
    printed: str, expected: tuple[int, ...] | None
) -> None:
    assert expected == parse_version(printed)


def test_a_command_reaches_the_far_shell_word_by_word() -> None:
    ssh = Ssh(Path("/usr/bin/ssh"), KEYS, 4000)

    remote = ssh.argv(["echo", "a b", "$HOME;'"], {"A": "x y"})[-1]

    assert remote == """env 'A=x y' echo 'a b' '$HOME;'"'"''"""


def test_nothing_of_the_users_own_ssh_is_used() -> None:
    words = Ssh(Path("/usr/bin/ssh"), KEYS, 4000).argv(["true"], {})

    assert {"-F", "/dev/null", "IdentitiesOnly=yes", "IdentityAgent=none"} <= set(words)
    assert "StrictHostKeyChecking=yes" in words


def test_a_socket_path_that_the_kernel_cannot_take_is_refused() -> None:
    with pytest.raises(LabError, match="set NUMAVM_STATE to a shorter directory"):
        check_socket_path(Path("/") / ("x" * 108))


def test_pages_and_names_are_written_as_the_set_up_reads_them() -> None:
    cells = (
        LabCell(cpus=1, memory=2**31, hugepages={2**21: 8, 2**30: 1}),
        LabCell(cpus=1, memory=2**30),
    )
    spec = HostSpec(name="host-a", kvm=True, cells=cells)

    assert list(hugepage_lines(spec)) == ["0 2048 8\n", "0 1048576 1\n"]
    assert "name=host-a\n" in host_variables(spec, _uuid())
    assert "kvm=yes\n" in host_variables(spec, _uuid())


def _uuid() -> UUID:
    return UUID(int=5)


def test_only_what_the_host_would_hide_is_shown_again() -> None:
    paths = [Path("/home/me/numavm"), Path("/run/clone"), Path("/usr"), Path("/var/cache/x")]

    assert hidden_directories(paths) == [Path("/run/clone"), Path("/var/cache/x")]


@pytest.mark.parametrize("name", ["initramfs-init.sh", "setup.sh", "services.sh", "shutdown.sh"])
def test_the_scripts_of_a_host_are_shell(name: str) -> None:
    done = subprocess.run(
        ["sh", "-n"], input=inside(name), text=True, capture_output=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_reports_are_read_between_other_lines_and_the_unfinished_last_one_is_not() -> None:
    console = f"[    1.0] boot\r\n{REPORT}\r\nnoise\n{REPORT[:100]}"

    (report,) = parse_reports(console)

    assert report.online_cpus == CpuSet.of(0, 1)
    assert [node.cpus for node in report.nodes] == [CpuSet.of(0, 1), CpuSet()]
    assert report.nodes[0].distances == (10, 21)
    assert report.nodes[0].hugepages == {1048576: 0, 2048: 3}
    assert report.cpus[1].siblings == CpuSet.of(1)
    assert report.command_line == 'console=ttyS0 a="b"'


def test_a_report_that_the_kernel_spoke_into_is_whole() -> None:
    words = (
        "[   66.937543] watchdog: BUG: soft lockup - CPU#1 stuck for 55s! [init:1]\r\n"
        "[   66.937601] CPU: 1 PID: 1 Comm: init Not tainted\r\n"
    )

    torn = parse_reports(f"{REPORT[:100]}{words}{REPORT[100:]}\r\n")

    assert torn == parse_reports(f"{REPORT}\r\n")
    assert len(torn) == 1


def test_a_torn_report_is_an_error_and_not_left_out() -> None:
    with pytest.raises(LabError, match="printed no report"):
        parse_reports(f"{REPORT[:100]}\n")


def test_json_that_is_no_report_is_an_error_and_not_left_out() -> None:
    with pytest.raises(LabError, match="printed no report"):
        parse_reports(f"{REPORT.replace('onlineCpus', 'cpusOnline')}\n")
