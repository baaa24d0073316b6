"""Any spec that is accepted renders XML that libvirt's schema accepts, and nothing in it escapes."""

from typing import Any

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

CELLS = 8
SIZES = {"4Ki": ["64Mi", "1Gi", "1027Mi"], "2Mi": ["64Mi", "2Gi"], "1Gi": ["1Gi", "3Gi"]}
BINDINGS = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["Strict", "Preferred", "Interleave", "Restrictive"]),
        "hostCells": st.sampled_from(["0", "1", "0-1", "0-3,^2", "0,2,4-7"]),
    },
)
PATHS = st.from_regex(r"\A/[A-Za-z0-9._@:+,=-]{1,20}/[A-Za-z0-9_@:+,=-]{1,40}\Z")
NAMES = st.lists(st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?\Z"), max_size=4, unique=True)
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


@st.composite
def numa_and_memory(draw: st.DrawFn, vcpus: int, threads: int) -> tuple[Any, dict[str, Any]]:
    """Return `cpu.numa`, or None, and `memory`."""
    if draw(st.booleans()):
        return None, {"guest": draw(st.sampled_from(SIZES["4Ki"]))}
    cores = vcpus // threads
    count = draw(st.integers(1, min(cores, CELLS)))
    home = [
        core if core < count else draw(st.integers(0, count - 1)) for core in range(cores)
    ]  # each cell has a core, the rest go anywhere
    page = draw(st.sampled_from(list(SIZES)))
    cells = []
    for cell in range(count):
        numbers = [
            str(core * threads + thread)
            for core in range(cores)
            if home[core] == cell
            for thread in range(threads)
        ]
        one = {"id": cell, "cpus": ",".join(numbers), "memory": draw(st.sampled_from(SIZES[page]))}
        if draw(st.booleans()):
            one["hostBinding"] = draw(BINDINGS)
        cells.append(one)
    memory = {} if page == "4Ki" else {"hugepages": {"pageSize": page}}
    numa: dict[str, Any] = {"cells": draw(st.permutations(cells))}
    if draw(st.booleans()):
        numa["hostBinding"] = draw(BINDINGS)
    return numa, memory


@st.composite
def specs(draw: st.DrawFn) -> NumaVMSpec:
    """Return a spec whose fields each have their shape; whether they fit together is `validate`'s to say."""
    threads = draw(st.sampled_from([1, 2, 4]))
    cpu: dict[str, Any] = {
        "sockets": draw(st.integers(1, 4)),
        "dies": draw(st.integers(1, 2)),
        "cores": draw(st.integers(1, 4)),
        "threads": threads,
        "model": draw(st.sampled_from(["host-passthrough", "host-model", "EPYC-v4"])),
        "dedicatedCpuPlacement": draw(st.booleans()),
    }
    if cpu["dedicatedCpuPlacement"]:
        cpu["isolateEmulatorThread"] = draw(st.booleans())
    vcpus = cpu["sockets"] * cpu["dies"] * cpu["cores"] * threads
    numa, memory = draw(numa_and_memory(vcpus, threads))
    if numa:
        cpu["numa"] = numa
    memory["backing"] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "source": st.sampled_from(["Anonymous", "Memfd"]),
                "access": st.sampled_from(["Private", "Shared"]),
                "allocation": st.sampled_from(["Immediate", "OnDemand"]),
            },
        )
    )
    disks, cards = draw(NAMES), draw(NAMES)
    paths = draw(st.lists(PATHS, min_size=len(disks), max_size=len(disks), unique=True))
    domain: dict[str, Any] = {
        "cpu": cpu,
        "memory": memory,
        "machine": {"type": draw(st.sampled_from(["q35", "pc"]))},
        "devices": {
            "disks": [
                {"name": name, "disk": {"bus": draw(st.sampled_from(["virtio", "sata", "scsi"]))}}
                for name in disks
            ],
            "interfaces": [
                {"name": name, "model": draw(st.sampled_from(["virtio", "e1000e"]))}
                for name in cards
            ],
        },
    }
    if draw(st.booleans()):
        args = draw(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
        domain["firmware"] = {"kernelBoot": {"kernel": draw(PATHS), "args": args}}
    rest: dict[str, Any] = {
        "networks": [{"name": name, "user": {}} for name in cards],
        "volumes": [
            {"name": name, "hostDisk": {"path": path}}
            for name, path in zip(disks, paths, strict=True)
        ],
    }
    if draw(st.booleans()):
        rest["restartToken"] = draw(st.text(max_size=64))
    return NumaVMSpec.model_validate({"domain": domain, **rest})


@given(
    spec=specs(),
    accelerator=st.sampled_from(Accelerator),
    shape=st.sampled_from([1, 2, 3, 4, 8]),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_accepted_spec_renders_valid_xml(
    spec: NumaVMSpec, accelerator: Accelerator, shape: int
) -> None:
    assume(not validate(spec))  # Hypothesis complains by itself where too few are accepted
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
