"""API server and models agree on which specs are good: good ones with changes, sound or not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from kubernetes.client.exceptions import ApiException

from numavm_api.numavm import NumaVMSpec
from numavm_api.reading import read_spec
from support.cluster import Callers
from support.custom_objects import NumaVMs, message_of
from support.manifests import GOOD, changed

OPERATOR_ONLY = (
    "numa.cells",
    "hostCells",
    "onlineVcpus",
    "realtime.mask",
    "pinning",
    "interconnects",
)
"""Parts of field names whose cpuset algebra is left to the operator."""

cpusets = st.one_of(
    st.sampled_from(["0", "1", "0-1", "2-3", "0-3", "4-7", "0,2", "1,3", "0-3,^1", "3-0", "0-9"]),
    st.text(alphabet="0123,-^", max_size=6),
)
quantities = st.one_of(
    st.sampled_from(
        ["1Gi", "2Gi", "512Mi", "1536Mi", "1025Ki", "1.5Gi", "0.5", "1G", "9Ei", "", 0]
    ),
    st.integers(-1, 2**40),
)
page_sizes = st.sampled_from(["2Mi", "1Gi", "4Ki", "64Ki", "3Mi", 2097152])
modes = st.sampled_from(["Strict", "Preferred", "Interleave", "Restrictive", "strict"])
names = st.sampled_from(["a", "b", "root", "Bad_Name", ""])
paths = st.sampled_from(["/a/b", "/a/../b", "/a", "a", "/", "/a//b", "/a/b/", "/a b", "/a/..b"])


hugepages = st.fixed_dictionaries({"pageSize": page_sizes})
bindings = st.fixed_dictionaries({}, optional={"hostCells": cpusets, "mode": modes})
named = st.fixed_dictionaries({"name": names})
labels = st.sampled_from(["zone", "a/b", "a b", "", "A.b/c", "-x", "x" * 64])

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "domain.type": st.sampled_from(["KVM", "qemu"]),
    "domain.machine": st.fixed_dictionaries(
        {"type": st.sampled_from(["pc", "pc-q35-7.2", "virt"])}
    ),
    "domain.cpu.sockets": st.integers(0, 4),
    "domain.cpu.cores": st.integers(1, 300),
    "domain.cpu.threads": st.integers(1, 9),
    "domain.cpu.model": st.sampled_from(["host-model", "Haswell", "<x>"]),
    "domain.cpu.dedicatedCpuPlacement": st.booleans(),
    "domain.cpu.threadPolicy": st.sampled_from(["Prefer", "Require", "Isolate"]),
    "domain.cpu.isolateEmulatorThread": st.booleans(),
    "domain.cpu.maxSockets": st.integers(0, 5),
    "domain.cpu.vcpus": st.integers(0, 9),
    "domain.cpu.onlineVcpus": cpusets,
    "domain.cpu.cache": st.fixed_dictionaries(
        {"mode": st.sampled_from(["emulate", "passthrough", "disable", "none"])},
        optional={"level": st.integers(1, 4)},
    ),
    "domain.cpu.realtime": st.fixed_dictionaries({}, optional={"mask": cpusets}),
    "domain.cpu.pinning": st.fixed_dictionaries(
        {},
        optional={
            "cpuset": cpusets,
            "emulator": cpusets,
            "vcpus": st.lists(
                st.fixed_dictionaries({"vcpu": st.integers(-1, 9), "cpuset": cpusets}),
                max_size=2,
                unique_by=lambda pin: pin["vcpu"],
            ),
        },
    ),
    "domain.cpu.numa.distances": st.sampled_from(["Declared", "FromHost", "Host"]),
    "domain.cpu.numa.guestMappingPassthrough": st.sampled_from([{}, {"cells": 2}, {"cells": 17}]),
    "domain.cpu.numa.interconnects": st.fixed_dictionaries(
        {
            "latencies": st.lists(
                st.fixed_dictionaries(
                    {
                        "initiator": st.integers(0, 2),
                        "target": st.integers(0, 2),
                        "type": st.sampled_from(["Access", "Read", "Write"]),
                        "latencyNanoseconds": st.integers(0, 70000),
                    }
                ),
                max_size=2,
            )
        }
    ),
    "domain.cpu.numa.cells.0.distances": st.lists(
        st.fixed_dictionaries({"cell": st.integers(0, 2), "value": st.integers(9, 256)}),
        max_size=1,
    ),
    "domain.cpu.numa.cells.0.access": st.sampled_from(["Private", "Shared", "Public"]),
    "domain.cpu.numa.hostBinding": bindings,
    "domain.cpu.numa.cells.0.id": st.integers(-1, 2),
    "domain.cpu.numa.cells.0.cpus": cpusets,
    "domain.cpu.numa.cells.1.cpus": cpusets,
    "domain.cpu.numa.cells.0.memory": quantities,
    "domain.cpu.numa.cells.1.hostBinding": bindings,
    "domain.cpu.numa.cells.1.hugepages": hugepages,
    "domain.memory.guest": quantities,
    "domain.memory.hugepages": hugepages,
    "domain.memory.backing": st.fixed_dictionaries(
        {},
        optional={
            "source": st.sampled_from(["Anonymous", "Memfd", "File"]),
            "discard": st.sampled_from(["Enabled", "Disabled"]),
            "samePageMerging": st.sampled_from(["Enabled", "Disabled", "Off"]),
            "access": st.sampled_from(["Private", "Shared"]),
            "allocation": st.sampled_from(["Immediate", "OnDemand"]),
        },
    ),
    "domain.firmware.bootloader": st.sampled_from([{}, {"bios": {}}]),
    "domain.firmware.kernelBoot": st.fixed_dictionaries(
        {"kernel": paths}, optional={"initrd": paths, "args": st.text(alphabet="a =\n", max_size=5)}
    ),
    "domain.devices.disks.0.bootOrder": st.integers(0, 3),
    "domain.devices.disks.0.name": names,
    "domain.devices.interfaces.0.macAddress": st.sampled_from(
        ["52:54:00:00:00:01", "52:54:00:00:00:0A", "01:00:00:00:00:00", "00:00:00:00:00:00"]
    ),
    "volumes.1.hostDisk.path": paths,
    "volumes": st.lists(named, max_size=1),
    "networks.0.name": names,
    "nodeSelector": st.dictionaries(labels, labels, max_size=2),
    "terminationGracePeriodSeconds": st.integers(-1, 90000),
    "restartToken": st.text(max_size=70),
}
"""What may be put where, sound or not."""


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a good spec with at most three changes."""
    spec = copy.deepcopy(draw(st.sampled_from(list(GOOD.values()))))
    fitting = [path for path in VALUES if _leads_somewhere(spec, path)]
    for path in draw(st.lists(st.sampled_from(fitting), max_size=3, unique=True)):
        if _leads_somewhere(spec, path):
            spec = changed(spec, path, draw(VALUES[path]))
    return spec


