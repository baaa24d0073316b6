"""`numavm diff` and `numavm rehome`: what they say and patch, from objects as the API server has them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from numavm_agent.reconcile.changes import Effect
from numavm_api.errors import RejectedError
from numavm_cli.changes import Change, Cluster, change_of
from numavm_cli.live import parse_moves, patch_of
from support.placement_examples import fleet, host, placed, request, vm

BOUND = tuple(
    {"cpus": cpus, "memory": "1Gi", "hostBinding": {"hostCells": str(number)}}
    for number, cpus in enumerate(("0-1", "2-3"))
)
SPEC = vm(*BOUND, cores=4)


def stored(*, state: str = "Running") -> dict[str, Any]:
    """Return the VM as it runs on host-a, each guest cell on the host cell of its number."""
    claim = placed(request(SPEC), fleet(host(cells=3))).placement
    return {
        "kind": "NumaVM",
        "metadata": {"namespace": "default", "name": "vm", "uid": "vm", "resourceVersion": "7"},
        "spec": SPEC,
        "status": {
            "nodeName": "host-a",
            "placement": claim.to_api(),
            "domain": {"nodeName": "host-a", "state": state, "placementId": claim.id},
        },
    }


def cluster(*, memory: str = "4Gi", moves: bool = True) -> Cluster:
    one = host(cells=3, memory=memory)
    able = one["status"]["capabilities"]
    able |= {"memoryMoves": moves, **({} if moves else {"memoryMovesMessage": "no cgroup v2"})}
    claim = stored()["status"]["placement"]
    held = {"uid": "vm", "namespace": "default", "name": "vm", "placement": claim}
    one["status"]["claims"] = [held]
    return Cluster([one], {})


def wanted(**changes: Any) -> dict[str, Any]:
    """Return the manifest with fields of the spec, by dotted path, set."""
    manifest = {"kind": "NumaVM", "spec": copy.deepcopy(SPEC)}
    for path, value in changes.items():
        *parents, last = path.split("__")
        at: Any = manifest["spec"]
        for step in parents:
            at = at[int(step)] if step.isdecimal() else at.setdefault(step, {})
        at[int(last) if last.isdecimal() else last] = value
    return manifest


CELL_0 = "domain__cpu__numa__cells__0__hostBinding"


def effects(change: Change) -> dict[str, Effect]:
    return {one.path.removeprefix("spec."): one.effect for one in change.fields}


def test_the_same_manifest_changes_nothing() -> None:
    change = change_of(stored(), wanted(), cluster(), None)
    assert (change.fields, change.live, change.restart) == ((), None, None)


def test_changed_host_cells_are_live_and_it_says_where_to() -> None:
    change = change_of(stored(), wanted(**{CELL_0: {"hostCells": "2"}}), cluster(), None)
    assert effects(change) == {"domain.cpu.numa.cells[0].hostBinding.hostCells": Effect.LIVE}
    assert (change.now, change.live) == ("host-a: 0->0,1->1", "host-a: 0->2,1->1")
    assert change.restart is None


def test_a_change_that_is_half_live_says_both() -> None:
    new = wanted(**{CELL_0: {"hostCells": "2"}, "domain__cpu__model": "host-model"})
    change = change_of(stored(), new, cluster(), None)
    assert effects(change) == {
        "domain.cpu.model": Effect.RESTART,
        "domain.cpu.numa.cells[0].hostBinding.hostCells": Effect.LIVE,
    }
    assert change.live == change.restart == "host-a: 0->2,1->1"


def test_no_room_refuses_the_move_with_its_numbers() -> None:
    one = cluster(memory="1536Mi")
    neighbour = placed(
        request(
            vm({"cpus": "0", "memory": "1Gi", "hostBinding": {"hostCells": "2"}}, cores=1), "other"
        ),
        fleet(host(cells=3, memory="1536Mi")),
    ).placement
    held = {"uid": "other", "namespace": "default", "name": "other"}
    one.hosts[0]["status"]["claims"].append({**held, "placement": neighbour.to_api()})
    change = change_of(stored(), wanted(**{CELL_0: {"hostCells": "2"}}), one, None)
    (field,) = change.fields
    assert field.effect is Effect.REFUSED
    assert "0/1 hosts fit" in field.why
    assert change.live is None


def test_where_memory_cannot_be_moved_it_waits_for_a_restart_and_says_why() -> None:
    change = change_of(stored(), wanted(**{CELL_0: {"hostCells": "2"}}), cluster(moves=False), None)
    (field,) = change.fields
    assert (field.effect, field.why) == (Effect.RESTART, "no cgroup v2")
    assert change.restart == "host-a: 0->2,1->1"


def test_what_was_plugged_in_for_raised_memory_holds_the_vm_where_it_is() -> None:
    held = stored()
    modules = [{"name": "grown-0-1", "model": "dimm", "cell": 0, "size": "512Mi"}]
    amounts = dict.fromkeys(("guestAtBoot", "guestRequested", "guestCurrent"), "2Gi")
    held["status"]["memory"] = {**amounts, "devices": modules}

    change = change_of(held, wanted(**{CELL_0: {"hostCells": "2"}}), cluster(), None)

    effect = change.fields[-1]
    assert effect.path.endswith("hostCells")
    assert effect.effect is Effect.RESTART
    assert "memory modules are plugged into it" in effect.why
    assert change.live is None


def test_pages_of_a_memfd_that_are_touched_later_are_told_of_with_the_move() -> None:
    old, new = copy.deepcopy(stored()), wanted(**{CELL_0: {"hostCells": "2"}})
    for manifest in (old, new):
        manifest["spec"]["domain"].setdefault("memory", {})["backing"] = {"source": "Memfd"}
    (effect,) = change_of(old, new, cluster(), None).fields
    assert effect.effect is Effect.LIVE
    assert "first touched after the move" in effect.why


def test_what_the_server_refuses_is_refused_field_by_field() -> None:
    new = wanted(domain__cpu__model="host-model")
    change = change_of(stored(), new, cluster(), "denied by policy")
    assert effects(change) == {"domain.cpu.model": Effect.REFUSED}
    assert change.restart is None


def test_a_vm_that_does_not_run_lands_where_a_start_puts_it() -> None:
    new = wanted(**{CELL_0: {"hostCells": "2"}})
    change = change_of(stored(state="Shutoff"), new, cluster(), None)
    assert (change.running, change.live) == (False, None)
    assert change.restart == "host-a: 0->2,1->1"


def test_it_is_told_to_programs_with_the_same_words() -> None:
    change = change_of(stored(), wanted(**{CELL_0: {"hostCells": "2"}}), cluster(), None)
    assert change.to_json() == {
        "namespace": "default",
        "name": "vm",
        "running": True,
        "changes": [
            {
                "path": "spec.domain.cpu.numa.cells[0].hostBinding.hostCells",
                "old": "0",
                "new": "2",
                "effect": "Live",
                "why": "",
            }
        ],
        "placement": {"now": "host-a: 0->0,1->1", "live": "host-a: 0->2,1->1", "restart": None},
    }


def test_rehome_binds_the_named_cells_and_keeps_what_else_the_binding_says() -> None:
    manifest = stored()
    manifest["spec"] = copy.deepcopy(SPEC)
    manifest["spec"]["domain"]["cpu"]["numa"]["cells"][1]["hostBinding"]["mode"] = "Interleave"
    path = "/spec/domain/cpu/numa/cells"
    assert patch_of(manifest, parse_moves(["0=2", "1=0-1"])) == [
        {"op": "add", "path": f"{path}/0/hostBinding", "value": {"hostCells": "2"}},
        {
            "op": "add",
            "path": f"{path}/1/hostBinding",
            "value": {"hostCells": "0-1", "mode": "Interleave"},
        },
    ]


def test_rehome_refuses_a_cell_that_is_not_there_and_a_guest_bound_as_a_whole() -> None:
    with pytest.raises(RejectedError, match="declares the cells 0, 1"):
        patch_of(stored(), {7: "0"})
    manifest = wanted(domain__cpu__numa__hostBinding={"hostCells": "0-1"})
    with pytest.raises(RejectedError, match="give each cell a hostBinding of its own"):
        patch_of(manifest, {0: "1"})


@pytest.mark.parametrize("text", ["0", "0=", "a=1", "0=1;2"])
def test_rehome_refuses_what_is_no_move(text: str) -> None:
    with pytest.raises(RejectedError, match="GUEST=HOST"):
        parse_moves([text])
