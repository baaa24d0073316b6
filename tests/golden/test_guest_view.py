"""What a guest's kernel sees of the model: the witness guest boots on the command line that libvirt makes.

Only the host's side needs several NUMA nodes (`tests/e2e/test_numa_model.py`); the guest's does not.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from numavm_lab.guest import Report, parse_reports
from numavm_lab.guest.report import GuestAccess, GuestCache
from numavm_lab.guest.witness import witness_images
from support.domains import facts_of, rendered, spec_of
from support.embedded_libvirt import EmbeddedLibvirt
from support.wait import wait_for

pytestmark = pytest.mark.xdist_group("embedded-libvirt")

MEBIBYTE = 2**20
CELLS = [
    {
        "id": 0,
        "cpus": "0-1",
        "memory": "128Mi",
        "distances": [{"cell": 1, "value": 21}, {"cell": 2, "value": 31}],
    },
    {"id": 1, "cpus": "2-3", "memory": "64Mi"},
    {
        "id": 2,
        "memory": "96Mi",
        "caches": [{"level": 1, "policy": "Writethrough", "size": "64Mi", "lineBytes": 64}],
    },
]
LINKS = {
    "latencies": [
        {"initiator": 0, "target": 0, "type": "Read", "latencyNanoseconds": 80},
        {"initiator": 0, "target": 0, "type": "Write", "latencyNanoseconds": 90},
        {"initiator": 1, "target": 2, "type": "Read", "latencyNanoseconds": 200},
        {"initiator": 1, "target": 2, "type": "Write", "latencyNanoseconds": 300},
    ],
    "bandwidths": [
        {"initiator": 0, "target": 0, "type": "Read", "bytesPerSecond": "100Gi"},
        {"initiator": 0, "target": 0, "type": "Write", "bytesPerSecond": "50Gi"},
        {"initiator": 1, "target": 2, "type": "Read", "bytesPerSecond": "25Gi"},
        {"initiator": 1, "target": 2, "type": "Write", "bytesPerSecond": "10Gi"},
    ],
}


@pytest.fixture(scope="module")
def guest(libvirt: EmbeddedLibvirt, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    """The first report of a guest with three cells, of which one has no CPUs, and one vCPU that is off."""
    kernel, initrd = witness_images()
    boot = {"kernel": str(kernel), "initrd": str(initrd), "args": "console=ttyS0 quiet"}
    numa = {"cells": CELLS, "interconnects": LINKS}
    cpu = {"sockets": 2, "cores": 2, "vcpus": 3, "numa": numa}
    spec = spec_of({"cpu": cpu, "firmware": {"kernelBoot": boot}})
    logs = tmp_path_factory.mktemp("guest")
    domain = rendered(spec, facts_of(1, cpus=2, log_directory=str(logs)))
    xml = logs / "domain.xml"
    xml.write_text(domain.xml)
    libvirt.run("create", str(xml))
    try:
        yield wait_for(
            lambda: parse_reports(_console(domain.serial_log)),
            deadline_seconds=240,
            poll_seconds=1,
            describe="the guest's report on its serial console",
        )[0]
    finally:
        libvirt.run("destroy", domain.name)


def _console(path: str) -> str:
    return Path(path).read_text(errors="replace") if Path(path).exists() else ""


def test_cells_and_a_vcpu_that_is_off(guest: Report) -> None:
    assert {node.id: str(node.cpus) for node in guest.nodes} == {0: "0-1", 1: "2", 2: ""}
    assert (str(guest.online_cpus), str(guest.possible_cpus)) == ("0-2", "0-3")
    assert 0.5 * 96 * 1024 < guest.nodes[2].memory_kib <= 96 * 1024


def test_distances_mirrored_and_completed(guest: Report) -> None:
    assert [node.distances for node in guest.nodes] == [(10, 21, 31), (21, 10, 20), (31, 20, 10)]


def test_latencies_bandwidths_and_their_initiator(guest: Report) -> None:
    """The kernel's units: nanoseconds, and MiB a second."""
    far = GuestAccess(
        initiators=(1,),
        read_latency=200,
        write_latency=300,
        read_bandwidth=25 * 1024,
        write_bandwidth=10 * 1024,
    )

    assert guest.nodes[2].access == far
    near = guest.nodes[0].access
    assert near is not None
    assert (near.initiators, near.read_latency, near.write_bandwidth) == ((0,), 80, 50 * 1024)


def test_a_memory_side_cache(guest: Report) -> None:
    # indexing 0: direct mapped; write_policy 1: write-through.
    cache = GuestCache(level=1, size=64 * MEBIBYTE, line_size=64, indexing=0, write_policy=1)

    assert guest.nodes[2].caches == (cache,)
    assert guest.nodes[0].caches == guest.nodes[1].caches == ()
