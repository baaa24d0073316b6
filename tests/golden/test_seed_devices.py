"""The article's examples of memory modules, expander buses and balloons: what libvirt makes of our manifests of them.

The expectations are the article's own arguments and elements. Where today's QEMU spells one differently, the manifest
says so.
"""

from typing import Any

import pytest
import yaml
from lxml import etree

from numavm_api.numavm import NumaVMSpec
from numavm_api.reading import read_spec
from numavm_cli.offline import domain_of
from support.embedded_libvirt import Argv, EmbeddedLibvirt
from support.examples import EXAMPLES, example
from support.libvirt_schema import schema_errors

SEED = sorted(path.stem for path in (EXAMPLES / "seed").glob("*.yaml"))
GIB = 2**30

pytestmark = pytest.mark.xdist_group("embedded-libvirt")


def xml_of(name: str, **changes: Any) -> str:
    """Return the domain of an example, on a host as its spec binds it, emulated: libvirt here may have no KVM."""
    manifest = example(f"seed/{name}")
    manifest["spec"]["domain"] = {**manifest["spec"]["domain"], "type": "TCG", **changes}
    return domain_of(manifest, None).xml


def argv_of(libvirt: EmbeddedLibvirt, name: str) -> Argv:
    return libvirt.argv(xml_of(name))


@pytest.mark.parametrize("name", SEED)
def test_each_example_is_accepted_and_has_libvirts_shape(name: str) -> None:
    spec = read_spec(example(f"seed/{name}")["spec"])

    assert isinstance(spec, NumaVMSpec), spec
    assert schema_errors(xml_of(name)) == []


@pytest.mark.parametrize("name", SEED)
def test_each_example_quotes_the_article(name: str) -> None:
    text = (EXAMPLES / "seed" / f"{name}.yaml").read_text()
    comment = [line for line in text.splitlines() if line.startswith("#")]

    assert "article" in comment[0]
    assert yaml.safe_load(text)["metadata"]["name"] == name


def test_hotpluggable_memory(libvirt: EmbeddedLibvirt) -> None:
    argv = argv_of(libvirt, "hotpluggable-memory")

    assert argv.value("-m") == "size=2097152k,slots=1,maxmem=269484032k"
    assert argv.values("-numa") == [
        "node,nodeid=0,cpus=0,memdev=ram-node0",
        "node,nodeid=1,cpus=1,memdev=ram-node1",
    ]
    (dimm,) = argv.devices("pc-dimm")
    backends = argv.objects("memory-backend-ram")
    assert {name: backends[name]["size"] for name in ("ram-node0", "ram-node1")} == {
        "ram-node0": GIB,
        "ram-node1": GIB,
    }
    assert dimm["node"] == 0
    assert backends[dimm["memdev"]]["size"] == 1073741824


def test_slots_and_maxmem(libvirt: EmbeddedLibvirt) -> None:
    argv = argv_of(libvirt, "slots-and-maxmem")

    assert argv.value("-m") == f"size={2 * GIB // 1024}k,slots=2,maxmem={4 * GIB // 1024}k"
    assert {one["size"] for one in argv.objects("memory-backend-ram").values()} == {GIB}
    assert argv.devices("pc-dimm") == []


def test_the_balloon_on_the_expander_of_node_1(libvirt: EmbeddedLibvirt) -> None:
    argv = argv_of(libvirt, "pxb-and-balloon")

    (pxb,) = argv.devices("pxb")
    (balloon,) = argv.devices("virtio-balloon-pci")
    assert pxb == {
        "driver": "pxb",
        "bus_nr": 254,
        "id": "pci.1",
        "numa_node": 1,
        "bus": "pci.0",
        "addr": "0x6",
    }
    assert (balloon["bus"], balloon["addr"]) == ("pci.1", "0x6")


def test_the_elements_of_expander_and_balloon() -> None:
    domain = etree.fromstring(xml_of("pxb-and-balloon"))

    (pxb,) = domain.findall("devices/controller[@model='pci-expander-bus']")
    assert pxb.get("index") == "1"
    assert pxb.xpath("string(model/@name)") == "pxb"
    assert pxb.xpath("string(target/@busNr)") == "254"
    assert pxb.findtext("target/node") == "1"
    (balloon,) = domain.findall("devices/memballoon")
    assert balloon.get("model") == "virtio"
    assert balloon.xpath("string(stats/@period)") == "5"
    assert dict(balloon.find("address").attrib) == {  # type: ignore[union-attr]
        "type": "pci",
        "domain": "0x0000",
        "bus": "0x01",
        "slot": "0x06",
        "function": "0x0",
    }


def test_bound_memory(libvirt: EmbeddedLibvirt) -> None:
    argv = argv_of(libvirt, "bound-memory")

    backends = argv.objects("memory-backend-ram")
    (dimm,) = argv.devices("pc-dimm")
    bound = {
        name: (one["size"], one["host-nodes"], one["policy"]) for name, one in backends.items()
    }
    assert (dimm["node"], dimm["slot"]) == (0, 2)
    assert bound == {
        "ram-node0": (1073741824, [0], "bind"),
        "ram-node1": (1073741824, [1], "bind"),
        dimm["memdev"]: (1073741824, [0], "bind"),
    }


def test_the_boot_balloon_is_current_memory() -> None:
    domain = etree.fromstring(xml_of("bound-memory"))

    assert (domain.findtext("memory"), domain.findtext("currentMemory")) == ("3145728", "1048576")


def test_the_three_elements_of_memory() -> None:
    domain = etree.fromstring(xml_of("memory-elements"))

    ceiling = domain.find("maxMemory")
    assert ceiling is not None
    assert (ceiling.get("slots"), ceiling.text) == ("256", "3145728")
    assert domain.findtext("memory") == "3145728"
    assert domain.findtext("currentMemory") == "3145728"


def test_the_articles_balloon_on_todays_default_machine_is_refused_with_the_reason() -> None:
    manifest = example("seed/pxb-and-balloon")
    manifest["spec"]["domain"]["machine"] = {"type": "q35"}

    refused = read_spec(manifest["spec"])

    assert isinstance(refused, list)
    text = " ".join(map(str, refused))
    assert "spec.domain.memory.balloon.cell is 1, but machine is q35" in text
    assert "INTx" in text
