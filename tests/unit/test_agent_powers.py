"""Powers over the host that its administrator permits, or not."""

from numavm_agent.reconcile.powers import power_problems
from numavm_api.numahost import Permitted
from support.domains import spec_of

REALTIME = spec_of({"cpu": {"dedicatedCpuPlacement": True, "realtime": {}}})
CONNECTED = spec_of(
    {"devices": {"interfaces": [{"name": "a"}, {"name": "b"}]}},
    networks=[{"name": "a", "bridge": {"name": "br0"}}, {"name": "b", "network": {"name": "lan"}}],
)
LOCKED = spec_of({"memory": {"backing": {"locked": True}}})


def test_nothing_is_permitted_by_itself_and_each_refusal_names_the_field_that_permits_it() -> None:
    (realtime,) = power_problems(REALTIME, Permitted())
    (locked,) = power_problems(LOCKED, Permitted())

    assert "spec.permitted.realtime" in realtime
    assert "spec.permitted.lockedMemory" in locked


def test_each_bridge_and_network_is_permitted_by_its_name() -> None:
    bridge, network = power_problems(CONNECTED, Permitted(bridges=["br1"], networks=["br0"]))

    assert bridge.startswith("spec.networks[0].bridge.name is br0")
    assert bridge.endswith("spec.permitted.bridges")
    assert network.startswith("spec.networks[1].network.name is lan")
    assert list(power_problems(CONNECTED, Permitted(bridges=["br0"], networks=["lan"]))) == []


def test_realtime_brings_its_locked_memory_along() -> None:
    assert list(power_problems(REALTIME, Permitted(realtime=True))) == []
    assert list(power_problems(LOCKED, Permitted(locked_memory=True))) == []
    assert list(power_problems(spec_of(), Permitted())) == []
