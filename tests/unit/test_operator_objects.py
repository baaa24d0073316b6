"""Reading the API's objects: nothing unreadable vanishes, nothing needless is kept."""

from typing import Any

from numavm_api.conditions import PrintableStatus
from numavm_api.numahost import LEASE_HOST_VERSION_ANNOTATION, LEASE_SECONDS
from numavm_operator.objects import read_host, read_lease, read_node, read_vm
from support.operator_worlds import claim


def raw(spec: dict[str, Any], status: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    metadata = {
        "namespace": "ns",
        "name": "vm",
        "uid": "u",
        "resourceVersion": "7",
        "generation": 2,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
        **more,
    }
    return {"metadata": metadata, "spec": spec, "status": status or {}}


GOOD = {"domain": {"cpu": {"cores": 2}, "memory": {"guest": "1Gi"}}}


def test_a_good_vm_is_read_whole() -> None:
    placed = {"nodeName": "a", "placement": claim().to_api(), "printableStatus": "Running"}

    vm = read_vm(raw(GOOD, placed, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["x"]))

    assert (vm.key, vm.uid, vm.resource_version, vm.generation) == (("ns", "vm"), "u", 7, 2)
    assert vm.deleting
    assert vm.finalizers == ("x",)
    assert vm.accepted is not None
    assert vm.status.placement == claim()
    assert vm.unreadable is None


def test_every_violation_names_its_field_and_value() -> None:
    cells = [{"id": 0, "cpus": "0,^1", "memory": "1Gi"}]
    spec = {"domain": {"cpu": {"cores": 0, "numa": {"cells": cells}}}}

    vm = read_vm(raw(spec))

    assert vm.accepted is None
    assert len(vm.violations) == 2
    assert any("spec.domain.cpu.cores is 0, but " in one for one in vm.violations)
    assert any("spec.domain.cpu.numa.cells[0].cpus is '0,^1', but " in one for one in vm.violations)


def test_a_spec_is_read_once_per_generation() -> None:
    known = read_vm(raw(GOOD))

    again = read_vm(raw(GOOD, resourceVersion="8"), known)
    other: dict[str, Any] = {"domain": {"cpu": {"cores": 3}}}
    changed = read_vm(raw(other, generation=3), known)
    another = read_vm(raw(other, uid="v"), known)

    assert again.spec is known.spec
    assert changed.spec is not known.spec
    assert another.spec is not known.spec
    for one in (changed, another):
        assert one.spec is not None
        assert one.spec.domain.cpu.cores == 3


def test_vms_of_one_template_share_their_spec() -> None:
    one, other = read_vm(raw(GOOD)), read_vm(raw(GOOD, uid="v"))

    assert one.spec is other.spec


def test_a_word_that_only_a_newer_version_knows_does_not_hide_the_claim() -> None:
    status = {"nodeName": "a", "placement": claim().to_api(), "printableStatus": "Levitating"}

    vm = read_vm(raw(GOOD, status))

    assert vm.unreadable is None
    assert vm.status.placement == claim()
    assert vm.status.printable_status is PrintableStatus.STOPPED


def test_a_claim_that_cannot_be_read_says_so() -> None:
    vm = read_vm(raw(GOOD, {"nodeName": "a", "placement": {"id": "c"}}))

    assert vm.unreadable is not None
    assert "status.placement.epoch" in vm.unreadable
    assert vm.status.node_name == "a"


def test_a_numahost_that_cannot_be_read_gets_nothing() -> None:
    host = read_host({"metadata": {"name": "a", "resourceVersion": "3"}, "spec": {"x": 1}})

    assert host.unreadable is not None
    assert host.spec.unschedulable


def test_a_lease_beats_with_its_renew_time_and_says_what_its_agent_found_true() -> None:
    def lease(time: str, version: str | None, seconds: int | None = None) -> dict[str, Any]:
        annotations = {LEASE_HOST_VERSION_ANNOTATION: version} if version else {}
        metadata = {"name": "numavm-host-a", "resourceVersion": "9", "annotations": annotations}
        spec = {"holderIdentity": "a", "leaseDurationSeconds": seconds}
        return {"metadata": metadata, "spec": {**spec, "renewTime": time}}

    assert read_lease(lease("1", "5")).host_version == 5
    assert read_lease(lease("1", "five")).host_version is None
    assert read_lease(lease("1", None)).host_version is None
    seconds = [read_lease(lease("1", "5", said)).seconds for said in (None, 7, -1, 10**9)]
    assert seconds == [LEASE_SECONDS, 7, 1, 3 * LEASE_SECONDS]
    assert read_lease(lease("1", "5")).beat != read_lease(lease("2", "5")).beat


def test_a_node_is_its_labels() -> None:
    node = read_node({"metadata": {"name": "a", "resourceVersion": "1", "labels": {"x": "y"}}})

    assert dict(node.labels) == {"x": "y"}
