"""The article that NumaVM began with: each of its examples as a shipped manifest, with the article's own arguments.

Where today's QEMU or libvirt spells one differently, a comment says so. Forms in which the article relies on libvirt to
fill in silently are shown refused.
"""

from typing import Any

import pytest
from lxml import etree

from numavm_agent.domain.model import HostFacts
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import EffectivePools
from numavm_api.numavm import NumaVMSpec
from numavm_api.validation import validate
from support.domains import facts_of, rendered
from support.embedded_libvirt import Argv, EmbeddedLibvirt
from support.examples import example
from support.libvirt_schema import schema_errors
from support.manifests import changed

GIB = 2**30

pytestmark = pytest.mark.xdist_group("embedded-libvirt")


def spec(name: str) -> NumaVMSpec:
    return NumaVMSpec.model_validate(example(f"seed/{name}")["spec"])


def all_shared(cells: int) -> HostFacts:
    """Return a host that keeps no CPU to itself, as the article's."""
    every = CpuSet(frozenset(range(cells * 8)))
    pools = EffectivePools(
        dedicated=every, shared=every, shared_follows_dedicated=True, housekeeping=CpuSet()
    )
    return facts_of(cells, pools=pools)


def xml_of(name: str, cells: int = 2) -> Any:
    made = rendered(spec(name), all_shared(cells)).xml
    assert schema_errors(made) == []
    return etree.fromstring(made)


def argv_of(libvirt: EmbeddedLibvirt, name: str, cells: int = 2) -> Argv:
    return libvirt.argv(rendered(spec(name), all_shared(cells)).xml)


def told(raw: dict[str, Any]) -> str:
    return " ".join(map(str, validate(NumaVMSpec.model_validate(raw))))


def test_smp_4_of_128(libvirt: EmbeddedLibvirt) -> None:
    argv = argv_of(libvirt, "smp-4-of-128")

    # libvirt writes `dies` out since it knows the word.
    assert argv.value("-smp") == "4,maxcpus=128,sockets=2,dies=1,cores=64,threads=1"
    assert argv.values("-numa") == [
        "node,nodeid=0,cpus=0,cpus=2-127,memdev=ram-node0",
        "node,nodeid=1,cpus=1,memdev=ram-node1",
    ]
    assert argv.value("-m") == "2048"
    assert "l3-cache=on" in argv.value("-cpu")
    (vcpu,) = xml_of("smp-4-of-128").iterfind("vcpu")
    assert (vcpu.get("placement"), vcpu.get("current"), vcpu.text) == ("static", "4", "128")


def test_128_vcpus_of_which_cells_name_two_are_refused() -> None:
    raw = changed(example("seed/smp-4-of-128")["spec"], "domain.cpu.numa.cells.0.cpus", "0")

    assert "vCPU 2-127 of 128 is in no cell" in told(raw)


def test_vcpupin() -> None:
    domain = xml_of("vcpupin", 1)

    # `1-4,^2` is 1 and 3 to 4, written without the `^`. The <vcpu cpuset=> is said by pins, one for each vCPU.
    assert {pin.get("vcpu"): pin.get("cpuset") for pin in domain.iterfind("cputune/vcpupin")} == {
        "0": "1,3-4",
        "1": "0-1",
        "2": "2-3",
        "3": "0,4",
    }
    (vcpu,) = domain.iterfind("vcpu")
    assert (vcpu.get("current"), vcpu.text) == ("1", "4")


def test_the_cpuset_of_all_is_for_those_without_a_pin() -> None:
    raw = changed(example("seed/vcpupin")["spec"], "domain.cpu.pinning.vcpus", [])
    made = rendered(NumaVMSpec.model_validate(raw), all_shared(1)).xml

    pins = etree.fromstring(made).iterfind("cputune/vcpupin")
    assert {pin.get("cpuset") for pin in pins} == {"1-2,4,6"}


