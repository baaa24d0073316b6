from pathlib import Path
from uuid import UUID

import pytest

from numavm_lab.hosts.argv import (
    HostFiles,
    cpu_model,
    kernel_options,
    qemu_argv,
    smp,
    virtiofsd_argv,
)
from numavm_lab.hosts.model import HostSpec, LabCell

GIB = 2**30
FILES = HostFiles(
    kernel=Path("/boot/vmlinuz"),
    initrd=Path("/c/initrd"),
    console=Path("/run,1/console"),
    root_socket=Path("/r/root.sock"),
    share_socket=Path("/r/share.sock"),
    qmp_socket=Path("/r/qmp.sock"),
)


def spec(*cpus: int, **fields: object) -> HostSpec:
    cells = tuple(LabCell(cpus=count, memory=GIB) for count in cpus)
    return HostSpec.model_validate({"name": "a", "cells": cells, **fields})


def argv(described: HostSpec) -> list[str]:
    return qemu_argv(described, FILES, qemu=Path("/usr/bin/qemu"), uuid=UUID(int=7))


def values(words: list[str], option: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def test_each_cell_gets_its_cpus_and_memory() -> None:
    assert values(argv(spec(4, 2, 0)), "-numa") == [
        "node,nodeid=0,memdev=cell0,cpus=0-3",
        "node,nodeid=1,memdev=cell1,cpus=4-5",
        "node,nodeid=2,memdev=cell2",
    ]
    assert [
        f"memory-backend-memfd,id=cell{number},size={GIB},share=on" for number in range(3)
    ] == values(argv(spec(4, 2, 0)), "-object")
    assert values(argv(spec(4, 2, 0)), "-m") == ["3072M"]


def test_distances_are_given_for_every_pair_in_each_direction() -> None:
    numa = values(argv(spec(1, 1, distances=[[10, 21], [31, 10]])), "-numa")

    assert [word for word in numa if word.startswith("dist") and not word.endswith("=10")] == [
        "dist,src=0,dst=1,val=21",
        "dist,src=1,dst=0,val=31",
    ]


def test_an_hmat_tells_of_each_cell_from_the_cpus_that_reach_it_best() -> None:
    fast = {"latency_nanoseconds": 90, "bandwidth": 100 * GIB}
    slow = {"latency_nanoseconds": 300, "bandwidth": 20 * GIB, "initiator": 0}
    cells = [{"cpus": 2, "memory": GIB, "access": fast}, {"cpus": 0, "memory": GIB, "access": slow}]
    words = argv(HostSpec(name="a", cells=cells))

    assert values(words, "-machine") == ["q35,hmat=on"]
    assert values(words, "-numa") == [
        "node,nodeid=0,memdev=cell0,cpus=0-1",
        "node,nodeid=1,memdev=cell1,initiator=0",
        "hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-latency,latency=90",
        "hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-bandwidth,bandwidth=102400M",
        "hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-latency,latency=300",
        "hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-bandwidth,bandwidth=20480M",
    ]


@pytest.mark.parametrize(
    ("cpus", "threads", "expected"),
    [
        ((4, 4), 1, "8,sockets=2,cores=4,threads=1"),
        ((4, 4, 4, 4), 2, "16,sockets=4,cores=2,threads=2"),
        ((4, 2), 1, "6,sockets=3,cores=2,threads=1"),
        ((4, 0), 2, "4,sockets=1,cores=2,threads=2"),
    ],
)
def test_no_socket_spans_two_cells(cpus: tuple[int, ...], threads: int, expected: str) -> None:
    assert expected == smp(spec(*cpus, threads=threads))


def test_kvm_comes_with_the_amd_cpu_and_siblings_with_the_intel_one() -> None:
    assert "vendor=GenuineIntel" not in cpu_model(spec(2, kvm=True))
    assert "vendor=GenuineIntel" in cpu_model(spec(2, threads=2))


def test_the_users_options_come_last() -> None:
    described = spec(
        1, extraQemuOptions=["-cpu", "EPYC"], extraKernelOptions=["intel_iommu=on", "quiet"]
    )

    assert argv(described)[-2:] == ["-cpu", "EPYC"]
    assert kernel_options(described)[-2:] == ["intel_iommu=on", "quiet"]
    assert [" ".join(kernel_options(described))] == values(argv(described), "-append")


def test_a_comma_in_a_path_does_not_end_the_option() -> None:
    assert "file,id=console,path=/run,,1/console,append=on" in values(argv(spec(1)), "-chardev")


def test_nothing_listens_beyond_loopback() -> None:
    words = argv(spec(1))

    assert values(words, "-netdev") == ["user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22"]


def test_only_the_share_is_writable() -> None:
    root = virtiofsd_argv(Path("/v"), shared=Path("/"), socket=Path("/s"), read_only=True)
    share = virtiofsd_argv(Path("/v"), shared=Path("/d"), socket=Path("/s"), read_only=False)

    assert "--readonly" in root
    assert "--readonly" not in share
