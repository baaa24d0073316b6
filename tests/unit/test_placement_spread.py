"""VMs kept apart, over hosts and over host cells: where they go, what is said where they cannot, whom it counts."""

from __future__ import annotations

from typing import Any

import pytest

from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.request_hash import request_hash
from numavm_api.scheduling import SpreadOver
from numavm_operator.objects import Vm, read_vm
from numavm_operator.placement import Away, Cause, Fleet, Placed, explain, place, summary
from numavm_operator.requests import spread_from
from support.placement_examples import cause, fleet, host, placed, refused, request, vm

SMALL = vm(cores=1, memory="64Mi")
ON_CELL_0 = {"host-a": Away("ns/other", frozenset({0}))}


def numavm(name: str, spec: dict[str, Any], namespace: str = "ns", **labels: str) -> Vm:
    metadata = {"name": name, "namespace": namespace, "uid": name, "resourceVersion": "1"}
    return read_vm({"metadata": metadata | {"labels": labels}, "spec": spec})


def spreading(over: SpreadOver = SpreadOver.HOST, **labels: str) -> dict[str, Any]:
    return {
        **SMALL,
        "placement": {"spread": [{"labelSelector": {"matchLabels": labels}, "over": over.value}]},
    }


def holding(where: Fleet, uid: str, **more: Any) -> tuple[Fleet, Placement]:
    done = placed(request(SMALL, uid, **more), where)
    return where.with_claim(done.node_name, uid, done.placement), done.placement


def cells_of(found: Placed) -> set[int]:
    return {cell for one in found.placement.cells for cell in one.host_cells}


def test_over_hosts_the_host_of_the_other_is_left_out() -> None:
    away = {"host-a": Away("ns/other")}

    assert placed(request(SMALL, away=away), fleet(host(), host("host-b"))).node_name == "host-b"
    assert cause(request(SMALL, away=away), fleet(host())) is Cause.SPREAD


def test_over_cells_the_other_cells_of_the_host_are_taken() -> None:
    found = placed(request(SMALL, away=ON_CELL_0), fleet(host()))

    assert cells_of(found) == {1}
    assert found.placement.overhead_cell == 1


@pytest.mark.parametrize(
    "spec",
    [
        vm({"cpus": "0", "memory": "64Mi"}, {"cpus": "1", "memory": "64Mi"}, cores=2),
        vm({"cpus": "0", "memory": "64Mi", "hostBinding": {"hostCells": "0"}}, cores=1),
        vm(cores=5, memory="64Mi"),
    ],
    ids=["two cells for one", "bound there by the user", "more than one cell has"],
)
def test_a_vm_that_needs_the_cell_of_the_other_is_refused_for_it(spec: dict[str, Any]) -> None:
    where = fleet(host())
    assert isinstance(place(request(spec), where), Placed)

    assert cause(request(spec, away=ON_CELL_0), where) is Cause.SPREAD


def test_a_host_with_a_cell_closed_is_weighed_against_others() -> None:
    wide = vm({"cpus": "0", "memory": "64Mi"}, {"cpus": "1", "memory": "64Mi"}, cores=2)
    near, far = host("host-a", cells=3, far=12), host("host-b", far=20)

    assert placed(request(wide, away=ON_CELL_0), fleet(near, far)).node_name == "host-a"
    assert placed(request(wide, away=ON_CELL_0), fleet(host(cells=2), far)).node_name == "host-b"


def test_what_is_free_on_a_closed_cell_stays_with_the_emulators_of_others() -> None:
    """Two CPUs per cell for VMs and none for the host: an emulator floats over what is free of its VM's cell."""
    where = fleet(host(cores=3))
    where, _ = holding(where, "other")

    found = placed(request(SMALL, away=ON_CELL_0), where)

    assert cells_of(found) == {1}


def test_the_refusal_and_the_explanation_name_the_other() -> None:
    where = fleet(host())
    wanted = request(SMALL, away={"host-a": Away("ns/other")})

    assert "with ns/other, which it is to be spread from" in summary(refused(wanted, where))
    told = explain(wanted, where)
    assert (told.chosen, told.hosts[0].miss and told.hosts[0].miss.cause) == (None, Cause.SPREAD)
    cell = explain(request(SMALL, away=ON_CELL_0), where)
    assert (cell.chosen, cell.hosts[0].host_cells) == ("host-a", ("1",))


def test_whom_it_counts_and_where_they_are() -> None:
    where = fleet(host("host-a"), host("host-b"))
    where, claim = holding(where, "web-1", tied_to="host-a")
    web = numavm("web-1", SMALL, app="web", tier="front")
    me = numavm("web-2", spreading(app="web"), app="web")
    spec = me.accepted
    assert spec is not None

    def kept_from(one: Vm, wanted: NumaVMSpec) -> dict[str, Away]:
        return spread_from(one, wanted, [web, me], where)

    assert kept_from(me, spec) == {"host-a": Away("ns/web-1")}
    over_cells = numavm("web-2", spreading(SpreadOver.CELL, app="web", tier="front")).accepted
    assert over_cells is not None
    used = {cell for one in claim.cells for cell in one.host_cells} | {claim.overhead_cell}
    assert kept_from(me, over_cells) == {"host-a": Away("ns/web-1", frozenset(used))}
    other_labels = numavm("web-2", spreading(app="db")).accepted
    assert other_labels is not None
    assert kept_from(me, other_labels) == {}
    elsewhere = numavm("web-2", spreading(app="web"), namespace="another")
    assert kept_from(elsewhere, spec) == {}
    assert spread_from(web, spec, [web, me], where) == {}, "the VM itself does not count"


def test_the_digest_covers_spread_whatever_the_order_of_its_entries() -> None:
    def digest(*spread: dict[str, Any]) -> str:
        spec = {**SMALL, "placement": {"spread": list(spread)}}
        return request_hash(NumaVMSpec.model_validate(spec))

    web = {"labelSelector": {"matchLabels": {"app": "web"}}}
    db = {"labelSelector": {"matchLabels": {"app": "db"}}, "over": "Cell"}

    assert digest() == request_hash(NumaVMSpec.model_validate(SMALL))
    assert len({digest(), digest(web), digest({**web, "over": "Cell"}), digest(web, db)}) == 4
    assert digest(web, db) == digest(db, {**web, "over": "Host"})
