"""What libvirt makes of the NUMA model: distances, HMAT, memory-only cells, vCPUs at boot, CPU models, memory backing.

Each test is about one element, on host shapes of 1, 2, 3, 4 and 8 cells. Expectations come from the spec, QEMU's manual
page (`-numa`, `-object`, `-smp`) and the article that NumaVM began with.
"""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from numavm_agent.domain.model import Accelerator, CannotRender
from numavm_agent.domain.render import render
from numavm_agent.host.reader import LinuxHostReader
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import MemoryFigures
from support.domains import claim_for, facts_of, rendered, spec_of, vm_of
from support.embedded_libvirt import Argv, EmbeddedLibvirt
from support.libvirt_schema import schema_errors

SHAPES = [1, 2, 3, 4, 8]
MIB = 2**20
DEDICATED = {"dedicatedCpuPlacement": True}

pytestmark = pytest.mark.xdist_group("embedded-libvirt")


def cells(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": cell, "cpus": f"{2 * cell}-{2 * cell + 1}", "memory": "64Mi", **more}
        for cell in range(count)
    ]


def cpu_of(declared: list[dict[str, Any]], **numa: Any) -> dict[str, Any]:
    with_cpus = sum("cpus" in cell for cell in declared)
    return {"sockets": with_cpus, "cores": 2, "numa": {"cells": declared, **numa}}


def argv_of(
    libvirt: EmbeddedLibvirt,
    domain: dict[str, Any],
    *,
    host_cells: int = 2,
    cpus: int = 8,
    **facts: Any,
) -> Argv:
    made = rendered(spec_of(domain), facts_of(host_cells, cpus, **facts))
    assert schema_errors(made.xml) == []
    return libvirt.argv(made.xml)


def numa(argv: Argv, kind: str) -> list[str]:
    return [value for value in argv.values("-numa") if value.startswith(f"{kind},")]


@pytest.mark.parametrize("count", SHAPES[1:])
def test_one_direction_of_a_distance_is_mirrored_and_the_matrix_completed(
    libvirt: EmbeddedLibvirt, count: int
) -> None:
    declared = cells(count)
    declared[0]["distances"] = [{"cell": count - 1, "value": 31}]

    argv = argv_of(libvirt, {"cpu": cpu_of(declared)}, host_cells=count)

    far = {(0, count - 1), (count - 1, 0)}
    assert numa(argv, "dist") == [
        f"dist,src={a},dst={b},val={10 if a == b else 31 if (a, b) in far else 20}"
        for a in range(count)
        for b in range(count)
    ]


def test_two_directions_may_differ(libvirt: EmbeddedLibvirt) -> None:
    declared = cells(2)
    declared[0]["distances"] = [{"cell": 1, "value": 21}]
    declared[1]["distances"] = [{"cell": 0, "value": 255}]

    argv = argv_of(libvirt, {"cpu": cpu_of(declared)})

    assert numa(argv, "dist")[1:3] == ["dist,src=0,dst=1,val=21", "dist,src=1,dst=0,val=255"]


@pytest.mark.parametrize("count", SHAPES)
def test_distances_from_the_host_are_those_of_the_placement(
    libvirt: EmbeddedLibvirt, count: int
) -> None:
    """Guest cells in reverse order on the host's cells; a cell k away from another is 10 + 7k."""
    declared = cells(count)
    for cell in declared:
        cell["hostBinding"] = {"hostCells": str(count - 1 - cell["id"])}
    matrix = {a: {b: 10 + 7 * abs(a - b) for b in range(count)} for a in range(count)}

    argv = argv_of(
        libvirt,
        {"cpu": cpu_of(declared, distances="FromHost")},
        host_cells=count,
        distances=matrix,
    )

    expected = [
        f"dist,src={a},dst={b},val={10 + 7 * abs(a - b)}"
        for a in range(count)
        for b in range(count)
        if count > 1
    ]
    assert numa(argv, "dist") == expected


def test_guest_cells_on_one_host_cell_are_next_to_each_other(libvirt: EmbeddedLibvirt) -> None:
    """Libvirt takes 10 for a cell's distance to itself only."""
    argv = argv_of(
        libvirt,
        {"cpu": cpu_of(cells(2), distances="FromHost")},
        host_cells=1,
        distances={0: {0: 10}},
    )

    assert numa(argv, "dist")[1] == "dist,src=0,dst=1,val=11"


