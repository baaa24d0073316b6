"""Which host CPUs threads may run on: vCPUs, emulator, at start and after."""

from dataclasses import replace

import pytest

from numavm_agent.domain.foreign import narrow_pins
from numavm_agent.domain.model import CannotRender, HostFacts
from numavm_agent.domain.pins import Pins, settled_pins, starting_pins
from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import EffectivePools
from numavm_api.placement import PlacedModule, Placement
from numavm_api.quantity import Bytes
from support.domains import claim_for, facts_of, spec_of, vm_of

DEDICATED = {"cpu": {"dedicatedCpuPlacement": True}}
ISOLATED = {"cpu": {"dedicatedCpuPlacement": True, "isolateEmulatorThread": True}}


def texts(pins: Pins) -> dict[int | str, str]:
    return {
        **{vcpu: str(cpus) for vcpu, cpus in pins.vcpus.items()},
        "emulator": str(pins.emulator),
    }


def settled(placement: Placement, host: HostFacts) -> dict[int | str, str]:
    return texts(settled_pins(placement, host.pools, host.cells, host.held))


def starting(placement: Placement, host: HostFacts) -> dict[int | str, str]:
    return texts(starting_pins(placement, host.pools, host.cells, host.held))


def claim(domain: dict[str, object], host: HostFacts, cells: int = 2) -> Placement:
    return claim_for(vm_of(spec_of(domain, cells=cells)).effective, host)


def pools(dedicated: str, shared: str, housekeeping: str, foreign: str = "") -> EffectivePools:
    return EffectivePools(
        dedicated=CpuSet.parse(dedicated),
        shared=CpuSet.parse(shared),
        shared_follows_dedicated=False,
        housekeeping=CpuSet.parse(housekeeping),
        foreign=CpuSet.parse(foreign),
    )


def test_dedicated_vcpus_have_their_own_cpu_and_the_emulator_floats_beside_them() -> None:
    host = facts_of(2, cpus=4)  # 0 and 4 are housekeeping

    assert settled(claim(DEDICATED, host), host) == {
        0: "1",
        1: "2",
        2: "5",
        3: "6",
        "emulator": "3,7",
    }


def test_whether_the_pools_know_of_this_claim_makes_no_difference() -> None:
    host = facts_of(2, cpus=4)
    placement = claim(DEDICATED, host)
    known = host.pools.model_copy(update={"shared": host.pools.shared - placement.dedicated_cpus})

    assert settled_pins(placement, known, host.cells, placement.dedicated_cpus) == settled_pins(
        placement, host.pools, host.cells, CpuSet()
    )


def test_an_isolated_emulator_has_its_own_cpu_too() -> None:
    host = facts_of(1, cpus=4)

    assert settled(claim(ISOLATED, host, cells=1), host)["emulator"] == "3"


def test_shared_vcpus_float_over_what_is_shared_on_their_own_cell() -> None:
    host = facts_of(2, cpus=4)

    assert settled(claim({}, host), host) == {
        0: "1-3",
        1: "1-3",
        2: "5-7",
        3: "5-7",
        "emulator": "1-3,5-7",
    }


def test_shared_vcpus_follow_the_pool_as_it_shrinks() -> None:
    host = facts_of(1, cpus=4)
    smaller = host.pools.model_copy(update={"shared": CpuSet.of(2)})

    assert settled_pins(claim({}, host, 1), smaller, host.cells, CpuSet.of(1, 3)).vcpus == {
        0: CpuSet.of(2),
        1: CpuSet.of(2),
    }


def test_with_no_shared_cpu_left_the_emulator_goes_to_housekeeping() -> None:
    host = facts_of(1, cpus=3)

    assert settled(claim(DEDICATED, host, cells=1), host)["emulator"] == "0"


def test_with_no_housekeeping_either_it_takes_what_nobody_holds() -> None:
    host = facts_of(1, cpus=8, pools=pools("0-7", "", "", foreign="7"), held=CpuSet.of(0, 1, 4, 5))
    placement = claim(DEDICATED, host, cells=1)  # CPUs 0 and 1

    assert settled(placement, host)["emulator"] == "2-3,6"


