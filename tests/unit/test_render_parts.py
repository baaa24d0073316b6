"""Names, machine types, paths, metadata, and what cannot be rendered."""

from typing import Any

import pytest
from lxml import etree

from numavm_agent.domain.machine import machine_type
from numavm_agent.domain.metadata import (
    DomainRecord,
    Operation,
    UnreadableMetadata,
    metadata_element,
    metadata_xml,
    read_metadata,
)
from numavm_agent.domain.model import CannotRender
from numavm_agent.domain.names import MAX_DOMAIN_NAME, disk_target, domain_name, mac_address
from numavm_agent.domain.paths import host_paths, permitted_path
from numavm_agent.domain.render import render
from support.domains import UID, claim_for, facts_of, rendered, spec_of, vm_of

OFFERED = ("pc-i440fx-7.2", "pc-q35-7.1", "pc-q35-7.2")
ALIASES = {"q35": "pc-q35-7.2", "pc": "pc-i440fx-7.2"}


def test_a_domain_is_named_after_its_vm() -> None:
    assert domain_name("prod", "db.1", UID) == "prod_db.1_c7a5fdbd"


def test_a_long_name_still_makes_a_file_name() -> None:
    name = domain_name("n" * 63, "v" * 253, UID)

    assert len(name) == MAX_DOMAIN_NAME
    assert name.endswith("_c7a5fdbd")


def test_mac_addresses_are_local_unicast_and_differ() -> None:
    first, second = mac_address(UID, "a"), mac_address(UID, "b")

    assert first != second
    assert first == mac_address(UID, "a")
    assert int(first[:2], 16) & 0b11 == 0b10


@pytest.mark.parametrize(
    ("index", "name"), [(0, "vda"), (25, "vdz"), (26, "vdaa"), (51, "vdaz"), (52, "vdba")]
)
def test_disks_are_counted_as_linux_does(index: int, name: str) -> None:
    assert disk_target("vd", index) == name


@pytest.mark.parametrize(
    ("wanted", "kept", "got"),
    [
        ("q35", None, "pc-q35-7.2"),
        ("q35", "pc-q35-7.1", "pc-q35-7.1"),  # an upgrade of QEMU changes nobody's hardware
        ("q35", "pc-q35-2.4", "pc-q35-7.2"),  # not offered any more
        ("pc", "pc-q35-7.1", "pc-i440fx-7.2"),  # the user changed the family
        ("pc-q35-7.1", "pc-q35-7.2", "pc-q35-7.1"),
    ],
)
def test_machine_types(wanted: str, kept: str | None, got: str) -> None:
    assert machine_type(wanted, kept=kept, aliases=ALIASES, offered=OFFERED) == got


def test_a_machine_type_that_qemu_does_not_have_is_refused() -> None:
    with pytest.raises(CannotRender, match=r"'pc-q35-99\.9', but QEMU on this host offers"):
        machine_type("pc-q35-99.9", kept=None, aliases=ALIASES, offered=OFFERED)


@pytest.mark.parametrize(
    "path",
    [
        "/srv/vm/../../etc/shadow",
        "/srv/vm/./a",
        "/srv/vm//a",
        "//srv/vm/a",
        "/srv/vm",
        "/srv/vmx/a",
        "srv/vm/a",
        "/srv/vm/a/",
        "/srv/vm/a\0b",
        "",
    ],
)
def test_paths_outside_the_permitted_directories(path: str) -> None:
    assert permitted_path(path, ["/srv/vm"]) is not None


@pytest.mark.parametrize("directory", ["/srv/vm", "/srv/vm/", "/srv", "/"])
def test_paths_inside(directory: str) -> None:
    assert permitted_path("/srv/vm/a.img", ["/elsewhere", directory]) is None


def test_nothing_is_permitted_by_default() -> None:
    reason = permitted_path("/srv/vm/a.img", [])

    assert reason is not None
    assert "(none)" in reason