HMAT_CELLS = [
    {"id": 0, "cpus": "0-1", "memory": "64Mi"},
    {
        "id": 1,
        "memory": "64Mi",
        "caches": [
            {
                "level": 2,
                "associativity": "Full",
                "policy": "None",
                "size": "64Ki",
                "lineBytes": 128,
            },
            {"level": 1, "policy": "Writethrough", "size": "8Ki", "lineBytes": 64},
        ],
    },
]
HMAT_LINKS = {
    "latencies": [
        {"initiator": 0, "target": 1, "type": "Write", "latencyNanoseconds": 200},
        {"initiator": 0, "target": 1, "cacheLevel": 1, "type": "Access", "latencyNanoseconds": 20},
        {"initiator": 0, "target": 0, "type": "Read", "latencyNanoseconds": 80},
    ],
    "bandwidths": [
        {"initiator": 0, "target": 1, "cacheLevel": 2, "type": "Access", "bytesPerSecond": "100Gi"}
    ],
}


@pytest.mark.parametrize("host_cells", SHAPES)
def test_hmat(libvirt: EmbeddedLibvirt, host_cells: int) -> None:
    cpu = cpu_of(HMAT_CELLS, interconnects=HMAT_LINKS)

    argv = argv_of(libvirt, {"cpu": cpu}, host_cells=host_cells)

    assert "hmat=on" in argv.value("-machine")
    assert numa(argv, "node") == [
        "node,nodeid=0,cpus=0-1,initiator=0,memdev=ram-node0",
        "node,nodeid=1,initiator=0,memdev=ram-node1",
    ]
    lb = "hmat-lb,initiator=0"
    assert numa(argv, "hmat-lb") == [
        f"{lb},target=0,hierarchy=memory,data-type=read-latency,latency=80",
        f"{lb},target=1,hierarchy=memory,data-type=write-latency,latency=200",
        f"{lb},target=1,hierarchy=first-level,data-type=access-latency,latency=20",
        f"{lb},target=1,hierarchy=second-level,data-type=access-bandwidth,bandwidth={100 * MIB}K",
    ]
    assert numa(argv, "hmat-cache") == [
        "hmat-cache,node-id=1,size=8K,level=1,associativity=direct,policy=write-through,line=64",
        "hmat-cache,node-id=1,size=64K,level=2,associativity=complex,policy=none,line=128",
    ]