def _leads_somewhere(spec: dict[str, Any], path: str) -> bool:
    """Tell whether the lists on the path have the entries that it names."""
    part: Any = spec
    for step in path.split("."):
        if step.isdigit():
            if not isinstance(part, list) or len(part) <= int(step):
                return False
            part = part[int(step)]
        else:
            part = part.get(step, {})
    return True


@pytest.fixture(scope="module")
def vms(callers: Callers) -> NumaVMs:
    return NumaVMs(callers.admin(), "default")


def of_server(vms: NumaVMs, spec: dict[str, Any]) -> dict[str, Any] | str:
    """Return the spec as the server would store it, or its words of refusal."""
    try:
        stored: dict[str, Any] = vms.create("probe", spec, dry_run=True)["spec"]
    except ApiException as error:
        return message_of(error)
    return stored


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(spec=specs())
def test_server_and_models_agree(vms: NumaVMs, spec: dict[str, Any]) -> None:
    """What we read the server takes; what it takes we read, but for cpuset algebra."""
    ours, theirs = read_spec(spec), of_server(vms, spec)
    event(f"server {type(theirs).__name__}, we {type(ours).__name__}")

    if isinstance(theirs, str):
        assert isinstance(ours, list), theirs
    elif isinstance(ours, list):
        fields = [violation.field for violation in ours]
        assert all(any(part in field for part in OPERATOR_ONLY) for field in fields), fields
    else:
        assert ours == read_spec(theirs)


sound_cells = st.integers(1, 4).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.integers(1, 2),
        st.permutations(range(count)),
        st.lists(st.integers(1, 64), min_size=count, max_size=count),
        st.sampled_from(["4Ki", "2Mi", None]),
    )
)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(shape=sound_cells)
def test_every_sound_topology_is_taken(
    vms: NumaVMs, shape: tuple[int, int, list[int], list[int], str | None]
) -> None:
    """One core per cell, cells in any order, memory in steps of 2Mi."""
    count, threads, order, sizes, page_size = shape
    declared = [
        {
            "id": number,
            "cpus": ",".join(str(number * threads + thread) for thread in range(threads)),
            "memory": f"{2 * sizes[number]}Mi",
        }
        for number in order
    ]
    spec: dict[str, Any] = {
        "domain": {
            "cpu": {"sockets": count, "threads": threads, "numa": {"cells": declared}},
            "memory": {"guest": f"{2 * sum(sizes)}Mi"},
        }
    }
    if page_size:
        spec["domain"]["memory"]["hugepages"] = {"pageSize": page_size}
    stored = of_server(vms, spec)

    assert isinstance(stored, dict), stored
    assert isinstance(read_spec(stored), NumaVMSpec)
