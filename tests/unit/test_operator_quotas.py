"""Quotas of a namespace: what counts, and what a claim that would break one is told."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numavm_api.cpuset import CpuSet
from numavm_api.placement import Placement
from numavm_api.quantity import MEBIBYTE, Bytes
from numavm_operator.objects import Vm, VmKey
from numavm_operator.quotas import Quotas, Resource, held_by, read_quota
from numavm_operator.reconcile.printable import printable_status
from numavm_operator.reconcile.report import report
from numavm_operator.reconcile.world import Outcome, Waiting
from support.operator_worlds import WorldMaker, claim


def vm(name: str, placement: Placement | None = None) -> Vm:
    made = WorldMaker(placement=placement).make().vm
    return replace(made, key=VmKey("ns", name), uid=name)


def quotas(*held: Vm, name: str = "team", **hard: Any) -> Quotas:
    found = Quotas()
    metadata = {"namespace": "ns", "name": name, "resourceVersion": "1"}
    named = {f"numavm.io/{key.replace('_', '-')}": value for key, value in hard.items()}
    quota = read_quota({"metadata": metadata, "spec": {"hard": {**named, "pods": "3"}}})
    found.quota_changed(quota.key, quota)
    for one in held:
        found.vm_changed(one.key, None, one)
    return found


TWO = claim(cpus=CpuSet.of(1, 2))
"""Two vCPUs, both dedicated, 256Mi."""


@pytest.mark.parametrize(
    ("hard", "words"),
    [
        ({"vcpus": "4"}, None),
        ({"vcpus": "3"}, ["numavm.io/vcpus 3", "hold 2", "wants 2 more", "quota to 4", "hold 1."]),
        ({"dedicated_cpus": "3"}, ["numavm.io/dedicated-cpus 3"]),
        ({"memory": "512Mi"}, None),
        ({"memory": "0.5G"}, ["numavm.io/memory", "wants 256Mi more", "to 512Mi"]),
        ({"vcpus": "1k", "memory": "1Ti"}, None),
    ],
)
def test_what_fits_in_a_quota_and_what_does_not(hard: Any, words: list[str] | None) -> None:
    told = quotas(vm("a", TWO), **hard).excess(vm("b"), TWO)
    assert (told is None) == (words is None)
    assert [word for word in words or [] if word not in (told or "")] == []


def test_quotas_of_others_and_of_other_namespaces_do_not_count() -> None:
    found = quotas(vcpus="2")
    elsewhere = replace(vm("b"), key=VmKey("other", "b"))
    assert found.limits("ns")
    assert not found.limits("other")
    assert found.excess(elsewhere, claim(cpus=CpuSet.of(1, 2, 3))) is None
    assert not quotas().limits("ns")


def test_what_a_vm_holds_already_is_not_asked_for_again() -> None:
    held = vm("a", TWO)
    found = quotas(held, vcpus="2")
    moved = claim("c2", cpus=CpuSet.of(5, 6))
    assert found.excess(held, moved) is None
    grown = claim("c3", cpus=CpuSet.of(1, 2, 3))
    assert "wants 1 more" in (found.excess(held, grown) or "")


def test_a_quota_below_what_is_held_takes_nothing_away() -> None:
    held = vm("a", TWO)
    found = quotas(held, vcpus="1")
    assert found.excess(held, claim("c2", cpus=CpuSet.of(1))) is None


def test_a_halted_vm_and_one_that_is_gone_hold_nothing() -> None:
    held = vm("a", TWO)
    found = quotas(held, vcpus="2")
    assert found.excess(vm("b"), TWO) is not None
    found.vm_changed(held.key, held, vm("a"))
    assert found.excess(vm("b"), TWO) is None
    other = vm("c", TWO)
    found.vm_changed(other.key, None, other)
    assert found.excess(vm("b"), TWO) is not None
    found.vm_changed(other.key, other, None)
    assert found.excess(vm("b"), TWO) is None


def test_modules_count_as_memory_and_vcpus_that_no_cpu_is_held_for_do_not_count() -> None:
    cells = [
        cell.model_copy(update={"plugged": Bytes(64 * MEBIBYTE), "held_vcpus": CpuSet.of(0)})
        for cell in TWO.cells
    ]
    found = held_by(TWO.model_copy(update={"cells": cells}))
    assert found[Resource.MEMORY] == 320 * MEBIBYTE
    assert found[Resource.VCPUS] == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=20))
def test_what_is_held_is_the_sum_of_the_last_words(changes: list[tuple[str, int]]) -> None:
    found, known = quotas(vcpus="0"), dict[str, Vm]()
    for name, cpus in changes:
        placement = claim(cpus=CpuSet(frozenset(range(cpus)))) if cpus else None
        new = vm(name, placement)
        found.vm_changed(new.key, known.get(name), new)
        known[name] = new
    total = sum(held_by(one.status.placement)[Resource.VCPUS] for one in known.values())
    told = found.excess(vm("new"), TWO) or ""
    assert f"hold {total}, and this one wants 2 more" in told


def test_it_is_a_condition() -> None:
    world = WorldMaker(waiting=Waiting(Outcome.QUOTA_EXCEEDED, "too much")).make()
    conditions = {one.type: one for one in report(world, now="now").conditions}
    for kind in ("Scheduled", "Ready"):
        one = conditions[kind]
        assert (one.status, one.reason, one.message) == ("False", "QuotaExceeded", "too much")
    assert printable_status(world) == "ErrorUnschedulable"
