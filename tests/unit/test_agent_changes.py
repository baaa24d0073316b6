"""Which changes of a spec wait for a restart: those that are none after defaulting do not."""

from typing import Any

import pytest

from numavm_agent.reconcile.changes import Effect, field_changes, pending_changes
from numavm_api.numavm import NumaVMSpec


def spec(domain: dict[str, Any] | None = None, **top: Any) -> NumaVMSpec:
    return NumaVMSpec.model_validate(
        {"domain": {"memory": {"guest": "1Gi"}, **(domain or {})}, **top}
    )


CELLS = [
    {"id": 0, "cpus": "0", "memory": "512Mi"},
    {"id": 1, "cpus": "1", "memory": "512Mi"},
]
TWO_CELLS = {"cpu": {"cores": 2, "numa": {"cells": CELLS}}}

MAXIMUM = {"guest": "1Gi", "maxGuest": "4Gi"}
VIRTIO_MEM = {"name": "v", "cell": 0, "size": "512Mi", "virtioMem": {"requested": "64Mi"}}
WITH_BLOCK = {**VIRTIO_MEM, "virtioMem": {"requested": "65536Ki", "block": "2Mi"}}
DIMM = {"name": "d", "cell": 0, "size": "512Mi", "dimm": {}}
DISK = {
    "volumes": [{"name": "root", "hostDisk": {"path": "/srv/root.img"}}],
}


def modules(*given: dict[str, Any], **memory: Any) -> NumaVMSpec:
    return spec({"memory": {**MAXIMUM, **memory}, "devices": {"memory": list(given)}})


def disk(**fields: Any) -> NumaVMSpec:
    return spec({"devices": {"disks": [{"name": "root", **fields}]}}, **DISK)


@pytest.mark.parametrize(
    ("running", "wanted"),
    [
        (modules(DIMM), modules(DIMM, slots=16)),
        (modules(VIRTIO_MEM), modules(WITH_BLOCK)),
        (modules(VIRTIO_MEM, DIMM), modules(DIMM, VIRTIO_MEM)),
        (
            modules(balloon={}),
            modules(balloon={"autodeflate": "Disabled", "freePageReporting": "Disabled"}),
        ),
        (disk(), disk(disk={"bus": "virtio"}, dedicatedIOThread=False)),
        (
            spec({"ioThreads": {"count": 2}}),
            spec({"ioThreads": {"threads": [{"id": 2}, {"id": 1}], "placement": "Shared"}}),
        ),
        (spec(), spec()),
        (spec(), spec(runStrategy="Halted")),
        (spec(), spec(terminationGracePeriodSeconds=1)),
        (spec(), spec(restartToken="2")),
        (spec(), spec({"type": "Auto"})),
        (spec(), spec({"cpu": {"threads": 1}})),
        (spec(), spec({"memory": {"guest": "1024Mi"}})),
        (spec(), spec({"memory": {"guest": "1Gi", "backing": {"source": "Anonymous"}}})),
        (spec(), spec({"memory": {"guest": "1Gi", "hugepages": {"pageSize": "4Ki"}}})),
        (spec(TWO_CELLS), spec({**TWO_CELLS, "memory": {}})),
        (
            spec(TWO_CELLS),
            spec({"cpu": {"cores": 2, "numa": {"cells": list(reversed(CELLS))}}}),
        ),
        (
            spec(TWO_CELLS),
            spec(
                {"cpu": {"cores": 2, "numa": {"cells": CELLS, "hostBinding": {"mode": "Strict"}}}}
            ),
        ),
    ],
)
def test_what_is_the_same_after_defaulting_is_not_pending(
    running: NumaVMSpec, wanted: NumaVMSpec
) -> None:
    assert pending_changes(running, wanted) == []