def test_four_pins_on_two_vcpus_are_refused() -> None:
    raw = changed(example("seed/vcpupin")["spec"], "domain.cpu.cores", 2)

    assert "vCPU 2 does not exist: the VM has vCPUs 0 to 1" in told(raw)
    assert "vCPU 3 does not exist: the VM has vCPUs 0 to 1" in told(raw)


def test_two_nodes(libvirt: EmbeddedLibvirt) -> None:
    argv = argv_of(libvirt, "two-nodes")

    backends = argv.objects("memory-backend-ram")
    assert {name: one["size"] for name, one in backends.items()} == {
        "ram-node0": GIB,  # libvirt's name for the article's m0
        "ram-node1": GIB,
    }
    assert argv.values("-numa") == [
        "node,nodeid=0,cpus=0,memdev=ram-node0",
        "node,nodeid=1,cpus=1,memdev=ram-node1",
    ]
    assert argv.value("-m") == "2048"


def test_memory_binding(libvirt: EmbeddedLibvirt) -> None:
    argv = argv_of(libvirt, "memory-binding")

    backends = argv.objects("memory-backend-ram")
    wanted = ("size", "host-nodes", "policy")
    assert {name: [one[key] for key in wanted] for name, one in backends.items()} == {
        "ram-node0": [1073741824, [0], "bind"],
        "ram-node1": [1073741824, [1], "bind"],
    }
    assert argv.values("-numa") == [
        "node,nodeid=0,cpus=0,memdev=ram-node0",
        "node,nodeid=1,cpus=1,memdev=ram-node1",
    ]


def test_numatune() -> None:
    numatune = xml_of("memory-binding").find("numatune")

    assert [dict(child.attrib) for child in numatune] == [
        {"mode": "strict", "nodeset": "0-1"},
        {"cellid": "0", "mode": "strict", "nodeset": "0"},
        {"cellid": "1", "mode": "strict", "nodeset": "1"},
    ]


def test_memory_policies(libvirt: EmbeddedLibvirt) -> None:
    backends = argv_of(libvirt, "memory-policies").objects("memory-backend")

    assert [(one["policy"], one["host-nodes"]) for one in backends.values()] == [
        ("bind", [0]),
        ("preferred", [1]),
        ("interleave", [0, 1]),
    ]


def test_memfd(libvirt: EmbeddedLibvirt) -> None:
    argv = argv_of(libvirt, "memfd")

    first, second = argv.objects("memory-backend-memfd").values()
    assert [first[key] for key in ("share", "prealloc", "hugetlb", "hugetlbsize")] == [
        True,
        True,
        True,
        2 * 2**20,
    ]
    assert (second["share"], second.get("hugetlb")) == (True, None)
    # Said once for the machine, not per object; `seal` is QEMU's default.
    assert {"mem-merge=off", "dump-guest-core=off"} <= set(argv.value("-machine").split(","))


def test_hmat(libvirt: EmbeddedLibvirt) -> None:
    numa = argv_of(libvirt, "hmat").values("-numa")

    access = "hierarchy=memory,data-type=access"
    assert numa == [
        "node,nodeid=0,cpus=0-1,initiator=0,memdev=ram-node0",
        "node,nodeid=1,initiator=0,memdev=ram-node1",
        "dist,src=0,dst=0,val=10",  # libvirt writes the whole matrix
        "dist,src=0,dst=1,val=21",
        "dist,src=1,dst=0,val=21",
        "dist,src=1,dst=1,val=10",
        f"hmat-lb,initiator=0,target=0,{access}-latency,latency=80",
        f"hmat-lb,initiator=0,target=1,{access}-latency,latency=200",
        "hmat-lb,initiator=0,target=1,hierarchy=first-level,data-type=access-latency,latency=90",
        f"hmat-lb,initiator=0,target=0,{access}-bandwidth,bandwidth={100 * 2**20}K",
        f"hmat-lb,initiator=0,target=1,{access}-bandwidth,bandwidth={25 * 2**20}K",
        # QEMU's manual spells the article's policy=str as write-back.
        "hmat-cache,node-id=1,size=8K,level=1,associativity=direct,policy=write-back,line=64",
    ]
