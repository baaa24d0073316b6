"""What `numavm doctor` makes of a machine's facts and of a NumaHost."""

from dataclasses import replace

import pytest

from numavm_agent.topology.readings import CellReading, MemoryReading, PagePool
from numavm_api.quantity import GIBIBYTE, MEBIBYTE, Bytes
from numavm_cli.views.doctor import (
    Finding,
    Level,
    MachineFacts,
    host_findings,
    machine_findings,
    worst,
)
from support.fleet_objects import host_a


def cell(number: int, pages: int) -> CellReading:
    size = Bytes(GIBIBYTE)
    return CellReading(
        id=number,
        cpus=(),
        memory=MemoryReading(total=size, free=size, reclaimable=Bytes(0)),
        page_pools=(PagePool(Bytes(2 * MEBIBYTE), pages, pages),),
        distances=(),
    )


GOOD = MachineFacts(
    cells=(cell(0, 8), cell(1, 0)),
    kvm=True,
    kvm_message="guest code ran",
    libvirt="9.0.0",
    qemu="7.2.22",
    hypervisor_message="",
    cgroup_controllers=frozenset({"cpuset", "memory", "hugetlb"}),
    iommu_groups=12,
    swap=False,
    ksm_across_cells=False,
    numa_balancing=False,
    kubelet=False,
)


def of(findings: list[Finding], check: str) -> Finding:
    return next(one for one in findings if one.check == check)


def test_a_good_machine_lacks_nothing() -> None:
    assert worst(machine_findings(GOOD)) is Level.OK


@pytest.mark.parametrize(
    ("change", "check", "level"),
    [
        ({"kvm": False, "kvm_message": "no"}, "KVM", Level.PROBLEM),
        ({"kvm": None}, "KVM", Level.NOTE),
        ({"libvirt": None, "hypervisor_message": "no socket"}, "libvirt", Level.PROBLEM),
        ({"libvirt": "8.10.0"}, "libvirt", Level.NOTE),
        ({"libvirt": "10.0.0"}, "libvirt", Level.OK),
        ({"qemu": "6.9.0"}, "QEMU", Level.NOTE),
        ({"cgroup_controllers": None}, "cgroup v2", Level.NOTE),
        ({"cgroup_controllers": frozenset({"memory"})}, "cgroup v2", Level.NOTE),
        ({"cells": (cell(0, 0),)}, "NUMA", Level.NOTE),
        ({"cells": (cell(0, 0), cell(1, 0))}, "huge pages", Level.NOTE),
        ({"iommu_groups": 0}, "IOMMU", Level.NOTE),
        ({"swap": True}, "swap", Level.NOTE),
        ({"ksm_across_cells": True}, "samepage merging", Level.NOTE),
        ({"numa_balancing": True}, "NUMA balancing", Level.NOTE),
        ({"kubelet": True}, "kubelet", Level.NOTE),
    ],
)
def test_what_is_missing_is_said_with_its_remedy(
    change: dict[str, object], check: str, level: Level
) -> None:
    found = of(machine_findings(replace(GOOD, **change)), check)

    assert found.level is level
    assert found.remedy or level is Level.OK or found.message == "not probed"


def test_a_host_is_judged_by_its_agents_report() -> None:
    findings = host_findings(host_a())

    assert of(findings, "condition Ready").level is Level.OK
    assert of(findings, "KVM").level is Level.NOTE  # the administrator allows emulation
    assert of(findings, "directories").level is Level.NOTE


def test_a_host_without_kvm_or_emulation_is_a_problem() -> None:
    host = host_a()
    host["status"]["capabilities"]["emulationAllowed"] = False

    assert worst(host_findings(host)) is Level.PROBLEM


def test_a_host_that_never_reported_says_where_to_look() -> None:
    findings = host_findings({"metadata": {"name": "h"}})

    assert [one.level for one in findings] == [Level.PROBLEM]
    assert "log of the agent" in findings[0].remedy
