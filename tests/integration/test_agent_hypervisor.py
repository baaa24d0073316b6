"""The port `Hypervisor`, held against real libvirt: what each call does, and what each failure is called."""

import threading
import uuid
from collections.abc import Iterator

import pytest

from numavm_agent.domain.metadata import DomainRecord, metadata_xml, read_metadata
from numavm_agent.errors import (
    DomainExists,
    DomainMissing,
    HypervisorUnavailable,
    Shortage,
    StartFault,
)
from numavm_agent.libvirt.adapter import LibvirtHypervisor
from numavm_agent.ports import DomainEnd, Hypervisor, LibvirtState
from numavm_api.cpuset import CpuSet
from numavm_api.vm_status import ShutoffReason
from support.agent_values import claim, spec
from support.private_libvirt import PrivateLibvirt
from support.wait import wait_for

HUGE_PAGES = """<memoryBacking><hugepages><page size='2' unit='M'/></hugepages>
    <source type='memfd'/><allocation mode='immediate'/></memoryBacking>"""
NOT_A_DOMAIN = str(uuid.UUID(int=1))


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateLibvirt]:
    libvirtd = PrivateLibvirt(tmp_path_factory.mktemp("libvirt"))
    try:
        libvirtd.start()
        yield libvirtd
    finally:
        libvirtd.stop()


@pytest.fixture
def hypervisor(libvirtd: PrivateLibvirt) -> Iterator[Hypervisor]:
    hypervisor = LibvirtHypervisor(libvirtd.uri)
    yield hypervisor
    for seen in hypervisor.list_domains():
        hypervisor.destroy(seen.uuid)
    hypervisor.close()


def domain_xml(
    *, name: str = "d", identity: str | None = None, memory: str = "32", extra: str = ""
) -> tuple[str, str]:
    """Return UUID and XML of a small domain without a disk; its firmware waits for ever."""
    identity = identity or str(uuid.uuid4())
    xml = f"""<domain type='qemu'><name>{name}</name><uuid>{identity}</uuid>
        <memory unit='MiB'>{memory}</memory><vcpu>1</vcpu>{extra}
        <os><type arch='x86_64' machine='pc'>hvm</type></os><on_crash>destroy</on_crash></domain>"""
    return identity, xml


def started(hypervisor: Hypervisor, **changes: str) -> str:
    identity, xml = domain_xml(**changes)
    hypervisor.create(xml)
    return identity


def test_versions_and_machine_types_are_told(hypervisor: Hypervisor) -> None:
    found = hypervisor.capabilities()
    assert found.aliases["q35"] in found.machine_types
    assert len(hypervisor.libvirt_version().split(".")) == 3
    assert len(hypervisor.qemu_version().split(".")) == 3


def test_a_created_domain_is_listed_running_and_a_destroyed_one_is_not(
    hypervisor: Hypervisor,
) -> None:
    identity = started(hypervisor)
    (seen,) = hypervisor.list_domains()
    assert (identity, "d", LibvirtState.RUNNING) == (seen.uuid, seen.name, seen.state)
    hypervisor.destroy(identity)
    assert hypervisor.list_domains() == ()


def test_metadata_are_replaced_and_read_back_whole(hypervisor: Hypervisor) -> None:
    identity = started(hypervisor)
    for token in ("<&>'\"]]>", "é", None):
        record = DomainRecord(identity, "ns", "vm", 1, token, claim(), spec())
        hypervisor.set_metadata(identity, metadata_xml(record))
        assert record == read_metadata(hypervisor.domain_xml(identity))


def test_pins_are_set(hypervisor: Hypervisor) -> None:
    identity = started(hypervisor)
    hypervisor.pin_vcpu(identity, 0, CpuSet.of(1))
    hypervisor.pin_emulator(identity, CpuSet.of(0))
    xml = hypervisor.domain_xml(identity)
    assert "<vcpupin vcpu='0' cpuset='1'/>" in xml
    assert "<emulatorpin cpuset='0'/>" in xml


