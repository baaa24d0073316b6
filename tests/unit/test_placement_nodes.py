"""Node affinity, taints and cordons, with the meaning that Kubernetes gives them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from numavm_api.scheduling import NodeAffinity, Toleration
from numavm_operator.placement import Cause, Fleet, Taint
from support.placement_examples import cause, fleet, host, placed, request, vm

ONE = vm(cores=1, memory="64Mi")
GPU = Taint("gpu", "a100", "NoSchedule")


def required(*terms: dict[str, Any]) -> NodeAffinity:
    return NodeAffinity.model_validate(
        {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    )


def label(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def labelled(**labels: str) -> Fleet:
    return fleet(host("host-a", labels=labels))


@pytest.mark.parametrize(
    ("term", "suits"),
    [
        (label("zone", "In", "a", "b"), True),
        (label("zone", "In", "b"), False),
        (label("zone", "NotIn", "b"), True),
        (label("rack", "NotIn", "b"), True),
        (label("zone", "Exists"), True),
        (label("rack", "Exists"), False),
        (label("rack", "DoesNotExist"), True),
        (label("cores", "Gt", "15"), True),
        (label("cores", "Gt", "16"), False),
        (label("cores", "Lt", "17"), True),
        (label("zone", "Gt", "1"), False),
        (label("rack", "Lt", "1"), False),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["host-a"]}]}, True),
        (
            {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["host-a"]}]},
            False,
        ),
        ({}, False),
    ],
)
def test_a_required_term_suits_a_node_as_it_does_for_pods(
    term: dict[str, Any],
    suits: bool,  # noqa: FBT001 - a column of the table
) -> None:
    wanted = request(ONE, node_affinity=required(term))
    where = labelled(zone="a", cores="16")

    if suits:
        assert placed(wanted, where).node_name == "host-a"
    else:
        assert cause(wanted, where) is Cause.NODE_AFFINITY


def test_terms_are_alternatives_and_what_stands_in_one_holds_together() -> None:
    both = {
        "matchExpressions": [
            *label("zone", "Exists")["matchExpressions"],
            *label("rack", "Exists")["matchExpressions"],
        ]
    }

    assert (
        cause(request(ONE, node_affinity=required(both)), labelled(zone="a")) is Cause.NODE_AFFINITY
    )
    either = required(both, label("zone", "In", "a"))
    assert placed(request(ONE, node_affinity=either), labelled(zone="a"))


def test_the_largest_sum_of_preferred_weights_wins_among_equal_distances() -> None:
    preferred = NodeAffinity.model_validate(
        {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 60, "preference": label("zone", "In", "a")},
                {"weight": 50, "preference": label("zone", "In", "b")},
                {"weight": 20, "preference": label("fast", "Exists")},
            ]
        }
    )
    where = fleet(
        host("host-a", labels={"zone": "a"}), host("host-b", labels={"zone": "b", "fast": ""})
    )

    assert placed(request(ONE), where).node_name == "host-a"
    assert placed(request(ONE, node_affinity=preferred), where).node_name == "host-b"


def tainted(*taints: Taint, cordoned: bool = False) -> Fleet:
    one = fleet(host("host-a")).hosts["host-a"]
    node = replace(one.node, taints=taints, cordoned=cordoned)
    return Fleet.empty().with_host(replace(one, node=node))


@pytest.mark.parametrize(
    ("toleration", "comes"),
    [
        ({"key": "gpu", "value": "a100"}, True),
        ({"key": "gpu", "value": "a100", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "a100", "effect": "NoExecute"}, False),
        ({"key": "gpu", "value": "h100"}, False),
        ({"key": "gpu"}, False),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "fpga", "operator": "Exists"}, False),
    ],
)
def test_a_taint_keeps_away_who_does_not_tolerate_it(
    toleration: dict[str, str],
    comes: bool,  # noqa: FBT001 - a column of the table
) -> None:
    wanted = request(ONE, tolerations=[Toleration.model_validate(toleration)])

    if comes:
        assert placed(wanted, tainted(GPU)).node_name == "host-a"
    else:
        assert cause(wanted, tainted(GPU)) is Cause.TAINT


def test_a_cordon_keeps_away_and_is_tolerated_as_pods_do() -> None:
    drain = Toleration(key="node.kubernetes.io/unschedulable", operator="Exists")

    assert cause(request(ONE), tainted(cordoned=True)) is Cause.TAINT
    assert placed(request(ONE, tolerations=[drain]), tainted(cordoned=True))


def test_a_silent_kubelet_keeps_no_vm_away() -> None:
    silent = [
        Taint(f"node.kubernetes.io/{state}", "", effect)
        for state in ("not-ready", "unreachable")
        for effect in ("NoSchedule", "NoExecute")
    ]

    assert placed(request(ONE), tainted(*silent)).node_name == "host-a"


def test_a_soft_taint_only_makes_another_host_better() -> None:
    soft = tainted(Taint("noisy", "", "PreferNoSchedule"))

    assert placed(request(ONE), soft).node_name == "host-a"
    both = soft.with_host(fleet(host("host-b")).hosts["host-b"])
    assert placed(request(ONE), both).node_name == "host-b"