def test_qemu_takes_the_hmat(
    libvirt: EmbeddedLibvirt, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """QEMU checks what libvirt passes on: order of caches, figures that caches need, the table's 16 bits."""
    logs = str(tmp_path_factory.mktemp("hmat"))
    spec = spec_of({"cpu": cpu_of(HMAT_CELLS, interconnects=HMAT_LINKS)})
    domain = rendered(spec, facts_of(1, cpus=2, log_directory=logs))

    live = libvirt.start_paused_and_destroy(domain.xml, domain.name)

    assert "<interconnects>" in live


@pytest.mark.parametrize("count", SHAPES[1:])
def test_a_memory_only_cell_among_others(libvirt: EmbeddedLibvirt, count: int) -> None:
    declared = [*cells(count - 1), {"id": count - 1, "memory": "128Mi"}]

    argv = argv_of(libvirt, {"cpu": {**cpu_of(declared), **DEDICATED}}, host_cells=count)

    assert numa(argv, "node")[-1] == f"node,nodeid={count - 1},memdev=ram-node{count - 1}"
    backend = argv.objects("memory-backend")[f"ram-node{count - 1}"]
    assert (backend["size"], backend["host-nodes"]) == (128 * MIB, [count - 1])


@pytest.mark.parametrize(
    ("binding", "allocation", "refused"),
    [
        ({"hostCells": "1", "mode": "Strict"}, "Immediate", True),
        ({"hostCells": "1", "mode": "Strict"}, "OnDemand", False),
        ({"hostCells": "0-1", "mode": "Interleave"}, "Immediate", False),
    ],
)
def test_pages_of_a_host_cell_without_cpus_cannot_be_taken_at_start(
    binding: dict[str, str], allocation: str, *, refused: bool
) -> None:
    """QEMU does not start: "The nodes select no CPUs"."""
    declared = [*cells(1), {"id": 1, "memory": "64Mi", "hostBinding": binding}]
    declared[0]["hostBinding"] = {"hostCells": "0"}
    domain = {"cpu": cpu_of(declared), "memory": {"backing": {"allocation": allocation}}}
    memory_only = {0: CpuSet.parse("0-7"), 1: CpuSet()}
    host = replace(facts_of(1), cells=memory_only)

    if refused:
        with pytest.raises(CannotRender, match="which have no CPUs to take its pages"):
            rendered(spec_of(domain), host)
    else:
        assert schema_errors(rendered(spec_of(domain), host).xml) == []


def test_a_cells_access_goes_before_the_whole_guests(libvirt: EmbeddedLibvirt) -> None:
    declared = cells(3)
    declared[0] |= {"access": "Private", "hugepages": {"pageSize": "2Mi"}}
    domain = {"cpu": cpu_of(declared), "memory": {"backing": {"access": "Shared"}}}

    backends = argv_of(libvirt, domain, host_cells=3).objects("memory-backend-memfd")

    assert {name: one["share"] for name, one in backends.items()} == {
        "ram-node0": False,
        "ram-node1": True,
        "ram-node2": True,
    }


def test_one_shared_cell_makes_all_of_memfd(libvirt: EmbeddedLibvirt) -> None:
    declared = cells(2)
    declared[1]["access"] = "Shared"

    backends = argv_of(libvirt, {"cpu": cpu_of(declared)}).objects("memory-backend")

    assert {one["qom-type"] for one in backends.values()} == {"memory-backend-memfd"}
    # A private mapping of a memfd takes each base page twice: file and copy.
    assert [one.get("share") for one in backends.values()] == [True, True]


def test_base_pages_of_a_memfd_are_taken_once(
    libvirt: EmbeddedLibvirt, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The kernel's word: what QEMU maps of the memfd is the file itself, with no anonymous copy beside it."""
    logs = str(tmp_path_factory.mktemp("memfd"))
    spec = spec_of({"memory": {"guest": "64Mi", "backing": {"source": "Memfd"}}})
    facts = facts_of(1, cpus=2, log_directory=logs)
    # A uuid of its own: a process is found by it, and other tests start domains too.
    vm = replace(vm_of(spec), uid=str(uuid.uuid4()))
    domain = render(vm, claim_for(vm.effective, facts), facts)
    xml = tmp_path_factory.mktemp("xml") / "domain.xml"
    xml.write_text(domain.xml)
    libvirt.run("create", "--paused", str(xml))
    try:
        pid = LinuxHostReader().qemu_pid(domain.name, domain.uuid)
        assert pid is not None
        numa_maps = Path(f"/proc/{pid}/numa_maps").read_text()
    finally:
        libvirt.run("destroy", domain.name)

    (line,) = [line for line in numa_maps.splitlines() if "memfd:memory-backend-memfd" in line]
    assert "N0=16384" in line
    assert "anon=" not in line


def test_a_file_per_cell_whose_content_may_go(libvirt: EmbeddedLibvirt) -> None:
    declared = cells(2)
    declared[1]["discard"] = "Enabled"
    domain = {"cpu": cpu_of(declared), "memory": {"backing": {"source": "File"}}}

    backends = argv_of(libvirt, domain).objects("memory-backend-file")

    assert [one["share"] for one in backends.values()] == [False, False]
    assert [one.get("discard-data") for one in backends.values()] == [None, True]
    assert [one["mem-path"].rsplit("/", 1)[-1] for one in backends.values()] == list(backends)


def test_a_file_for_the_whole_guest_whose_content_may_go(libvirt: EmbeddedLibvirt) -> None:
    backing = {"source": "File", "discard": "Enabled"}

    (backend,) = (
        argv_of(libvirt, {"memory": {"backing": backing}}).objects("memory-backend-file").values()
    )

    assert backend["discard-data"] is True


@pytest.mark.parametrize(
    ("backing", "flag", "expected"),
    [
        ({}, "-machine", "mem-merge=off"),
        ({"coreDump": "Disabled"}, "-machine", "dump-guest-core=off"),
        ({"locked": True}, "-overcommit", "mem-lock=on"),
    ],
)
def test_what_the_kernel_may_do_to_memory(
    libvirt: EmbeddedLibvirt, backing: dict[str, Any], flag: str, expected: str
) -> None:
    argv = argv_of(libvirt, {"memory": {"backing": backing}})

    assert expected in argv.value(flag).split(",")


def test_merging_is_asked_for(libvirt: EmbeddedLibvirt) -> None:
    argv = argv_of(libvirt, {"memory": {"backing": {"samePageMerging": "Enabled"}}})

    assert "mem-merge" not in argv.value("-machine")  # on by itself
    assert argv.value("-overcommit") == "mem-lock=off"


@pytest.mark.parametrize(("threads", "expected"), [(None, 1), (3, 3)])
def test_allocation_threads(libvirt: EmbeddedLibvirt, threads: int | None, expected: int) -> None:
    backing = {} if threads is None else {"allocationThreads": threads}

    argv = argv_of(libvirt, {"memory": {"backing": backing}})

    assert argv.objects("memory-backend")["ram-node0"].get("prealloc-threads", 1) == expected


def test_a_page_size_that_the_placement_fell_back_to(libvirt: EmbeddedLibvirt) -> None:
    declared = cells(2, hugepages={"pageSize": "2Mi", "fallback": ["4Ki"]})
    vm = vm_of(spec_of({"cpu": cpu_of(declared)}))
    host = facts_of(2)
    claim = claim_for(vm.effective, host)
    fallen = claim.cells[1].model_copy(update={"page_size": 4096})
    claim = claim.model_copy(update={"cells": [claim.cells[0], fallen]})

    backends = libvirt.argv(render(vm, claim, host).xml).objects("memory-backend-memfd")

    assert [one.get("hugetlbsize") for one in backends.values()] == [2 * MIB, None]


def test_sockets_that_are_off(libvirt: EmbeddedLibvirt) -> None:
    declared = [
        {"id": 0, "cpus": "0-1,4-5", "memory": "64Mi"},
        {"id": 1, "cpus": "2-3,6-7", "memory": "64Mi"},
    ]
    cpu = {"sockets": 2, "maxSockets": 4, "cores": 2, "numa": {"cells": declared}}

    argv = argv_of(libvirt, {"cpu": cpu})

    assert argv.value("-smp") == "4,maxcpus=8,sockets=4,dies=1,cores=2,threads=1"
    assert [value for part in numa(argv, "node") for value in part.split(",") if "cpus" in value]
    assert "node,nodeid=0,cpus=0-1,cpus=4-5,memdev=ram-node0" in numa(argv, "node")


def test_vcpus_named_one_by_one(libvirt: EmbeddedLibvirt) -> None:
    """QEMU boots with the leading run; libvirt plugs the rest before the guest runs."""
    cpu = {**cpu_of(cells(2)), "onlineVcpus": "0,2-3"}
    domain = rendered(spec_of({"cpu": cpu}), facts_of(2))

    assert (
        libvirt.argv(domain.xml).value("-smp") == "1,maxcpus=4,sockets=2,dies=1,cores=2,threads=1"
    )
    assert '<vcpu placement="static" current="3">4</vcpu>' in domain.xml
    assert schema_errors(domain.xml) == []


def test_dies(libvirt: EmbeddedLibvirt) -> None:
    cpu = {"sockets": 1, "dies": 2, "cores": 2, "threads": 2, "maxSockets": 3}

    argv = argv_of(libvirt, {"cpu": cpu}, cpus=32)

    assert argv.value("-smp") == "8,maxcpus=24,sockets=3,dies=2,cores=2,threads=2"


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ({"cache": {"level": 3, "mode": "emulate"}}, "l3-cache=on"),
        ({"cache": {"mode": "passthrough"}}, "host-cache-info=on"),
        ({"cache": {"mode": "disable"}}, "l3-cache=off"),
        ({"features": [{"name": "avx2", "policy": "disable"}]}, "avx2=off"),
        ({"features": [{"name": "avx2", "policy": "force"}]}, "avx2=on"),
        ({"model": "qemu64", "features": [{"name": "avx2"}]}, "avx2=on"),
    ],
)
def test_caches_and_features(libvirt: EmbeddedLibvirt, cpu: dict[str, Any], expected: str) -> None:
    assert expected in argv_of(libvirt, {"cpu": cpu}).value("-cpu").split(",")