def test_it_is_refused_where_nothing_is_left() -> None:
    host = facts_of(1, cpus=2, pools=pools("0-1", "", ""))

    with pytest.raises(CannotRender, match="no CPU is left for the emulator's threads"):
        settled(claim(DEDICATED, host, cells=1), host)


def test_shared_vcpus_are_refused_where_nothing_is_shared() -> None:
    host = facts_of(1, cpus=4, pools=pools("1-3", "", "0"))

    with pytest.raises(CannotRender, match=r"cells\[0\]: no shared CPU is left on host cells 0"):
        settled(claim({}, host, cells=1), host)


def test_a_claimed_cpu_that_went_offline_is_named() -> None:
    host = facts_of(1, cpus=4)
    placement = claim(DEDICATED, host, cells=1)
    without_two = replace(host, cells={0: CpuSet.parse("0-1,3")})

    with pytest.raises(CannotRender, match="CPUs 2 are not online"):
        settled(placement, without_two)


def test_a_host_cell_that_is_not_there_is_named() -> None:
    placement = claim(DEDICATED, facts_of(2))

    with pytest.raises(CannotRender, match="no host cell 1, only 0"):
        settled(placement, facts_of(1))


def test_the_start_is_wide_but_leaves_other_vms_cpus_alone() -> None:
    """Immediate allocation needs one usable CPU on each host cell, and no more."""
    host = facts_of(2, cpus=4)
    placement = claim(DEDICATED, host)
    others = CpuSet.of(3, 7)
    busy = host.pools.model_copy(update={"shared": host.pools.shared - others})

    wide = starting_pins(placement, busy, host.cells, others)

    assert str(wide.emulator) == "0-2,4-6"
    assert wide.vcpus == settled_pins(placement, busy, host.cells, others).vcpus


def test_the_start_is_as_wide_as_a_module_that_lies_apart() -> None:
    host = facts_of(2, cpus=4)
    placement = claim(DEDICATED, facts_of(1, cpus=4), cells=1)
    module = PlacedModule(
        name="m",
        cell=0,
        host_cells=CpuSet.of(1),
        mode=BindingMode.STRICT,
        memory=Bytes(2**27),
        page_size=Bytes(4096),
    )
    apart = placement.model_copy(update={"modules": [module]})

    wide = starting_pins(apart, host.pools, host.cells, host.held)
    assert not wide.emulator.isdisjoint(host.cells[1])
    assert settled_pins(apart, host.pools, host.cells, host.held).emulator.isdisjoint(host.cells[1])


def test_the_start_may_use_a_whole_cell_only_where_it_has_nothing_of_its_own_there() -> None:
    host = facts_of(2, cpus=2, pools=pools("1", "", "0"))
    placement = claim(DEDICATED, facts_of(1, cpus=3), cells=1)
    both = placement.cells[0].model_copy(update={"host_cells": CpuSet.of(0, 1)})
    spread = placement.model_copy(
        update={
            "cells": [both.model_copy(update={"pcpus": [CpuSet.of(1), CpuSet.of(1)]})],
            "dedicated_cpus": CpuSet.of(1),
        }
    )

    assert starting(spread, host)["emulator"] == "0-3"
    assert settled(spread, host)["emulator"] == "0"


@pytest.mark.parametrize(
    ("xml", "held"),
    [
        ("<domain><vcpu>2</vcpu></domain>", ""),
        ("<domain><vcpu cpuset='4-5'>2</vcpu></domain>", "4-5"),
        ("<domain><vcpu cpuset='0-7'>8</vcpu></domain>", ""),  # everything: floats
        ("<domain><vcpu cpuset='4-7'>2</vcpu></domain>", ""),  # a range to float over
        (
            "<domain><cputune><vcpupin vcpu='0' cpuset='3'/></cputune></domain>",
            "3",
        ),
    ],
)
def test_cpus_of_foreign_domains(xml: str, held: str) -> None:
    assert str(narrow_pins(xml, CpuSet.parse("0-7"))) == held
