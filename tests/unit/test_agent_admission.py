"""The agent's own check of a claim: each rule, with a host that breaks exactly it."""

from typing import Any

import pytest

from numavm_agent.domain.model import Accelerator
from numavm_agent.reconcile.admission import (
    Admitted,
    ClaimRequest,
    HostState,
    NotYet,
    Refused,
    admit,
)
from numavm_api.conditions import ClaimRefusalReason as Why
from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.hmat import HostCellClass
from numavm_api.numahost import NumaHostSpec
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import PlacedCell, Placement
from numavm_api.pools import OtherUsers
from numavm_api.quantity import GIBIBYTE, MEBIBYTE, Bytes
from support.agent_values import cells, claim, held, host, shared_claim, shared_spec, spec
from support.device_values import NIC, asks_for, host_with, pci


def request(placement: Placement | None = None, **changes: Any) -> ClaimRequest:
    fields = {"spec": spec(), "placement": placement or claim(), "admitted_before": False}
    return ClaimRequest(**{**fields, **changes})


def changed_cell(**update: Any) -> Placement:
    first, second = claim().cells
    return claim(cells=[first.model_copy(update=update), second])


def swapped(cell: PlacedCell) -> PlacedCell:
    return cell.model_copy(update={"pcpus": [CpuSet.of(3 - 2 * cell.id)]})


def test_a_claim_that_fits_is_admitted() -> None:
    assert Admitted(Accelerator.TCG) == admit(request(), host())


def test_a_shared_claim_that_fits_is_admitted() -> None:
    found = admit(request(shared_claim(), spec=shared_spec()), host())
    assert Admitted(Accelerator.TCG) == found


REFUSALS: list[tuple[str, ClaimRequest, HostState, Why, str]] = [
    ("stale", request(), host(highest_epoch=2), Why.STALE_EPOCH, "epoch is 1"),
    ("hash", request(claim(request_hash="x")), host(), Why.SPEC_CHANGED, "requestHash is x"),
    (
        "another memory",
        request(changed_cell(memory=Bytes(128 * MEBIBYTE))),
        host(),
        Why.SPEC_CHANGED,
        "placement.cells[0].memory is 128Mi, but the spec says 64Mi",
    ),
    (
        "another page size",
        request(changed_cell(page_size=Bytes(GIBIBYTE))),
        host(),
        Why.SPEC_CHANGED,
        "pageSize is 1Gi",
    ),
    (
        "other vCPUs",
        request(changed_cell(vcpus=CpuSet.of(1))),
        host(),
        Why.SPEC_CHANGED,
        "placement.cells[0].vcpus is 1, but the spec says 0",
    ),
    ("a cell short", request(claim(cells=claim().cells[:1])), host(), Why.SPEC_CHANGED, "[0]"),
    ("no pCPU", request(changed_cell(pcpus=[])), host(), Why.SPEC_CHANGED, "pcpus is 0"),
    (
        "shared instead",
        request(shared_claim().model_copy(update={"request_hash": claim().request_hash})),
        host(),
        Why.SPEC_CHANGED,
        "cpuPlacement is Shared",
    ),
    (
        "unknown cell",
        request(changed_cell(host_cells=CpuSet.of(0, 9))),
        host(),
        Why.UNKNOWN_CELL,
        "host has the cells 0-1",
    ),
    (
        "overhead on an unknown cell",
        request(claim(overhead_cell=9)),
        host(),
        Why.UNKNOWN_CELL,
        "host cell 9",
    ),
    ("path", request(path_problems=("no",)), host(), Why.NOT_PERMITTED, "no"),
    (
        "several preferred cells",
        request(changed_cell(mode=BindingMode.PREFERRED, host_cells=CpuSet.of(0, 1))),
        host(qemu_version="7.2.22"),
        Why.UNSUPPORTED,
        "prefers the first of them only",
    ),
    ("vCPUs", request(), host(max_vcpus=1), Why.UNSUPPORTED, "takes at most 1"),
    (
        "held by another",
        request(),
        host(held=[held(claim(id="theirs"))]),
        Why.CPU_TAKEN,
        "CPU 1,3 is held by ns/other (claim theirs)",
    ),
    (
        "held by an orphan",
        request(),
        host(held=[held(claim(dedicated_cpus=CpuSet.of(3)), orphan=True)]),
        Why.CPU_TAKEN,
        "CPU 3 is held by",
    ),
    (
        "foreign",
        request(),
        host(others=OtherUsers(domain_cpus=CpuSet.of(3))),
        Why.CPU_TAKEN,
        "CPU 3 is held by a domain that NumaVM did not start",
    ),
    (
        "pool moved away",
        request(),
        host(spec=NumaHostSpec(dedicated_cpus=CpuSet.of(0, 1, 2))),
        Why.CPU_NOT_IN_POOL,
        "CPU 3 is not in this host's dedicated pool '0-2'",
    ),
    (
        "kubelet took over",
        request(),
        host(others=OtherUsers(kubelet_runs=True)),
        Why.CPU_NOT_IN_POOL,
        "CPU 1,3 is not in",
    ),
    (
        "one CPU twice",
        request(changed_cell(pcpus=[CpuSet.of(3)])),
        host(),
        Why.CPU_TAKEN,
        "gives CPU 3 to two threads",
    ),
    (
        "given but not held",
        request(claim(dedicated_cpus=CpuSet.of(1))),
        host(),
        Why.CPU_NOT_IN_POOL,
        "gives CPU 3, but dedicatedCpus '1' does not hold it",
    ),
    (
        "CPU of another cell",
        request(claim(cells=[swapped(cell) for cell in claim().cells])),
        host(),
        Why.CPU_NOT_IN_POOL,
        "placement.cells[0].pcpus has CPU 3",
    ),
    (
        "no shared CPU",
        request(shared_claim(), spec=shared_spec()),
        host(held=[held(claim())]),
        Why.CPU_NOT_IN_POOL,
        "no shared CPU is left on host cells 0",
    ),
    (
        "takes the last shared CPU",
        request(),
        host(held=[held(shared_claim())]),
        Why.CPU_TAKEN,
        "would take the last shared CPU of host cells 0 from ns/other",
    ),
    (
        "no page of that size",
        request(),
        host(cells=[cell.model_copy(update={"hugepages": []}) for cell in cells()]),
        Why.HUGE_PAGES_TAKEN,
        "has no pages of that size",
    ),
    (
        "pages held",
        request(),
        host(cells=cells(pages=40), held=[held(claim(dedicated_cpus=CpuSet()))]),
        Why.HUGE_PAGES_TAKEN,
        "32 pages of 2Mi on host cell 0, but of its 40 for VMs 32 are held",
    ),
    (
        "pages taken behind its back",
        request(),
        host(cells=cells(free=31)),
        Why.HUGE_PAGES_TAKEN,
        "wants 32 pages of 2Mi on host cell 0, but the kernel shows 31 free of 64",
    ),
    (
        "memory",
        request(claim(overhead=Bytes(513 * MEBIBYTE))),
        host(),
        Why.MEMORY_TAKEN,
        "wants 513Mi of host cell 0, but of its 512Mi for VMs 0 is held",
    ),
    ("device missing", asks_for(), host_with(), Why.DEVICE_MISSING, "no such PCI device"),
    (
        "device taken",
        asks_for(),
        host_with(pci(), foreign_devices=frozenset({NIC})),
        Why.DEVICE_TAKEN,
        "did not start",
    ),
    ("no emulation", request(), host(emulation_allowed=False), Why.UNSUPPORTED, "allowEmulation"),
]


