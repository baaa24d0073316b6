"""The agent's own check of the host devices of a claim."""

import pytest

from numavm_agent.domain.foreign import host_devices
from numavm_agent.domain.model import Accelerator
from numavm_agent.reconcile.admission import Admitted, ClaimRequest, HostState, Refused, admit
from numavm_api.conditions import ClaimRefusalReason as Why
from numavm_api.cpuset import CpuSet
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import PlacedDevice
from support.agent_values import claim, held, spec
from support.device_values import ALONE, NIC, TWIN, asks_for, host_with, pci, with_device

KIND = {"selector": {"vendor": "8086", "device": "10d3"}}


@pytest.mark.parametrize(
    ("asked", "state"),
    [
        (asks_for(), host_with(pci())),
        (asks_for(source=KIND), host_with(pci())),
        (asks_for(), host_with(pci(), permitted={"address": NIC})),
        (asks_for(host_cell=-1), host_with(pci(cell=-1))),
    ],
)
def test_a_device_that_is_there_permitted_and_free_is_given(
    asked: ClaimRequest, state: HostState
) -> None:
    assert admit(asked, state) == Admitted(Accelerator.TCG)


def holder(address: str) -> list[PlacedDevice]:
    return [PlacedDevice(name="its", address=address, host_cell=0)]


def other_claim(address: str) -> HostState:
    taken = held(claim(dedicated_cpus=CpuSet(), cells=[], devices=holder(address)))
    return host_with(pci(), pci(TWIN), pci(ALONE, group=9), held=[taken])


REFUSALS = [
    ("missing", asks_for(), host_with(pci(ALONE)), Why.DEVICE_MISSING, NIC),
    (
        "forbidden",
        asks_for(),
        host_with(pci(), permitted={}),
        Why.NOT_PERMITTED,
        "permitted.pciDevices",
    ),
    (
        "another permitted",
        asks_for(),
        host_with(pci(), permitted={"address": ALONE}),
        Why.NOT_PERMITTED,
        "8086:10d3",
    ),
    ("held", asks_for(), other_claim(NIC), Why.DEVICE_TAKEN, f"{NIC} is held by ns/other"),
    (
        "neighbour held",
        asks_for(),
        other_claim(TWIN),
        Why.DEVICE_TAKEN,
        f"{TWIN} is held by ns/other",
    ),
    (
        "foreign",
        asks_for(),
        host_with(pci(), foreign_devices=frozenset({NIC})),
        Why.DEVICE_TAKEN,
        "did not start",
    ),
    ("no iommu", asks_for(), host_with(pci(group=None)), Why.UNSUPPORTED, "IOMMU"),
    ("not asked for", asks_for(TWIN), host_with(pci(TWIN)), Why.SPEC_CHANGED, "nic"),
    ("another cell", asks_for(host_cell=1), host_with(pci()), Why.UNKNOWN_CELL, "kernel says 0"),
    (
        "none claimed",
        ClaimRequest(spec=with_device(), placement=claim(with_device()), admitted_before=False),
        host_with(pci()),
        Why.SPEC_CHANGED,
        "['nic']",
    ),
]


@pytest.mark.parametrize(
    ("asked", "state", "reason", "says"),
    [row[1:] for row in REFUSALS],
    ids=[row[0] for row in REFUSALS],
)
def test_a_device_that_cannot_be_given_is_refused(
    asked: ClaimRequest, state: HostState, reason: Why, says: str
) -> None:
    found = admit(asked, state)

    assert isinstance(found, Refused)
    assert (found.reason, says in found.message) == (reason, True), found.message


def test_a_device_held_in_another_group_is_no_hindrance() -> None:
    assert admit(asks_for(), other_claim(ALONE)) == Admitted(Accelerator.TCG)


def test_devices_of_a_domain_that_numavm_did_not_start() -> None:
    xml = (
        "<domain><devices>"
        "<hostdev mode='subsystem' type='pci'><source>"
        "<address domain='0x0000' bus='0x65' slot='0x1f' function='0x1'/></source>"
        "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></hostdev>"
        "<hostdev mode='subsystem' type='usb'><source><address bus='1' device='2'/></source></hostdev>"
        "</devices></domain>"
    )

    assert host_devices(xml) == {"0000:65:1f.1"}


@pytest.mark.parametrize(
    ("version", "starts"), [("9.0.0", False), ("9.1.0", True), ("10.0.0", True)]
)
def test_virtio_pmem_is_refused_where_libvirt_cannot_start_it(
    version: str, *, starts: bool
) -> None:
    document = spec().to_api()
    document["domain"]["memory"] = {"maxGuest": "1Gi"}
    pmem = {"name": "p", "size": "64Mi", "virtioPmem": {"path": "/srv/p.img"}}
    document["domain"]["devices"] = {"memory": [pmem]}
    wanted = NumaVMSpec.model_validate(document)
    asked = ClaimRequest(spec=wanted, placement=claim(wanted), admitted_before=False)

    found = admit(asked, host_with(libvirt_version=version))

    assert isinstance(found, Admitted) == starts, found
    if isinstance(found, Refused):
        assert "memory[p] is virtioPmem, but libvirt here is 9.0.0" in found.message
