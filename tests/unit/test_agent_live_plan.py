"""What is next for a running guest's vCPUs and modules: every row of the tables, and that they come to an end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from numavm_agent.domain.metadata import DomainRecord, Operation
from numavm_agent.libvirt.memory_xml import resized_memory
from numavm_agent.reconcile.decide import Change, News, Wish, change_phase
from numavm_agent.reconcile.hot_report import HotNow, hot_findings
from numavm_agent.reconcile.live_plan import (
    Shown,
    Unplugging,
    asking,
    balloon_operation,
    balloon_target,
    live_plan,
    plug_operation,
    read_unplugging,
    spec_of_shown,
    unplug_operation,
)
from numavm_agent.reconcile.module_changes import Asked, ModuleStep, next_module_step
from numavm_agent.reconcile.module_reader import is_worth_telling
from numavm_api.cpuset import CpuSet
from numavm_api.effective import effective
from numavm_api.effective_modules import EffectiveModule, ModuleKind
from numavm_api.errors import HostFaultError
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.quantity import BASE_PAGE, GIBIBYTE, MEBIBYTE, Bytes
from numavm_api.vm_status import ModuleStatus
from support.agent_values import shared_claim

NONE = CpuSet()


def wanted(requested: int | None = None) -> EffectiveModule:
    return EffectiveModule(
        name="m",
        kind=ModuleKind.DIMM if requested is None else ModuleKind.VIRTIO_MEM,
        cell=0,
        size=GIBIBYTE,
        page_size=BASE_PAGE,
        requested=None if requested is None else Bytes(requested),
    )


def there(
    name: str = "m", requested: int | None = None, current: int | None = None
) -> ModuleStatus:
    model = "dimm" if requested is None else "virtio-mem"
    amounts = [None if one is None else Bytes(one) for one in (requested, current)]
    return ModuleStatus(
        name=name, model=model, cell=0, size=GIBIBYTE, requested=amounts[0], current=amounts[1]
    )


WISHES = {"none": None, "dimm": wanted(), "64": wanted(64), "128": wanted(128)}
HAS = {"none": None, "dimm": there(), "64": there(requested=64)}
STEPS = {
    ("none", "none"): (ModuleStep.NOTHING, ModuleStep.NOTHING),
    ("none", "dimm"): (ModuleStep.UNPLUG, ModuleStep.AWAIT),
    ("none", "64"): (ModuleStep.UNPLUG, ModuleStep.AWAIT),
    ("dimm", "none"): (ModuleStep.PLUG, ModuleStep.PLUG),
    ("64", "none"): (ModuleStep.PLUG, ModuleStep.PLUG),
    ("128", "none"): (ModuleStep.PLUG, ModuleStep.PLUG),
    ("dimm", "dimm"): (ModuleStep.NOTHING, ModuleStep.NOTHING),
    ("64", "64"): (ModuleStep.NOTHING, ModuleStep.NOTHING),
    ("128", "64"): (ModuleStep.RESIZE, ModuleStep.RESIZE),
}
"""(wanted, there) -> what is next where the guest was not asked for it, and where it was."""


@pytest.mark.parametrize(("wish", "has"), STEPS)
def test_the_next_step_of_a_module_follows_from_what_is_wanted_and_there(
    wish: str, has: str
) -> None:
    steps = tuple(next_module_step(WISHES[wish], HAS[has], asked) for asked in Asked)
    assert STEPS[wish, has] == steps


def guest(sockets: int = 1, *modules: str) -> NumaVMSpec:
    devices = [{"name": name, "cell": 0, "size": "1Gi", "dimm": {}} for name in modules]
    memory = {"guest": "1Gi", "maxGuest": "8Gi"}
    cpu = {"sockets": sockets, "maxSockets": 4}
    domain: dict[str, Any] = {"memory": memory, "cpu": cpu, "devices": {"memory": devices}}
    return NumaVMSpec.model_validate({"domain": domain})


def shown(vcpus: str, *modules: str) -> Shown:
    return Shown(CpuSet.parse(vcpus), {name: there(name) for name in modules})


@pytest.mark.parametrize("vcpus", [("0", "0-3"), ("0-3", "0"), ("0-1", "0-1")])
@pytest.mark.parametrize("modules", [("", "ab"), ("ab", ""), ("ab", "bc")])
def test_from_every_state_the_domain_becomes_what_is_wanted_and_the_guest_is_asked_once(
    vcpus: tuple[str, str], modules: tuple[str, str]
) -> None:
    aim = effective(guest(len(CpuSet.parse(vcpus[1])), *modules[1]))
    now, asked = shown(vcpus[0], *modules[0]), None
    removable = CpuSet.parse("1-3")
    plan = live_plan(aim, now, removable=removable, asked=None, generation=2)
    after = {*modules[0], *plan.plug}
    assert after | {*modules[1]} == {*modules[0], *modules[1]}
    asked = Unplugging(2, plan.goes)
    now = shown(str(now.vcpus | plan.on), *after)
    again = live_plan(aim, now, removable=removable, asked=asked, generation=2)
    assert (again.comes, again.goes, again.awaited) == (False, frozenset(), plan.goes)
    newer = live_plan(aim, now, removable=removable, asked=asked, generation=3)
    assert newer.goes == plan.goes
    gone = shown(str(now.vcpus - plan.off), *(after - set(plan.unplug)))
    done = live_plan(aim, gone, removable=removable, asked=asked, generation=2)
    assert (done.comes, done.goes, done.awaited) == (False, frozenset(), frozenset())
    assert (aim.boot_vcpus, {*modules[1]}) == (gone.vcpus, {*gone.modules})


def test_vcpus_that_qemu_booted_with_are_not_asked_for() -> None:
    plan = live_plan(
        effective(guest(1)), shown("0-3"), removable=CpuSet.of(3), asked=None, generation=1
    )
    assert plan.off == CpuSet.of(3)


def test_the_domain_remembers_what_its_guest_has_not_given_back() -> None:
    before, aim = guest(3, "a", "b"), guest(1, "b", "c")
    half = spec_of_shown(before, aim, shown("0,2", "a", "b", "c"))
    assert str(half.domain.cpu.boot_vcpus) == "0,2"
    assert {one.name for one in half.domain.devices.memory} == {"a", "b", "c"}
    assert spec_of_shown(before, aim, shown("0", "b", "c")) == aim


def test_what_was_asked_for_is_read_back_and_a_damaged_record_asks_again() -> None:
    for refused in (frozenset[str](), frozenset({"m", "vcpu:3"})):
        asks = Unplugging(7, frozenset({"m", "n", "vcpu:3"}), refused)
        assert asks == read_unplugging(unplug_operation(asks))
    assert read_unplugging(asking(Unplugging(7, frozenset("m")))) == Unplugging(0)
    damaged = Operation("Unplug", "m", "nothing", "Asked@x")
    assert read_unplugging(damaged) == Unplugging(0)
    plan = live_plan(effective(guest(2, "m")), shown("0"), removable=NONE, asked=None, generation=1)
    assert read_unplugging(plug_operation(shown("0"), plan)) is None


def claimed(plugged: int, held: str = "0-3") -> Placement:
    made = shared_claim()
    update = {
        "vcpus": CpuSet.parse("0-3"),
        "held_vcpus": CpuSet.parse(held),
        "plugged": Bytes(plugged),
    }
    return made.model_copy(update={"cells": [made.cells[0].model_copy(update=update)]})


def recorded(spec: NumaVMSpec, operation: Operation | None = None) -> DomainRecord:
    return DomainRecord(
        uid="u",
        namespace="ns",
        name="vm",
        generation=1,
        restart_token=None,
        placement=claimed(2 * GIBIBYTE),
        spec=spec,
        operation=operation,
    )


ASKED = unplug_operation(Unplugging(4, frozenset({"b"})))


@pytest.mark.parametrize(
    ("news", "generation", "change"),
    [
        (News.NONE, 4, Change.NONE),
        (News.NONE, 5, Change.SPEC),
        (News.HEARD, 4, Change.SPEC),
        (News.LOSS, 4, Change.SPEC),
    ],
)
def test_a_guest_that_was_asked_is_left_alone_until_there_is_news_or_another_spec(
    news: News, generation: int, change: Change
) -> None:
    wish = Wish(guest(1, "a"), generation, NONE, news)
    record = recorded(guest(1, "a", "b"), ASKED)
    assert change == change_phase(record, record.placement, None, wish)


def test_what_else_changes_meanwhile_does_not_wait_for_the_guest() -> None:
    record = recorded(guest(1, "a", "b"), ASKED)
    more = Wish(guest(2, "a"), 4, NONE, News.NONE)
    assert change_phase(record, record.placement, None, more) is Change.SPEC
    back = Wish(guest(1, "a", "b"), 4, NONE, News.NONE)
    assert change_phase(record, record.placement, None, back) is Change.SPEC
    at_rest = replace(record, operation=None)
    assert change_phase(at_rest, record.placement, None, back) is Change.NONE


def ballooned(target: str | None, period: int = 10) -> NumaVMSpec:
    balloon = {"model": "virtio", "target": target, "statsPeriodSeconds": period}
    memory = {"guest": "1Gi", "balloon": {key: at for key, at in balloon.items() if at is not None}}
    return NumaVMSpec.model_validate({"domain": {"memory": memory}})


def test_a_balloon_is_recorded_before_it_is_set_and_one_cut_off_is_set_anew() -> None:
    record = recorded(ballooned("512Mi"))
    assert balloon_operation(record, ballooned("512Mi"), shown("0")) is None
    assert balloon_operation(record, guest(), shown("0")) is None
    for aim in (ballooned("768Mi"), ballooned(None), ballooned("512Mi", 5)):
        operation = balloon_operation(record, aim, shown("0"))
        assert operation is not None
        assert operation.kind == "Balloon"
        assert operation.before != operation.after
        cut_off = replace(record, operation=operation)
        back = Wish(ballooned("512Mi"), 4, NONE, News.NONE)
        assert change_phase(cut_off, record.placement, None, back) is Change.SPEC
        assert balloon_operation(cut_off, ballooned("512Mi"), shown("0")) is not None


def test_a_balloon_is_set_anew_when_a_dimm_came_or_went() -> None:
    for target, whole in (("512Mi", 512 * MEBIBYTE), (None, 2 * GIBIBYTE)):
        wish = ballooned(target)
        assert balloon_operation(recorded(wish), wish, shown("0", "a")) is not None
        assert balloon_target(wish, shown("0", "a")) == whole
        rubber = Shown(NONE, {"v": there("v", requested=64, current=64)})
        assert balloon_operation(recorded(wish), wish, rubber) is None
    assert balloon_target(ballooned(None), shown("0")) == GIBIBYTE


@pytest.mark.parametrize(
    ("running", "target", "hot", "vcpus", "memory"),
    [
        (guest(1), guest(1), HotNow(), "NoChange", "NoChange"),
        (guest(1), guest(2, "a"), HotNow(), "AwaitingClaim", "AwaitingClaim"),
        (guest(1, "b"), guest(1), HotNow(ASKED), "NoChange", "AwaitingGuest"),
        (
            guest(1, "b"),
            guest(1),
            HotNow(unplug_operation(Unplugging(4, frozenset("b"), frozenset("b")))),
            "NoChange",
            "GuestRefused",
        ),
        (
            guest(2),
            guest(1),
            HotNow(unplug_operation(Unplugging(4, frozenset({"vcpu:1"})))),
            "AwaitingGuest",
            "NoChange",
        ),
        (
            guest(1),
            guest(2),
            HotNow(Operation("Plug", "", "vCPUs 1", "Plug"), error="no"),
            "ChangeFailed",
            "NoChange",
        ),
        (
            guest(1),
            guest(1, "a"),
            HotNow(Operation("Plug", "", "a", "Plug"), error="no"),
            "NoChange",
            "ChangeFailed",
        ),
        (
            guest(1),
            guest(1),
            HotNow(Operation("Balloon", "1Gi", "512Mi", "Balloon"), error="no"),
            "NoChange",
            "ChangeFailed",
        ),
    ],
)
def test_each_state_of_a_change_has_its_reason(
    running: NumaVMSpec, target: NumaVMSpec, hot: HotNow, vcpus: str, memory: str
) -> None:
    found = hot_findings(running, target, (), hot)
    assert [(one.type, one.reason) for one in found] == [
        ("HotVCPUChange", vcpus),
        ("HotMemoryChange", memory),
    ]
    statuses = {"NoChange": "True", "GuestRefused": "False", "ChangeFailed": "False"}
    assert all(one.status == statuses.get(one.reason, "Unknown") for one in found)


def test_virtio_mem_that_the_guest_has_not_followed_is_awaited() -> None:
    module = there(requested=128 * MEBIBYTE, current=64 * MEBIBYTE)
    found = hot_findings(guest(1), guest(1), [module], HotNow())
    assert (found[1].reason, "64Mi of the 128Mi" in found[1].message) == ("AwaitingGuest", True)


def test_a_module_that_came_or_went_is_told_at_once() -> None:
    assert is_worth_telling((), (there(),), seconds=0)
    assert is_worth_telling((there(),), (), seconds=0)
    assert not is_worth_telling((there(),), (there(),), seconds=1000)


def test_only_the_requested_amount_of_the_named_device_changes() -> None:
    xml = """<domain><devices>
        <memory model='virtio-mem'><target><size unit='KiB'>8192</size>
        <requested unit='KiB'>4096</requested></target><alias name='ua-mem-v'/></memory>
        <memory model='dimm'><target><size unit='KiB'>8192</size></target><alias name='ua-mem-d'/></memory>
        </devices></domain>"""
    changed = resized_memory(xml, "ua-mem-v", Bytes(2 * MEBIBYTE))
    assert '<requested unit="KiB">2048</requested>' in changed
    assert '<size unit="KiB">8192</size>' in changed
    with pytest.raises(HostFaultError, match="no virtio-mem device ua-mem-d"):
        resized_memory(xml, "ua-mem-d", Bytes(2 * MEBIBYTE))
