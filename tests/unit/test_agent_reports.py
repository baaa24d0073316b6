"""What the agent says of VMs and of its host: conditions, columns, and what counts as nothing new."""

from typing import Any

import pytest

from numavm_agent.reconcile.host_probe import Qemu
from numavm_agent.reconcile.host_report import HostView, host_status, status_without_libvirt
from numavm_agent.reconcile.vm_report import Running, VmView, own_part, vm_status
from numavm_agent.topology.capabilities import EmulatorCapabilities
from numavm_agent.topology.kvm import KvmProbe
from numavm_agent.topology.readings import HostTopology
from numavm_agent.verify.judge import Problem, Verdict
from numavm_api.conditions import ClaimRefusalReason, Reason
from numavm_api.cpuset import CpuSet
from numavm_api.lifecycle import Wanted
from numavm_api.numahost import NumaHostSpec, NumaHostStatus
from numavm_api.pools import OtherUsers, effective_pools
from numavm_api.quantity import MEBIBYTE, Bytes
from numavm_api.vm_status import (
    DomainRefusal,
    DomainState,
    DomainStatus,
    NumaStatus,
    NumaVMStatus,
    PausedReason,
    ShutoffReason,
)
from support.agent_values import cells, claim, held, shared_claim, spec, vm

NOW = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T01:00:00Z"
NUMA = NumaStatus(cells=[], verified_at=NOW)


def view(state: DomainState = DomainState.SHUTOFF, **changes: Any) -> VmView:
    domain = DomainStatus(node_name="node", state=state, **changes.pop("domain", {}))
    there = state in (DomainState.RUNNING, DomainState.PAUSED, DomainState.SHUTDOWN)
    running = Running(spec(), Bytes(128 * MEBIBYTE), Verdict(NUMA, ())) if there else None
    fields: dict[str, Any] = {
        "vm": vm(),
        "wanted": Wanted.RUNNING,
        "domain": domain,
        "running": running,
        "starting": False,
        "start_error": None,
        "waits_for": None,
    }
    return VmView(**{**fields, **changes})


def conditions(of: VmView) -> dict[str, tuple[str, str, str]]:
    found = vm_status(of, now=NOW)["conditions"]
    return {one["type"]: (one["status"], one["reason"], one["message"]) for one in found}


REFUSAL = DomainRefusal(
    placement_id="c", reason=ClaimRefusalReason.CPU_TAKEN, message="CPU 3 is held", time=NOW
)
STOPPED, CRASHED = ShutoffReason.STOPPED, ShutoffReason.CRASHED


@pytest.mark.parametrize(
    ("seen", "status", "reason", "says"),
    [
        (view(DomainState.RUNNING), "True", Reason.RUNNING, "runs"),
        (view(DomainState.PAUSED), "False", Reason.PAUSED, "libvirt does not say why"),
        (
            view(DomainState.PAUSED, domain={"paused_reason": PausedReason.USER}),
            "False",
            Reason.PAUSED,
            "virsh resume",
        ),
        (
            view(DomainState.SHUTDOWN, domain={"shutoff_reason": STOPPED}),
            "True",
            Reason.STOPPING,
            "was asked",
        ),
        (view(DomainState.SHUTDOWN), "True", Reason.STOPPING, "by itself"),
        (view(domain={"refused": REFUSAL}), "False", Reason.CLAIM_REFUSED, "CPU 3 is held"),
        (view(wanted=Wanted.HALTED), "False", Reason.HALTED, "Halted"),
        (view(wanted=Wanted.FINISHED), "False", Reason.FINISHED, "ended"),
        (view(wanted=Wanted.DELETED), "False", Reason.STOPPING, "deleted"),
        (view(starting=True), "False", Reason.STARTING, "started"),
        (view(), "False", Reason.NOT_RUNNING, "Not started yet"),
        (view(waits_for="pages"), "False", Reason.NOT_RUNNING, "pages"),
        (view(domain={"shutoff_reason": CRASHED}), "False", Reason.GUEST_CRASHED, "crashed"),
        (
            view(domain={"shutoff_reason": ShutoffReason.HOST_LOST}),
            "False",
            Reason.HOST_LOST,
            "host went down",
        ),
        (
            view(domain={"shutoff_reason": CRASHED, "failures": 3, "retry_at": LATER}),
            "False",
            Reason.CRASH_LOOP_BACK_OFF,
            f"3 times in a row; next start at {LATER}",
        ),
        (
            view(domain={"shutoff_reason": ShutoffReason.START_FAILED}, start_error="no room"),
            "False",
            Reason.START_FAILED,
            "no room",
        ),
    ],
)
def test_running_says_why(seen: VmView, status: str, reason: str, says: str) -> None:
    found = conditions(seen)["Running"]
    assert (status, reason) == found[:2]
    assert says in found[2]