def test_every_path_of_a_spec_is_known_with_its_field() -> None:
    boot = {"firmware": {"kernelBoot": {"kernel": "/boot/k", "initrd": "/boot/i"}}}
    disks = {"devices": {"disks": [{"name": "root"}]}}
    spec = spec_of(
        {**boot, **disks}, volumes=[{"name": "root", "hostDisk": {"path": "/srv/r.img"}}]
    )

    assert {use.field: use.path for use in host_paths(spec)} == {
        "spec.domain.firmware.kernelBoot.kernel": "/boot/k",
        "spec.domain.firmware.kernelBoot.initrd": "/boot/i",
        "spec.volumes[0].hostDisk.path": "/srv/r.img",
    }
    assert rendered(spec, facts_of(1)).host_paths == host_paths(spec)


def record(**changes: Any) -> DomainRecord:
    spec = spec_of(cells=2, restartToken="1")
    fields: dict[str, Any] = {
        "uid": UID,
        "namespace": "default",
        "name": "vm",
        "generation": 4,
        "restart_token": "1",
        "placement": claim_for(vm_of(spec).effective, facts_of(2)),
        "spec": spec,
    }
    return DomainRecord(**{**fields, **changes})


def domain_of(wanted: DomainRecord) -> str:
    element = etree.tostring(metadata_element(wanted), encoding="unicode")
    return f"<domain><metadata>{element}</metadata></domain>"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"restart_token": None},
        {"restart_token": "\x00\x1f]]></numavm:vm>&lt;\ud800\u202e"},
        {"operation": Operation("Stop", "a<b", "\x01", "1")},
    ],
)
def test_a_domain_remembers_exactly(change: dict[str, Any]) -> None:
    wanted = record(**change)

    assert read_metadata(domain_of(wanted)) == wanted


def test_the_text_for_a_live_change_has_no_namespace() -> None:
    """What libvirt is given must not declare the namespace that libvirt itself adds."""
    document = etree.fromstring(metadata_xml(record()))

    assert document.nsmap == {}
    assert document.findtext("uid") == UID


def test_a_domain_that_is_not_ours_has_no_record() -> None:
    foreign = "<domain><metadata><other xmlns='https://example.org'/></metadata></domain>"

    assert read_metadata(foreign) is None
    assert read_metadata("<domain/>") is None


@pytest.mark.parametrize("missing", ["uid", "generation", "placement", "spec"])
def test_a_part_that_is_missing_is_named(missing: str) -> None:
    document = etree.fromstring(domain_of(record()))
    for child in document.findall(f"metadata/{{*}}vm/{{*}}{missing}"):
        parent = child.getparent()
        assert parent is not None
        parent.remove(child)

    with pytest.raises(UnreadableMetadata, match=missing):
        read_metadata(etree.tostring(document, encoding="unicode"))


def test_a_claim_still_counts_where_its_spec_cannot_be_read() -> None:
    xml = domain_of(record()).replace('"domain":', '"fieldOfTheFuture":')

    found = read_metadata(xml)

    assert found is not None
    assert found.spec is None
    assert found.placement == record().placement


def test_entities_in_metadata_are_not_resolved(tmp_path: Any) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    xml = f'<!DOCTYPE d [<!ENTITY e SYSTEM "file://{secret}">]>' + domain_of(record()).replace(
        "default", "&e;"
    )

    found = read_metadata(xml)

    assert found is not None
    assert "secret" not in found.namespace


def test_a_claim_for_another_spec_is_refused() -> None:
    host = facts_of(2)
    claim = claim_for(vm_of(spec_of(cells=2)).effective, host)

    with pytest.raises(CannotRender, match=r"placement\.cells was made for another spec"):
        render(vm_of(spec_of(cells=1)), claim, host)


def test_a_shared_claim_for_a_dedicated_vm_is_refused() -> None:
    host = facts_of(1)
    claim = claim_for(vm_of(spec_of(cells=1)).effective, host)
    dedicated = spec_of({"cpu": {"dedicatedCpuPlacement": True}}, cells=1)

    with pytest.raises(CannotRender, match=r"placement\.cpuPlacement is Shared"):
        render(vm_of(dedicated), claim, host)