@pytest.mark.parametrize(
    ("running", "wanted", "changes"),
    [
        (
            spec({"memory": MAXIMUM}),
            modules(DIMM),
            [
                "spec.domain.devices.memory[d].cell: nothing -> 0",
                "spec.domain.devices.memory[d].dimm: nothing -> {}",
                "spec.domain.devices.memory[d].name: nothing -> d",
                "spec.domain.devices.memory[d].size: nothing -> 512Mi",
            ],
        ),
        (
            modules(balloon={}),
            modules(balloon={"autodeflate": "Enabled"}),
            ["spec.domain.memory.balloon.autodeflate: Disabled -> Enabled"],
        ),
        (modules(), modules(maxGuest="8Gi"), ["spec.domain.memory.maxGuest: 4Gi -> 8Gi"]),
        (disk(), disk(cell=0), ["spec.domain.devices.disks[root].cell: nothing -> 0"]),
        (
            spec({"ioThreads": {"count": 1}}),
            spec({"ioThreads": {"count": 2}}),
            ["spec.domain.ioThreads.threads[2].id: nothing -> 2"],
        ),
        (
            spec(),
            spec({"memory": {"guest": "2Gi"}}),
            ["spec.domain.memory.guest: 1Gi -> 2Gi"],
        ),
        (
            spec(),
            spec({"cpu": {"cores": 2, "threads": 2}}),
            ["spec.domain.cpu.cores: 1 -> 2", "spec.domain.cpu.threads: 1 -> 2"],
        ),
        (spec(), spec(nodeSelector={"zone": "a"}), ["spec.nodeSelector.zone: nothing -> a"]),
        (spec(nodeSelector={"zone": "a"}), spec(), ["spec.nodeSelector.zone: a -> nothing"]),
        (
            spec(TWO_CELLS),
            spec(
                {
                    "cpu": {
                        "cores": 2,
                        "numa": {"cells": CELLS, "hostBinding": {"mode": "Preferred"}},
                    }
                }
            ),
            [
                "spec.domain.cpu.numa.cells[0].hostBinding.mode: Strict -> Preferred",
                "spec.domain.cpu.numa.cells[1].hostBinding.mode: Strict -> Preferred",
            ],
        ),
        (
            spec(),
            spec({"memory": {"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}}}),
            [
                "spec.domain.memory.backing.source: Anonymous -> Memfd",
                "spec.domain.memory.hugepages.pageSize: nothing -> 2Mi",
            ],
        ),
    ],
)
def test_each_pending_field_is_named_with_old_and_new(
    running: NumaVMSpec, wanted: NumaVMSpec, changes: list[str]
) -> None:
    assert changes == pending_changes(running, wanted)


def bound(*host_cells: str) -> dict[str, Any]:
    cells = [
        {**cell, "hostBinding": {"hostCells": host}}
        for cell, host in zip(CELLS, host_cells, strict=True)
    ]
    return {"cpu": {"cores": 2, "numa": {"cells": cells}}}


def test_changed_host_cells_wait_for_no_restart() -> None:
    running, wanted = spec(bound("0", "1")), spec(bound("1", "0"))
    assert pending_changes(running, wanted) == []
    assert [(one.path, one.effect) for one in field_changes(running, wanted)] == [
        ("spec.domain.cpu.numa.cells[0].hostBinding.hostCells", Effect.LIVE),
        ("spec.domain.cpu.numa.cells[1].hostBinding.hostCells", Effect.LIVE),
    ]


def test_where_memory_cannot_be_moved_they_wait_and_say_why() -> None:
    running, wanted = spec(bound("0", "1")), spec(bound("2", "1"))
    assert pending_changes(running, wanted, why_fixed="no cgroup v2") == [
        "spec.domain.cpu.numa.cells[0].hostBinding.hostCells: 0 -> 2 (no cgroup v2)"
    ]
    assert pending_changes(running, spec(TWO_CELLS), why_fixed="no cgroup v2") == []


def test_of_a_change_that_is_half_live_only_the_other_half_waits() -> None:
    wanted = bound("1", "0")
    wanted["cpu"]["model"] = "host-model"
    assert pending_changes(spec(bound("0", "1")), spec(wanted)) == [
        "spec.domain.cpu.model: host-passthrough -> host-model"
    ]


@pytest.mark.parametrize(
    ("pinning", "isolated", "effects"),
    [
        ({"cpuset": "1-3"}, False, {"vcpus.0": Effect.LIVE, "vcpus.1": Effect.LIVE}),
        ({"emulator": "0"}, False, {"emulator": Effect.LIVE}),
        ({"emulator": "0"}, True, {"emulator": Effect.RESTART}),
    ],
)
def test_pins_are_live_but_for_an_emulator_with_a_cpu_of_its_own(
    pinning: dict[str, str], effects: dict[str, Effect], *, isolated: bool
) -> None:
    cpu = {**TWO_CELLS["cpu"], "isolateEmulatorThread": isolated, "dedicatedCpuPlacement": True}
    found = field_changes(spec({"cpu": cpu}), spec({"cpu": {**cpu, "pinning": pinning}}))
    prefix = "spec.domain.cpu.pinning."
    assert {one.path.removeprefix(prefix): one.effect for one in found} == effects


def test_what_numavm_itself_does_is_taken_up_at_once() -> None:
    found = field_changes(spec(), spec(driftPolicy="Report", restartToken="2"))
    assert {one.path: one.effect for one in found} == {
        "spec.driftPolicy": Effect.LIVE,
        "spec.restartToken": Effect.LIVE,
    }
