"""Guests on a bridge of the host and on a network of its libvirt, by real taps; what is not permitted or not there."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from numavm_lab.controlplane.plane import ControlPlane
from support.agent_fixtures import running_node
from support.agents import Document, Node, Vm, place, small_spec
from support.cluster import Callers
from support.private_libvirt import IMAGES

BRIDGE = f"nvbr{os.getpid() % 10**8}"
MISSING_BRIDGE, UNKNOWN_NETWORK = "nvbr-missing", "nobody-defined-it"
CLASS_NET = Path("/sys/class/net")
NETWORK = "numavm-test"
NETWORK_XML = (
    f"<network><name>{NETWORK}</name><forward mode='bridge'/><bridge name='{BRIDGE}'/></network>"
)


@pytest.fixture(scope="module")
def bridge() -> Iterator[str]:
    """A bridge of this machine that leads nowhere."""
    subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=True)
    try:
        yield BRIDGE
    finally:
        subprocess.run(["ip", "link", "delete", BRIDGE], check=True)


@pytest.fixture(scope="module")
def node(
    bridge: str,
    control_plane: ControlPlane,
    callers: Callers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("node")
    permitted = {
        "directories": [IMAGES],
        "bridges": [bridge, MISSING_BRIDGE],
        "networks": [NETWORK, UNKNOWN_NETWORK],
    }
    with running_node("host-networks", control_plane, callers, directory) as node:
        node.patch_host_spec({"permitted": permitted})
        yield node


@pytest.fixture
def vm(node: Node, namespace: str) -> Iterator[Vm]:
    vm = Vm(node, namespace, "vm")
    yield vm
    vm.remove()


def connected_to(node: Node, **source: Document) -> Document:
    """Return the spec of a guest with one card."""
    spec = small_spec(node.libvirt, networks=[{"name": "net", **source}])
    spec["domain"]["devices"] = {"interfaces": [{"name": "net"}]}
    return spec


def tap_of(vm: Vm) -> str:
    """Return the host's end of the guest's card, as QEMU itself holds it."""
    process = vm.qemu()
    assert process is not None
    for entry in Path(f"/proc/{process}/fdinfo").iterdir():
        for line in entry.read_text(encoding="ascii").splitlines():
            if line.startswith("iff:"):
                return line.split()[1]
    raise AssertionError("QEMU holds no tap")


def ports(bridge: str) -> list[str]:
    return [port.name for port in (CLASS_NET / bridge / "brif").iterdir()]


def test_a_guest_is_on_the_bridge_while_it_runs(node: Node, vm: Vm, bridge: str) -> None:
    vm.create(connected_to(node, bridge={"name": bridge}))
    vm.start()

    assert ports(bridge) == [tap_of(vm)]
    vm.patch({"runStrategy": "Halted"})
    vm.wait_domain("released", released="claim-1")
    assert ports(bridge) == []


def test_a_network_of_libvirt_connects_as_it_says(node: Node, vm: Vm, bridge: str) -> None:
    connection = libvirt.open(node.libvirt.uri)
    try:
        network = connection.networkCreateXML(NETWORK_XML)
        vm.create(connected_to(node, network={"name": NETWORK}))
        vm.start()

        assert ports(bridge) == [tap_of(vm)]
        vm.remove()
        network.destroy()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("kind", "name", "reason", "says"),
    [
        ("bridge", "br-foreign", "NotPermitted", "spec.networks[0].bridge.name is br-foreign"),
        ("network", "default", "NotPermitted", "add it to the NumaHost's spec.permitted.networks"),
        ("bridge", MISSING_BRIDGE, "DeviceMissing", MISSING_BRIDGE),
        ("network", UNKNOWN_NETWORK, "DeviceMissing", UNKNOWN_NETWORK),
    ],
)
def test_what_is_not_permitted_or_not_there_is_refused(
    node: Node, vm: Vm, kind: str, name: str, reason: str, says: str
) -> None:
    vm.create(connected_to(node, **{kind: {"name": name}}))
    claim = place(vm.spec())
    vm.claim(claim)

    status = vm.wait_domain("refused", state="Shutoff", released=claim.id)
    assert reason == status["refused"]["reason"]
    assert says in status["refused"]["message"]
    assert vm.qemu() is None