def test_a_failed_start_of_an_earlier_agent_keeps_its_reason() -> None:
    first = vm_status(
        view(
            domain={"shutoff_reason": ShutoffReason.START_FAILED, "retry_at": NOW},
            start_error="no room",
        ),
        now=NOW,
    )
    later = vm(status=NumaVMStatus.model_validate({"conditions": first["conditions"]}))
    found = conditions(view(vm=later, domain={"shutoff_reason": ShutoffReason.START_FAILED}))
    assert found["Running"][2] == "no room"


@pytest.mark.parametrize(
    ("verdict", "status", "reason"),
    [
        (None, "Unknown", Reason.NOT_VERIFIED),
        (Verdict(NUMA, ()), "True", Reason.KERNEL_CONFIRMS),
        (
            Verdict(NUMA, (Problem(Reason.PAGES_MISPLACED, "4Ki on 1"),)),
            "False",
            Reason.PAGES_MISPLACED,
        ),
    ],
)
def test_aligned_is_what_the_kernel_confirms(
    verdict: Verdict | None, status: str, reason: str
) -> None:
    running = Running(spec(), Bytes(128 * MEBIBYTE), verdict)
    found = conditions(view(DomainState.RUNNING, running=running))["NumaAligned"]
    assert (status, reason) == found[:2]


def test_a_vm_that_does_not_run_is_not_aligned_nor_emulated() -> None:
    found = conditions(view())
    assert {"Unknown"} == {found["NumaAligned"][0], found["SoftwareEmulation"][0]}


@pytest.mark.parametrize(("kind", "status"), [("TCG", "True"), ("KVM", "False")])
def test_emulation_is_said(kind: str, status: str) -> None:
    found = conditions(view(DomainState.RUNNING, domain={"type": kind}))
    assert status == found["SoftwareEmulation"][0]


def test_the_same_again_is_the_same_document() -> None:
    first = vm_status(view(DomainState.RUNNING), now=NOW)
    foreign = {"type": "Ready", "status": "True", "reason": "Running", "message": "", "x": 1}
    raw = {**first, "conditions": [*first["conditions"], foreign], "nodeName": "node"}
    status = NumaVMStatus.model_validate(first)
    again = vm_status(view(DomainState.RUNNING, vm=vm(status=status)), now=LATER)
    assert again == own_part(raw)


def test_a_changed_status_has_a_new_time() -> None:
    first = vm_status(view(), now=NOW)
    status = NumaVMStatus.model_validate(first)
    again = vm_status(view(DomainState.RUNNING, vm=vm(status=status)), now=LATER)
    times = {one["type"]: one["lastTransitionTime"] for one in again["conditions"]}
    assert (times["Running"], times["RestartRequired"]) == (LATER, NOW)


QEMU = Qemu(
    libvirt_version="9.0.0",
    qemu_version="7.2.22",
    emulator=EmulatorCapabilities("/qemu", ("pc-q35-7.2",), {"q35": "pc-q35-7.2"}, 288, kvm=True),
    kvm=KvmProbe(works=False, message="hangs"),
)


def host_view(**changes: Any) -> HostView:
    claims = changes.get("claims", ())
    others = changes.get("others", OtherUsers())
    administrator = changes.get("spec", NumaHostSpec())
    fields: dict[str, Any] = {
        "agent_version": "1",
        "generation": 2,
        "spec": administrator,
        "topology": HostTopology("boot", (), CpuSet(), ()),
        "cells": cells(),
        "pools": effective_pools(administrator, cells(), [one.placement for one in claims], others),
        "others": others,
        "claims": claims,
        "highest_epoch": 4,
        "qemu": QEMU,
    }
    return HostView(**{**fields, **changes})


