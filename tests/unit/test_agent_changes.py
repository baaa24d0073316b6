"""Which changes of a spec wait for a restart: those that are none after defaulting do not."""

from typing import Any

import pytest

from numavm_agent.reconcile.changes import (
    Effect,
    applied_live,
    field_changes,
    pending_changes,
)
from numavm_api.cpuset import CpuSet
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import parse_bytes
from support.agent_values import shared_claim


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
            modules(VIRTIO_MEM),
            spec({"memory": MAXIMUM}),
            [
                "spec.domain.devices.memory[v].cell: 0 -> nothing",
                "spec.domain.devices.memory[v].name: v -> nothing",
                "spec.domain.devices.memory[v].size: 512Mi -> nothing",
                "spec.domain.devices.memory[v].virtioMem.block: 2Mi -> nothing",
                "spec.domain.devices.memory[v].virtioMem.requested: 64Mi -> nothing",
            ],
        ),
        (
            modules(balloon={"autodeflate": "Disabled"}),
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
            spec(TWO_CELLS),
            spec(
                {
                    "cpu": {
                        "cores": 2,
                        "numa": {"cells": [{**CELLS[0], "hostCellClass": "DRAM"}, CELLS[1]]},
                    }
                }
            ),
            ["spec.domain.cpu.numa.cells[0].hostCellClass: nothing -> DRAM"],
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


def cpus(**cpu: Any) -> NumaVMSpec:
    return spec({"cpu": {"maxSockets": 4, **cpu}})


def effects_of(running: NumaVMSpec, wanted: NumaVMSpec) -> dict[str, Effect]:
    return {
        one.path.removeprefix("spec.domain.cpu."): one.effect
        for one in field_changes(running, wanted)
    }


def test_more_vcpus_of_those_the_guest_can_have_are_live_and_fewer_are_not() -> None:
    assert effects_of(cpus(sockets=1), cpus(sockets=2)) == {"sockets": Effect.LIVE}
    assert effects_of(cpus(sockets=1), cpus(sockets=4)) == {"sockets": Effect.LIVE}
    assert effects_of(cpus(sockets=2), cpus(sockets=1)) == {"sockets": Effect.RESTART}
    fine, finer = ({"cpu": {"cores": 4, "onlineVcpus": on}} for on in ("0,2", "0-2"))
    assert effects_of(spec(fine), spec(finer)) == {"onlineVcpus": Effect.LIVE}
    assert effects_of(spec(finer), spec(fine)) == {"onlineVcpus": Effect.RESTART}


def test_vcpus_that_qemu_can_take_out_go_while_the_guest_runs() -> None:
    for removable, effect in (("1", Effect.LIVE), ("2-3", Effect.RESTART)):
        found = field_changes(cpus(sockets=2), cpus(sockets=1), removable=CpuSet.parse(removable))
        assert [one.effect for one in found] == [effect]


def test_a_guest_with_another_maximum_is_another_guest() -> None:
    assert set(effects_of(cpus(sockets=1), cpus(sockets=2, maxSockets=8)).values()) == {
        Effect.RESTART
    }
    assert set(effects_of(cpus(sockets=1), cpus(sockets=2, cores=2)).values()) == {Effect.RESTART}


def test_vcpus_are_on_once_the_claim_has_room_for_all_of_them() -> None:
    running, wanted = cpus(sockets=1), cpus(sockets=3)
    claimed = shared_claim()
    (cell,) = claimed.cells
    for held, on in (("0-1", "0"), ("0-2", "0-2"), (None, "0-2")):
        room = CpuSet.parse(held) if held else None
        update = {"vcpus": CpuSet.parse("0-3"), "held_vcpus": room}
        held_claim = claimed.model_copy(update={"cells": [cell.model_copy(update=update)]})
        after = applied_live(running, wanted, held_claim)
        assert str(after.domain.cpu.boot_vcpus) == on


def with_dimms(*names: str, room: str = "4Gi", **kinds: Any) -> NumaVMSpec:
    devices = [{"name": name, "cell": 0, "size": "1Gi", "dimm": {}} for name in names]
    devices += [{"name": name, "cell": 0, "size": "1Gi", **kind} for name, kind in kinds.items()]
    return spec({"memory": {"guest": "1Gi", "maxGuest": room}, "devices": {"memory": devices}})


def module_effects(running: NumaVMSpec, wanted: NumaVMSpec) -> set[Effect]:
    return {one.effect for one in field_changes(running, wanted)}


def test_dimms_come_and_go_while_the_guest_runs_where_it_has_room() -> None:
    assert module_effects(with_dimms(), with_dimms("m1")) == {Effect.LIVE}
    assert module_effects(with_dimms("m1"), with_dimms("m0", "m1")) == {Effect.LIVE}
    assert module_effects(with_dimms("m1"), with_dimms()) == {Effect.LIVE}
    assert module_effects(with_dimms("m1"), with_dimms("m0")) == {Effect.LIVE}
    assert Effect.RESTART in module_effects(with_dimms(), with_dimms("m1", room="8Gi"))


def test_virtio_mem_comes_and_is_resized_while_the_guest_runs_but_does_not_go() -> None:
    half, all_of_it = (
        with_dimms(v0={"virtioMem": {"requested": amount}}) for amount in ("512Mi", "1Gi")
    )
    assert module_effects(with_dimms(), half) == {Effect.LIVE}
    assert module_effects(half, all_of_it) == {Effect.LIVE}
    assert module_effects(all_of_it, half) == {Effect.LIVE}
    assert module_effects(half, with_dimms()) == {Effect.RESTART}
    other_blocks = with_dimms(v0={"virtioMem": {"requested": "512Mi", "block": "4Mi"}})
    assert Effect.RESTART in module_effects(half, other_blocks)
    assert module_effects(with_dimms(), with_dimms(n0={"nvdimm": {"path": "/srv/n"}})) == {
        Effect.RESTART
    }


@pytest.mark.parametrize(("plugged", "names"), [("1Gi", ["m0"]), ("2Gi", ["m0", "m1"])])
def test_modules_are_there_once_the_claim_has_room_for_all_of_them(
    plugged: str, names: list[str]
) -> None:
    claimed = shared_claim()
    (cell,) = claimed.cells
    room = cell.model_copy(update={"plugged": parse_bytes(plugged)})
    held = claimed.model_copy(update={"cells": [room]})
    after = applied_live(with_dimms("m0"), with_dimms("m0", "m1"), held)
    assert [device.name for device in after.domain.devices.memory] == names
