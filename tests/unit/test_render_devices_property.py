"""Any accepted spec with devices renders XML that libvirt's schema accepts; the order of a manifest changes nothing."""

import random

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lxml import etree

from numavm_agent.domain.render import render
from numavm_agent.reconcile.changes import pending_changes
from numavm_api.modules import Nvdimm, VirtioPmem
from numavm_api.numavm import NumaVMSpec
from numavm_api.pci_plan import pci_plan
from numavm_api.request_hash import request_hash
from numavm_api.validation import validate
from support.domains import facts_of, spec_of, vm_of
from support.libvirt_schema import schema_errors
from support.random_devices import claim_with_devices, specs

HOST = {
    "q35": facts_of(4, cpus=32),
    "pc": facts_of(4, cpus=32, machine="pc-i440fx-7.2"),
}
SETTINGS = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def xml_of(spec: NumaVMSpec) -> str:
    vm, host = vm_of(spec), HOST[spec.domain.machine.type]
    return render(vm, claim_with_devices(vm, host), host).xml


def reordered(spec: NumaVMSpec, seed: int) -> NumaVMSpec:
    draw = random.Random(seed)  # noqa: S311 - no secret
    document = spec.to_api()
    for entries in (
        *document["domain"]["devices"].values(),
        document["networks"],
        document["volumes"],
    ):
        draw.shuffle(entries)
    return NumaVMSpec.model_validate(document)


@given(spec=specs())
@SETTINGS
def test_every_accepted_spec_renders_valid_xml(spec: NumaVMSpec) -> None:
    assume(not validate(spec))

    assert schema_errors(xml_of(spec)) == []


@given(spec=specs(), seed=st.integers(0, 2**16))
@SETTINGS
def test_the_order_of_a_manifest_changes_nothing(spec: NumaVMSpec, seed: int) -> None:
    assume(not validate(spec))
    other = reordered(spec, seed)

    assert validate(other) == []
    assert xml_of(other).split("</metadata>")[1] == xml_of(spec).split("</metadata>")[1]
    assert request_hash(other) == request_hash(spec)
    assert pending_changes(spec, other) == []


@given(spec=specs())
@SETTINGS
def test_no_two_devices_have_one_address_and_no_two_buses_one_number(spec: NumaVMSpec) -> None:
    assume(not validate(spec))
    domain = etree.fromstring(xml_of(spec))

    addresses = [
        tuple(sorted(node.attrib.items()))
        for node in domain.iterfind("devices/*/address[@type='pci']")
    ]
    numbers = [
        number
        for expander in pci_plan(spec.domain).expanders
        for number in range(
            expander.bus_nr or 0, (expander.bus_nr or 0) + 1 + (len(expander.ports) or 1)
        )
    ]
    indices = [node.get("index") for node in domain.iterfind("devices/controller[@type='pci']")]
    assert len(addresses) == len(set(addresses))
    assert len(numbers) == len(set(numbers))
    assert max(numbers, default=0) <= 255
    assert len(indices) == len(set(indices))


@given(spec=specs())
@SETTINGS
def test_a_device_with_a_cell_is_behind_a_bus_of_that_cell(spec: NumaVMSpec) -> None:
    assume(not validate(spec))
    domain = etree.fromstring(xml_of(spec))
    cell_of = {}
    for node in domain.iterfind("devices/controller[@type='pci']"):
        index, cell = int(node.get("index") or 0), node.findtext("target/node")
        if cell is not None:
            cell_of[index] = int(cell)
        elif node.find("address") is not None:
            behind = int(node.xpath("string(address/@bus)"), 16)
            cell_of[index] = cell_of[behind]
    wanted = {
        **{f"ua-disk-{one.name}": one.cell for one in spec.domain.devices.disks},
        **{f"ua-net-{one.name}": one.cell for one in spec.domain.devices.interfaces},
        **{f"ua-hostdev-{one.name}": one.cell for one in spec.domain.devices.host_devices},
    }
    found = {
        str(node.xpath("string(../alias/@name)")): cell_of.get(int(node.get("bus") or "0", 16))
        for node in domain.iterfind("devices/*/address[@type='pci']")
    }
    for alias, cell in wanted.items():
        if cell is not None:
            assert found.get(alias) == cell, alias


ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1
)
_PMEM = {"name": "p", "size": "64Mi", "virtioPmem": {"path": "/srv/p"}}
_NVDIMM = {"name": "n", "cell": 0, "size": "64Mi", "nvdimm": {"path": "/srv/n"}}


@given(text=ANY_TEXT)
@settings(max_examples=100, deadline=None)
def test_no_text_becomes_markup(text: str) -> None:
    """Past the API's own patterns: what if a field's pattern were ever too wide?"""
    hostile = f"'\"/><evil attr='1'/>&lt;<!--{text}]]>"
    memory, devices = {"maxGuest": "1Gi"}, {"memory": [_NVDIMM, _PMEM]}
    plain_spec = spec_of({"memory": memory, "devices": devices}, cells=1)
    nvdimm, pmem = plain_spec.domain.devices.memory
    parts = [
        nvdimm.model_copy(update={"name": hostile, "nvdimm": Nvdimm.model_construct(path=hostile)}),
        pmem.model_copy(update={"virtio_pmem": VirtioPmem.model_construct(path=hostile)}),
    ]
    given_devices = plain_spec.domain.devices.model_copy(update={"memory": parts})
    domain = plain_spec.domain.model_copy(update={"devices": given_devices})
    spec = plain_spec.model_copy(update={"domain": domain})

    plain, parsed = etree.fromstring(xml_of(plain_spec)), etree.fromstring(xml_of(spec))

    assert [node.tag for node in parsed.iter()] == [node.tag for node in plain.iter()]
    assert [node.text for node in parsed.iterfind("devices/memory/source/path")] == [hostile] * 2
    aliases = [node.get("name") for node in parsed.iterfind("devices/memory/alias")]
    assert f"ua-mem-{hostile}" in aliases