def test_the_articles_notation_of_host_cpus() -> None:
    """Its `<vcpu cpuset="1-4,^3,6">` with a `<vcpupin>` that goes before it."""
    pinning = {"cpuset": "1-4,^3,6", "vcpus": [{"vcpu": 1, "cpuset": "1-4,^2"}], "emulator": "0"}
    spec = spec_of({"cpu": {"cores": 2, "pinning": pinning}})

    xml = rendered(spec, facts_of(1)).xml

    assert '<vcpupin vcpu="0" cpuset="1-2,4,6"/>' in xml
    assert '<vcpupin vcpu="1" cpuset="1,3-4"/>' in xml
    assert schema_errors(xml) == []


def test_pins_outside_the_shared_cpus_of_the_cell_are_refused() -> None:
    spec = spec_of({"cpu": {"cores": 1, "pinning": {"cpuset": "8-15"}}})

    with pytest.raises(CannotRender, match=r"pinning gives vCPU 0 the CPUs 8-15, but the shared"):
        rendered(spec, facts_of(2))


def test_io_threads_by_hand_and_the_others_beside_the_emulator(libvirt: EmbeddedLibvirt) -> None:
    pinning = {"emulator": "0-1", "ioThreads": [{"id": 2, "cpuset": "2-4,^3"}]}
    domain = {"cpu": {"cores": 2, "pinning": pinning}, "ioThreads": {"count": 2}}
    xml = rendered(spec_of(domain), facts_of(1)).xml

    assert '<iothreadpin iothread="1" cpuset="0-1"/>' in xml
    assert '<iothreadpin iothread="2" cpuset="2,4"/>' in xml
    assert [one["id"] for one in libvirt.argv(xml).objects("iothread").values()] == [
        "iothread1",
        "iothread2",
    ]


