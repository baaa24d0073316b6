"""Any spec that is accepted renders XML that libvirt's schema accepts, and nothing in it escapes."""

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lxml import etree

from numavm_agent.domain.metadata import read_metadata
from numavm_agent.domain.model import Accelerator
from numavm_agent.domain.render import render
from numavm_api.numavm import NumaVMSpec
from numavm_api.validation import validate
from support.domains import claim_for, facts_of, rendered, spec_of, vm_of
from support.libvirt_schema import schema_errors
from support.random_specs import CELLS, specs

_SHAPE: dict[str, Any] = {
    "firmware": {"kernelBoot": {"kernel": "/k", "initrd": "/i", "args": "x"}},
    "cpu": {"model": "EPYC"},
    "devices": {"disks": [{"name": "d"}], "interfaces": [{"name": "n"}]},
}
_REST: dict[str, Any] = {
    "networks": [{"name": "n", "user": {}}],
    "volumes": [{"name": "d", "hostDisk": {"path": "/d"}}],
    "restartToken": "1",
}
ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1
)


ANY_SPEC = given(
    spec=specs(),
    accelerator=st.sampled_from(Accelerator),
    shape=st.sampled_from([1, 2, 3, 4, 8]),
)


@ANY_SPEC
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_accepted_spec_renders_valid_xml(
    spec: NumaVMSpec, accelerator: Accelerator, shape: int
) -> None:
    check(spec, accelerator, shape)


@pytest.mark.long
@ANY_SPEC
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
def test_thousands_of_accepted_specs_render_valid_xml(
    spec: NumaVMSpec, accelerator: Accelerator, shape: int
) -> None:
    check(spec, accelerator, shape)


def check(spec: NumaVMSpec, accelerator: Accelerator, shape: int) -> None:
    assume(not validate(spec))
    machine = "pc-q35-7.2" if spec.domain.machine.type == "q35" else "pc-i440fx-7.2"
    # User-given bindings name cells up to 7; others go to the first `shape` cells.
    host = facts_of(CELLS, cpus=300, accelerator=accelerator, machine=machine)
    few = facts_of(shape, cpus=300, accelerator=accelerator, machine=machine)
    bound = any(cell.host_cells for cell in vm_of(spec).effective.cells)
    vm = vm_of(spec)
    claim = claim_for(vm.effective, host if bound else few)

    domain = render(vm, claim, host)

    assert schema_errors(domain.xml) == []
    assert domain == render(vm, claim, host)
    found = read_metadata(domain.xml)
    assert found is not None
    assert found.placement == claim
    assert found.spec == spec
    assert found.restart_token == spec.restart_token


@given(text=ANY_TEXT)
@settings(max_examples=200, deadline=None)
def test_no_text_becomes_markup(text: str) -> None:
    """Past the API's own patterns: what if a field's pattern were ever too wide?"""
    hostile = f"'\"/><evil attr='1'/>&lt;<!--{text}]]>"
    plain_spec = spec = spec_of(_SHAPE, **_REST)
    boot = spec.domain.firmware.kernel_boot
    assert boot is not None
    boot = boot.model_copy(update={"kernel": hostile, "initrd": hostile, "args": hostile})
    firmware = spec.domain.firmware.model_copy(update={"kernel_boot": boot})
    cpu = spec.domain.cpu.model_copy(update={"model": hostile})
    card = spec.domain.devices.interfaces[0].model_copy(update={"mac_address": hostile})
    devices = spec.domain.devices.model_copy(update={"interfaces": [card]})
    domain = spec.domain.model_copy(update={"firmware": firmware, "cpu": cpu, "devices": devices})
    disk = spec.volumes[0].host_disk.model_copy(update={"path": hostile})
    volume = spec.volumes[0].model_copy(update={"host_disk": disk})
    token = {"restart_token": hostile}
    spec = spec.model_copy(update={"domain": domain, "volumes": [volume], **token})

    plain = etree.fromstring(rendered(plain_spec, facts_of(1)).xml)
    parsed = etree.fromstring(rendered(spec, facts_of(1)).xml)

    assert [node.tag for node in parsed.iter()] == [node.tag for node in plain.iter()]
    for path in ("os/kernel", "os/initrd", "os/cmdline", "cpu/model"):
        assert parsed.findtext(path) == hostile
    assert parsed.xpath("string(devices/disk/source/@file)") == hostile
    assert parsed.xpath("string(devices/interface/mac/@address)") == hostile