@pytest.mark.parametrize(
    ("asked", "state", "reason", "says"),
    [row[1:] for row in REFUSALS],
    ids=[row[0] for row in REFUSALS],
)
def test_a_rule_that_is_broken_speaks(
    asked: ClaimRequest, state: HostState, reason: Why, says: str
) -> None:
    found = admit(asked, state)
    assert isinstance(found, Refused)
    assert reason == found.reason
    assert says in found.message


def test_every_reason_but_a_failed_start_is_a_rules() -> None:
    assert set(Why) - {Why.START_FAILED} == {row[3] for row in REFUSALS}


def test_a_claim_that_ran_here_before_is_never_stale() -> None:
    found = admit(request(admitted_before=True), host(highest_epoch=9))
    assert Admitted(Accelerator.TCG) == found


def test_pages_that_a_start_under_way_may_take_are_waited_for() -> None:
    other = claim(dedicated_cpus=CpuSet())
    state = host(cells=cells(free=40), held=[held(other)], starting=[other])
    assert isinstance(admit(request(), state), NotYet)


@pytest.mark.parametrize(
    ("wanted", "can", "expected"),
    [
        ("Auto", "KVM", Accelerator.KVM),
        ("Auto", "both", Accelerator.KVM),
        ("Auto", "TCG", Accelerator.TCG),
        ("Auto", "neither", None),
        ("KVM", "KVM", Accelerator.KVM),
        ("KVM", "both", Accelerator.KVM),
        ("KVM", "TCG", None),
        ("KVM", "neither", None),
        ("TCG", "both", Accelerator.TCG),
        ("TCG", "TCG", Accelerator.TCG),
        ("TCG", "KVM", None),
        ("TCG", "neither", None),
    ],
)
def test_who_runs_guest_code(wanted: str, can: str, expected: Accelerator | None) -> None:
    document = spec().to_api()
    document["domain"]["type"] = wanted
    asked = NumaVMSpec.model_validate(document)
    state = host(kvm=can in ("KVM", "both"), emulation_allowed=can in ("TCG", "both"))
    found = admit(request(claim(asked), spec=asked), state)
    if expected is None:
        assert isinstance(found, Refused)
        assert found.reason == Why.UNSUPPORTED
    else:
        assert Admitted(expected) == found


def test_isolated_siblings_are_held_though_no_thread_runs_there() -> None:
    greedy = claim(dedicated_cpus=CpuSet.of(1, 3), cells=_only_first())
    found = admit(request(), host(held=[held(greedy)]))
    assert isinstance(found, Refused)
    assert found.reason == Why.CPU_TAKEN


def _only_first() -> list[PlacedCell]:
    return [cell.model_copy(update={"pcpus": [CpuSet.of(1)]}) for cell in claim().cells[:1]]


def test_a_host_cell_of_another_class_than_the_spec_wants_is_refused() -> None:
    document = spec().model_dump(mode="json", by_alias=True, exclude_none=True)
    document["domain"]["cpu"]["numa"]["cells"][0]["hostCellClass"] = "DRAM"
    wanted = NumaVMSpec.model_validate(document)
    dram = [cell.model_copy(update={"memory_class": HostCellClass.DRAM}) for cell in cells()]
    asked = request(claim(wanted), spec=wanted)

    found = admit(asked, host())
    assert isinstance(found, Refused)
    assert (found.reason, "host cell 0 is of class unknown" in found.message) == (
        Why.UNKNOWN_CELL,
        True,
    )
    assert admit(asked, host(cells=dram)) == Admitted(Accelerator.TCG)