def test_a_candidate_for_a_dedicated_cpu() -> None:
    cpu = {"cores": 2, **DEDICATED, "pinning": {"vcpus": [{"vcpu": 0, "cpuset": "5-6"}]}}

    xml = rendered(spec_of({"cpu": cpu}), facts_of(1)).xml

    assert '<vcpupin vcpu="0" cpuset="5"/>' in xml
    assert '<vcpupin vcpu="1" cpuset="1"/>' in xml


def test_realtime_vcpus(libvirt: EmbeddedLibvirt) -> None:
    cpu = {"cores": 4, **DEDICATED, "realtime": {"mask": "2-3", "priority": 5}}
    domain = rendered(spec_of({"cpu": cpu}), facts_of(1))

    argv = libvirt.argv(domain.xml)

    assert '<vcpusched vcpus="2-3" scheduler="fifo" priority="5"/>' in domain.xml
    assert argv.value("-overcommit") == "mem-lock=on"
    assert "mem-merge=off" in argv.value("-machine")


def test_weight_and_quota() -> None:
    tuning = {"shares": 2048, "periodMicroseconds": 100000, "quotaMicroseconds": 50000}

    xml = rendered(spec_of({"cpu": {"tuning": tuning}}), facts_of(1)).xml

    assert [
        f"<{tag}>{value}</{tag}>" in xml
        for tag, value in (("shares", 2048), ("period", 100000), ("quota", 50000))
    ] == [True] * 3
    assert schema_errors(xml) == []


