"""Why a host is not chosen: causes, the summary and the explanation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from numavm_api.powers import Grant, Power
from numavm_operator.placement import (
    Cause,
    Policy,
    Undecided,
    explain,
    place,
    summary,
)
from support.placement_examples import (
    TWO_CELLS,
    cause,
    fleet,
    host,
    placed,
    refused,
    request,
    vm,
)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (host(spec={"unschedulable": True}), Cause.UNSCHEDULABLE),
        (host(spec={"fenced": True}), Cause.FENCED),
        (host(reachable=False), Cause.UNREACHABLE),
        (host(status={}), Cause.NOT_READY),
        (host(labels={"zone": "b"}), Cause.NODE_SELECTOR),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_host_that_is_out_is_refused_with_its_cause(one: dict[str, Any], expected: Cause) -> None:
    labelled = {**one, "labels": one["labels"] or {"zone": "a"}}

    assert (
        cause(request(vm(cores=1, memory="64Mi"), node_selector={"zone": "a"}), fleet(labelled))
        is expected
    )


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"excluded": {"host-a": "CpuTaken: CPU 3"}}, Cause.EXCLUDED),
        ({"tied_to": "host-b"}, Cause.TIED_ELSEWHERE),
        ({"machine_type": "pc-q35-9.2"}, Cause.MACHINE_TYPE),
        ({"host_paths": ("/var/lib/vmsecret/disk",)}, Cause.NOT_PERMITTED),
        ({"powers": (Grant(Power.REALTIME),)}, Cause.POWER_NOT_PERMITTED),
        ({"powers": (Grant(Power.LOCKED_MEMORY),)}, Cause.POWER_NOT_PERMITTED),
        ({"powers": (Grant(Power.BRIDGES, "br0"),)}, Cause.NETWORK_NOT_PERMITTED),
        ({"domain_type": "TCG"}, Cause.EMULATION_NOT_ALLOWED),
    ],
)
def test_what_the_request_asks_of_a_host(more: dict[str, Any], expected: Cause) -> None:
    assert cause(request(vm(cores=1, memory="64Mi"), **more), fleet(host())) is expected


@pytest.mark.parametrize(
    ("power", "permitted", "named"),
    [
        (Grant(Power.REALTIME), {"realtime": True}, "spec.permitted.realtime"),
        (Grant(Power.LOCKED_MEMORY), {"lockedMemory": True}, "spec.permitted.lockedMemory"),
        (Grant(Power.BRIDGES, "br0"), {"bridges": ["br0"]}, "spec.permitted (bridges: br0)"),
        (Grant(Power.NETWORKS, "lan"), {"networks": ["lan"]}, "spec.permitted (networks: lan)"),
    ],
    ids=str,
)
def test_a_power_leads_to_the_host_that_permits_it_and_names_the_field_where_none_does(
    power: Grant, permitted: dict[str, Any], named: str
) -> None:
    refusing, permitting = host("host-a"), host("host-b")
    permitting["status"]["permitted"] |= permitted
    wanted = request(vm(cores=1, memory="64Mi"), powers=(power,))

    assert placed(wanted, fleet(refusing, permitting)).node_name == "host-b"
    assert named in summary(refused(wanted, fleet(refusing)))


def test_auto_prefers_kvm_and_takes_emulation_where_it_is_allowed() -> None:
    slow, fast = host("host-a"), host("host-b")
    slow["status"]["capabilities"] |= {"kvm": False, "emulationAllowed": True}
    wanted = request(vm(cores=1, memory="64Mi"))

    assert placed(wanted, fleet(slow, fast)).node_name == "host-b"
    assert placed(wanted, fleet(slow)).node_name == "host-a"


def test_the_summary_counts_causes_names_the_nearest_miss_and_an_edit() -> None:
    where = fleet(
        host("host-a", cores=4),
        host("host-b", cores=3),
        host("host-c", spec={"unschedulable": True}),
    )

    text = summary(refused(request(vm({"cpus": "0-3", "memory": "64Mi"}, cores=4)), where))

    assert text == (
        "0/3 hosts fit: 2 with 3 free dedicated CPUs in its best cell, 4 wanted (nearest: host-a); "
        "1 unschedulable. To help host-a: free 1 CPUs on host cell 0, ask for 3 per cell, "
        "or use more, smaller cells"
    )


def test_the_summary_stays_short_whatever_agents_write() -> None:
    wanted = request(
        vm(cores=9, memory="64Mi"), excluded={f"host-{at}": "x" * 2000 for at in range(9)}
    )

    text = summary(refused(wanted, fleet(*(host(f"host-{at}") for at in range(10)))))

    assert len(text) <= 1000
    assert "9 refused it lately" in text


def test_a_search_without_budget_is_undecided_and_not_a_refusal() -> None:
    outcome = place(request(TWO_CELLS), fleet(host()), Policy(search_steps=0))

    assert isinstance(outcome, Undecided)
    assert outcome.undecided == ("host-a",)
    assert summary(outcome) == "0/1 hosts known to fit, 1 not searched to the end"


def test_explain_says_per_cell_what_is_missing_and_is_json() -> None:
    told = explain(request(vm({"cpus": "0-3", "memory": "8Gi"}, cores=4)), fleet(host())).to_api()

    assert told["chosen"] is None
    assert told["hosts"][0]["cells"][0]["lacks"] == [
        {"cause": "DedicatedCpus", "wanted": 4, "available": 3},
        {"cause": "Memory", "wanted": 8 << 30, "available": 4 << 30},
    ]
    assert json.loads(json.dumps(told)) == told


def test_explain_says_why_a_placed_vm_is_where_it_is() -> None:
    where = fleet(host("host-a", far=31), host("host-b", far=21))
    wanted = request(TWO_CELLS)
    outcome = placed(wanted, where)
    where = where.with_claim(outcome.node_name, "vm", outcome.placement)

    told = explain(wanted, where)

    assert (told.chosen, told.held) == ("host-b", ("host-b",))
    assert told.message == "host-b of 2 hosts that fit: before host-a, distance 42 against 62"
