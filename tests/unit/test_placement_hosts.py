"""Which of several hosts: packed or spread, whole hosts and near cells spared; hosts that are alike share an answer."""

from __future__ import annotations

from numavm_api.scheduling import NodeAffinity
from numavm_operator.placement import SPREAD, Fleet, Placed, place
from numavm_operator.placement.groups import Sight
from numavm_operator.settings import Settings
from support.placement_examples import TWO_CELLS, fleet, host, placed, request, vm

SMALL = vm(cores=1, memory="64Mi")


def half_filled() -> Fleet:
    """host-a is empty, host-b holds a VM."""
    where = fleet(host("host-a"), host("host-b"))
    first = placed(request(SMALL, "first", tied_to="host-b"), where)
    return where.with_claim("host-b", "first", first.placement)


def test_by_default_vms_are_packed_and_as_a_policy_they_are_spread() -> None:
    spread = place(request(SMALL), half_filled(), SPREAD)

    assert placed(request(SMALL), half_filled()).node_name == "host-b"
    assert isinstance(spread, Placed)
    assert spread.node_name == "host-a"


def test_spread_also_takes_the_emptiest_cell_of_a_host() -> None:
    where = fleet(host())
    first = placed(request(SMALL, "first"), where)
    where = where.with_claim("host-a", "first", first.placement)
    taken = first.placement.cells[0].host_cells

    packed, spread = placed(request(SMALL), where), place(request(SMALL), where, SPREAD)

    assert isinstance(spread, Placed)
    assert packed.placement.cells[0].host_cells == taken
    assert spread.placement.cells[0].host_cells != taken


def test_the_operators_option_names_the_policy() -> None:
    assert Settings(_cli_parse_args=["--host-choice", "Spread"]).policy == SPREAD
    assert Settings(_cli_parse_args=[]).policy != SPREAD


def test_a_vm_of_one_cell_leaves_hosts_with_near_cells_to_vms_of_several() -> None:
    near, far = host("host-a", far=12), host("host-b", far=32)

    assert placed(request(SMALL), fleet(near, far)).node_name == "host-b"
    assert placed(request(TWO_CELLS), fleet(near, far)).node_name == "host-a"


def test_hosts_that_a_request_cannot_tell_apart_are_one_group() -> None:
    hosts = [host(f"host-{at}", labels={"name": f"host-{at}"}) for at in range(6)]
    hosts[5]["status"]["cells"][0]["cpus"].pop()
    where = fleet(*hosts)
    zoned = NodeAffinity.model_validate(
        {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "name", "operator": "NotIn", "values": ["x"]}]}
                ]
            }
        }
    )

    def groups(sight: Sight) -> int:
        return len({sight.key_of(state) for state in where.states.values()})

    assert groups(Sight.of(request(SMALL).wanted)) == 2
    assert groups(Sight.of(request(SMALL, node_affinity=zoned).wanted)) == 6