def test_io_threads_are_pinned_by_their_id(hypervisor: Hypervisor) -> None:
    identity = started(hypervisor, extra="<iothreadids><iothread id='3'/></iothreadids>")
    hypervisor.pin_io_thread(identity, 3, CpuSet.of(1))

    assert "<iothreadpin iothread='3' cpuset='1'/>" in hypervisor.domain_xml(identity)


def test_the_end_of_a_domain_is_told_with_its_reason(hypervisor: Hypervisor) -> None:
    woken = threading.Event()
    hypervisor.on_change(woken.set)
    identity = started(hypervisor)
    assert hypervisor.take_ends() == ()
    hypervisor.destroy(identity)
    ends = wait_for(hypervisor.take_ends, describe="the end is told")
    assert (DomainEnd(identity, ShutoffReason.DESTROYED),) == ends
    assert woken.is_set()


def test_a_second_domain_of_one_uuid_is_there_already(hypervisor: Hypervisor) -> None:
    identity = started(hypervisor)
    with pytest.raises(DomainExists):
        started(hypervisor, identity=identity)


def test_a_domain_of_somebody_elses_name_cannot_start(hypervisor: Hypervisor) -> None:
    started(hypervisor)
    with pytest.raises(StartFault, match="already exists with uuid"):
        started(hypervisor)


def test_calls_on_no_domain_say_that_it_is_missing(hypervisor: Hypervisor) -> None:
    calls = [
        lambda: hypervisor.destroy(NOT_A_DOMAIN),
        lambda: hypervisor.shutdown(NOT_A_DOMAIN),
        lambda: hypervisor.domain_xml(NOT_A_DOMAIN),
        lambda: hypervisor.pin_vcpu(NOT_A_DOMAIN, 0, CpuSet.of(0)),
        lambda: hypervisor.pin_emulator(NOT_A_DOMAIN, CpuSet.of(0)),
        lambda: hypervisor.pin_io_thread(NOT_A_DOMAIN, 1, CpuSet.of(0)),
        lambda: hypervisor.set_metadata(NOT_A_DOMAIN, "<vm/>"),
    ]
    for call in calls:
        with pytest.raises(DomainMissing):
            call()


@pytest.mark.parametrize(
    ("memory", "extra", "shortage"),
    [
        ("64", HUGE_PAGES, Shortage.HUGE_PAGES),
        (str(2**26), "", Shortage.MEMORY),
        ("32", "<cpu mode='custom'><model>nonesuch</model></cpu>", Shortage.UNSUPPORTED),
        ("32", "<cpu mode='host-passthrough'/>", Shortage.UNSUPPORTED),
        ("32", "<devices><emulator>/bin/false</emulator></devices>", Shortage.UNKNOWN),
    ],
    ids=["huge pages", "memory", "CPU model", "CPU mode", "no QEMU"],
)
def test_a_start_that_fails_says_what_was_short_and_leaves_nothing(
    hypervisor: Hypervisor, memory: str, extra: str, shortage: Shortage
) -> None:
    with pytest.raises(StartFault) as caught:
        started(hypervisor, memory=memory, extra=extra)
    assert shortage == caught.value.shortage, str(caught.value)
    assert hypervisor.list_domains() == ()


def listed(hypervisor: Hypervisor) -> list[str] | None:
    """Return the uuids of the domains; None while libvirtd does not answer."""
    try:
        return [seen.uuid for seen in hypervisor.list_domains()]
    except HypervisorUnavailable:
        return None


def test_a_lost_libvirtd_is_unavailable_and_then_there_again(
    libvirtd: PrivateLibvirt, hypervisor: Hypervisor
) -> None:
    identity = started(hypervisor)
    libvirtd.kill_libvirtd()
    with pytest.raises(HypervisorUnavailable):
        hypervisor.list_domains()
    libvirtd.start_libvirtd()
    wait_for(
        lambda: listed(hypervisor),
        until=lambda uuids: uuids == [identity],
        deadline_seconds=60,
        describe="libvirtd has taken the domain up again",
    )
    # Waits its turn until libvirtd is done with taking up: a domain destroyed before that ends without an event.
    hypervisor.pin_vcpu(identity, 0, CpuSet.of(0))
    hypervisor.destroy(identity)
    assert wait_for(hypervisor.take_ends, describe="events come over the new connection")