def host_condition(of: HostView, kind: str) -> tuple[str, str, str]:
    found = host_status(of, NumaHostStatus(), now=NOW).conditions
    return next((one.status, one.reason, one.message) for one in found if one.type == kind)


def test_an_idle_host_is_ready_and_its_columns_say_what_is_free() -> None:
    status = host_status(host_view(), NumaHostStatus(), now=NOW)
    assert host_condition(host_view(), "Ready")[0] == "True"
    assert status.summary == {
        "cells": "2",
        "cpus": "2/2",
        "memory": "1/1Gi",
        "hugepages": "2Mi: 128/128",
        "vms": "0",
    }


def test_claims_are_sorted_and_subtracted_in_the_columns() -> None:
    status = host_status(
        host_view(claims=(held(claim(), "b"), held(shared_claim(), "a"))),
        NumaHostStatus(),
        now=NOW,
    )
    assert [one.name for one in status.claims] == ["a", "b"]
    assert tuple(status.summary[key] for key in ("cpus", "memory", "hugepages", "vms")) == (
        "0/2",
        "0.9/1Gi",
        "2Mi: 64/128",
        "2",
    )


def test_a_host_that_is_being_probed_is_not_ready_and_keeps_what_was_known() -> None:
    before = host_status(host_view(), NumaHostStatus(), now=NOW)
    status = host_status(host_view(qemu=None), before, now=NOW)
    assert host_condition(host_view(qemu=None), "Ready")[:2] == ("False", Reason.STARTING)
    assert before.capabilities == status.capabilities


@pytest.mark.parametrize(
    ("seen", "kind", "reason", "says"),
    [
        (host_view(), "PoolsConfigured", Reason.DEFAULT_POOLS, "dedicated 1,3"),
        (
            host_view(spec=NumaHostSpec(dedicated_cpus=CpuSet.of(1))),
            "PoolsConfigured",
            Reason.ADMINISTRATOR_POOLS,
            "dedicated 1,",
        ),
        (
            host_view(others=OtherUsers(kubelet_runs=True)),
            "PoolsConfigured",
            Reason.NO_POOL,
            "reservedSystemCPUs",
        ),
        (
            host_view(spec=NumaHostSpec(dedicated_cpus=CpuSet.of(1, 9))),
            "PoolsConfigured",
            Reason.INVALID_POOLS,
            "CPU 9 is not online",
        ),
        (host_view(), "ClaimsConsistent", Reason.CONSISTENT, "Nothing is held twice"),
        (
            host_view(claims=(held(claim(), "gone", orphan=True),)),
            "ClaimsConsistent",
            Reason.ORPHANED_DOMAINS,
            "ns/gone",
        ),
        (
            host_view(claims=(held(claim(), "a"), held(claim(), "b"))),
            "ClaimsConsistent",
            Reason.OVERLAP,
            "CPU 1,3 is held by ns/b and ns/a",
        ),
        (
            host_view(claims=(held(claim(), "a"),), others=OtherUsers(domain_cpus=CpuSet.of(3))),
            "ClaimsConsistent",
            Reason.OVERLAP,
            "CPU 3 of ns/a is pinned by a domain",
        ),
    ],
)
def test_conditions_of_a_host(seen: HostView, kind: str, reason: str, says: str) -> None:
    found = host_condition(seen, kind)
    assert reason == found[1]
    assert says in found[2]


def test_without_libvirt_what_was_held_stays_held() -> None:
    before = host_status(host_view(claims=(held(claim(), "a"),)), NumaHostStatus(), now=NOW)
    after = status_without_libvirt(before, "gone", generation=2, boot_id="boot", now=LATER)
    ready = next(one for one in after.conditions if one.type == "Ready")
    assert before.claims == after.claims
    assert (
        ready.status,
        ready.reason,
        ready.last_transition_time,
    ) == ("False", Reason.LIBVIRT_UNAVAILABLE, LATER)