@pytest.mark.parametrize("count", SHAPES)
def test_derived_cells_mirror_the_host_cells(libvirt: EmbeddedLibvirt, count: int) -> None:
    matrix = {a: {b: 10 + 5 * abs(a - b) for b in range(count)} for a in range(count)}
    cpu = {"cores": 2 * count, **DEDICATED, "numa": {"guestMappingPassthrough": {}}}
    domain = {"cpu": cpu, "memory": {"guest": f"{64 * count}Mi"}}

    argv = argv_of(libvirt, domain, host_cells=count, distances=matrix)

    backends = argv.objects("memory-backend")
    assert {name: one["host-nodes"] for name, one in backends.items()} == {
        f"ram-node{cell}": [cell] for cell in range(count)
    }
    assert {one["size"] for one in backends.values()} == {64 * MIB}
    assert len(numa(argv, "dist")) == (count * count if count > 1 else 0)
    if count > 1:
        assert numa(argv, "dist")[1] == "dist,src=0,dst=1,val=15"


def test_derived_cells_have_the_figures_of_their_host_cells(libvirt: EmbeddedLibvirt) -> None:
    figures = {
        cell: MemoryFigures.model_validate(
            {
                "initiators": str(cell),
                "readLatencyNanoseconds": 80 + cell,
                "writeLatencyNanoseconds": 90,
                "readBytesPerSecond": "100Gi",
                "writeBytesPerSecond": "50Gi",
                "caches": [{"level": 1, "size": "16Mi", "lineBytes": 64}],
            }
        )
        for cell in range(2)
    }
    cpu = {"cores": 4, "numa": {"guestMappingPassthrough": {"cells": 2}}}
    domain = {"cpu": cpu, "memory": {"guest": "128Mi"}}

    argv = argv_of(libvirt, domain, figures=figures)

    read = "hierarchy=memory,data-type=read-latency"
    assert [one for one in numa(argv, "hmat-lb") if "read-latency" in one] == [
        f"hmat-lb,initiator=0,target=0,{read},latency=80",
        f"hmat-lb,initiator=1,target=1,{read},latency=81",
    ]
    assert len(numa(argv, "hmat-cache")) == 2


@pytest.mark.parametrize("mode", ["Strict", "Preferred", "Interleave", "Restrictive"])
@pytest.mark.parametrize("nodeset", ["0", "1", "0-1", "0-3,^1"])
def test_every_mode_for_the_whole_guest(libvirt: EmbeddedLibvirt, mode: str, nodeset: str) -> None:
    binding = {"mode": mode, "hostCells": nodeset}
    cpu = cpu_of(cells(2), hostBinding=binding)

    backends = argv_of(libvirt, {"cpu": cpu}, host_cells=4).objects("memory-backend")

    policy = {"Strict": "bind", "Preferred": "preferred", "Interleave": "interleave"}.get(mode)
    nodes = list(CpuSet.parse(nodeset)) if policy else None
    assert [(one.get("policy"), one.get("host-nodes")) for one in backends.values()] == [
        (policy, nodes)
    ] * 2


def test_512_vcpus_are_rendered_with_an_iommu() -> None:
    cpu = {"sockets": 16, "cores": 32}

    xml = rendered(spec_of({"cpu": cpu}), facts_of(1, accelerator=Accelerator.KVM)).xml

    assert '<vcpu placement="static">512</vcpu>' in xml
    assert '<driver intremap="on" eim="on"/>' in xml
    assert schema_errors(xml) == []


def test_the_order_in_a_spec_changes_nothing() -> None:
    declared = cells(2)
    declared[0]["distances"] = [{"cell": 1, "value": 21}, {"cell": 0, "value": 10}]
    features = [{"name": "avx2"}, {"name": "x2apic"}]
    pins = [{"vcpu": 0, "cpuset": "1"}, {"vcpu": 1, "cpuset": "2"}]
    hmat = [*HMAT_LINKS["latencies"][2:], {**HMAT_LINKS["latencies"][2], "type": "Write"}]

    def body(step: int) -> str:
        numa_ = {
            "cells": [
                {**cell, "distances": cell.get("distances", [])[::step]} for cell in declared
            ][::step],
            "interconnects": {"latencies": hmat[::step]},
        }
        cpu = {
            "sockets": 2,
            "cores": 2,
            "features": features[::step],
            "pinning": {"vcpus": pins[::step]},
            "numa": numa_,
        }
        xml = rendered(spec_of({"cpu": cpu}), facts_of(2)).xml
        return xml[xml.index("</metadata>") :]

    assert body(1) == body(-1)
