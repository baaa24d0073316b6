"""The KVM probe by way of libvirt; here by emulation, which runs the same guest."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from numavm_agent.libvirt.adapter import LibvirtHypervisor
from numavm_agent.libvirt.kvm_guest import KvmGuest
from support.private_libvirt import PrivateLibvirt

EMULATOR = "/usr/bin/qemu-system-x86_64"


@pytest.fixture(scope="module")
def libvirt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateLibvirt]:
    made = PrivateLibvirt(tmp_path_factory.mktemp("probe"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that libvirt sees under the same path, and that QEMU's user may enter."""
    with tempfile.TemporaryDirectory(prefix="numavm-probe-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def left(libvirt: PrivateLibvirt, shared: Path) -> tuple[list[Path], tuple[object, ...]]:
    hypervisor = LibvirtHypervisor(libvirt.uri)
    try:
        return list(shared.iterdir()), hypervisor.list_domains()
    finally:
        hypervisor.close()


def test_a_guest_that_does_its_work_is_heard(libvirt: PrivateLibvirt, shared: Path) -> None:
    found = KvmGuest(libvirt.uri, shared, 60).run(EMULATOR, "qemu", 60)

    assert (found.works, found.message) == (True, "guest code ran")
    assert left(libvirt, shared) == ([], ())


def test_a_guest_that_has_no_time_is_not(libvirt: PrivateLibvirt, shared: Path) -> None:
    found = KvmGuest(libvirt.uri, shared, 60).run(EMULATOR, "qemu", 0.0)

    assert not found.works
    assert "did not finish" in found.message
    assert left(libvirt, shared) == ([], ())


def test_libvirts_refusal_is_told(libvirt: PrivateLibvirt, shared: Path) -> None:
    found = KvmGuest(libvirt.uri, shared, 60).run("/no/such/qemu", "qemu", 60)

    assert not found.works
    assert found.message.startswith("libvirt: ")
    assert left(libvirt, shared) == ([], ())
