"""Powers over a host, and the finalizer of a claimed VM."""

from collections.abc import Callable

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from support.cluster import Callers
from support.custom_objects import NumaVMs, await_right, message_of, owner_of
from support.manifests import KERNEL_BOOT, NO_CELLS, TWO_CELLS, WITH_DEVICES, changed

FINALIZER = "numavm.io/teardown"


@pytest.fixture
def owner(callers: Callers, namespace: str) -> NumaVMs:
    """A user who has every right within the namespace."""
    return NumaVMs(owner_of(callers, namespace), namespace)


def grant(callers: Callers, power: str, namespace: str) -> None:
    """Let the namespace's owner use a power in it, and wait until RBAC knows."""
    name = f"{power}-{namespace}"
    rbac = client.RbacAuthorizationV1Api(callers.admin())
    rule = client.V1PolicyRule(
        api_groups=["numavm.io"], resources=[power], resource_names=[namespace], verbs=["use"]
    )
    metadata = client.V1ObjectMeta(name=name)
    rbac.create_cluster_role(client.V1ClusterRole(metadata=metadata, rules=[rule]))
    subject = client.RbacV1Subject(kind="User", name=f"owner-of-{namespace}")
    reference = client.V1RoleRef(
        api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=name
    )
    rbac.create_cluster_role_binding(
        client.V1ClusterRoleBinding(metadata=metadata, subjects=[subject], role_ref=reference)
    )
    owner = callers.namespace_owner(namespace)
    await_right(owner, verb="use", resource=power, name=namespace)


@pytest.mark.parametrize("spec", [KERNEL_BOOT, WITH_DEVICES], ids=["kernel-boot", "host-disk"])
def test_every_right_in_a_namespace_is_no_right_to_host_paths(
    owner: NumaVMs, spec: dict[str, object]
) -> None:
    with pytest.raises(ApiException) as refused:
        owner.create("vm", spec)

    message = message_of(refused.value)
    assert refused.value.status == 403
    assert "may not use them" in message
    assert f"resources [hostpaths], verbs [use], resourceNames [{owner.namespace}]" in message


def connected(**source: dict[str, str]) -> dict[str, object]:
    """Return the spec of a VM with one card."""
    with_card = changed(NO_CELLS, "domain.devices", {"interfaces": [{"name": "net"}]})
    return {**with_card, "networks": [{"name": "net", **source}]}


POWERS = {
    "realtime": changed(TWO_CELLS, "domain.cpu.realtime", {"mask": "1"}),
    "handpins": changed(NO_CELLS, "domain.cpu.pinning", {"cpuset": "0-3"}),
    "hostdevices": changed(
        NO_CELLS,
        "domain.devices",
        {"hostDevices": [{"name": "nic", "source": {"address": "0000:65:00.0"}}]},
    ),
    "bridges": connected(bridge={"name": "br0"}),
    "networks": connected(network={"name": "default"}),
    "lockedmemory": changed(NO_CELLS, "domain.memory.backing", {"locked": True}),
}


@pytest.mark.parametrize("power", POWERS)
def test_every_right_in_a_namespace_is_no_right_to_the_hosts_cpus_and_memory(
    owner: NumaVMs, callers: Callers, power: str
) -> None:
    with pytest.raises(ApiException) as refused:
        owner.create("vm", POWERS[power])

    assert refused.value.status == 403
    assert f"resources [{power}], verbs [use]" in message_of(refused.value)
    grant(callers, power, owner.namespace)
    owner.create("vm", POWERS[power])
    assert owner.get("vm")["metadata"]["name"] == "vm"


def test_a_power_that_an_administrator_used_does_not_hinder_other_changes(
    owner: NumaVMs, callers: Callers
) -> None:
    NumaVMs(callers.admin(), owner.namespace).create("vm", POWERS["realtime"])
    owner.patch("vm", {"spec": {"runStrategy": "Halted"}})
    higher = {"spec": changed(POWERS["realtime"], "domain.cpu.realtime.priority", 99)}
    with pytest.raises(ApiException) as refused:
        owner.patch("vm", higher)

    assert "may not use realtime" in message_of(refused.value)


def test_a_vm_without_host_paths_needs_no_power(owner: NumaVMs) -> None:
    owner.create("vm", NO_CELLS)

    assert owner.get("vm")["metadata"]["name"] == "vm"


def test_a_grant_for_one_namespace_is_for_that_one(
    owner: NumaVMs, callers: Callers, new_namespace: Callable[[], str]
) -> None:
    grant(callers, "hostpaths", owner.namespace)
    owner.create("vm", KERNEL_BOOT)
    elsewhere = new_namespace()
    other = NumaVMs(owner_of(callers, elsewhere), elsewhere)
    with pytest.raises(ApiException) as refused:
        other.create("vm", KERNEL_BOOT)

    assert "may not use them" in message_of(refused.value)


def test_paths_that_an_administrator_wrote_do_not_hinder_other_changes(
    owner: NumaVMs, callers: Callers
) -> None:
    NumaVMs(callers.admin(), owner.namespace).create("vm", KERNEL_BOOT)
    owner.patch("vm", {"spec": {"runStrategy": "Halted"}})
    other = {"spec": changed(KERNEL_BOOT, "domain.firmware.kernelBoot.kernel", "/etc/shadow")}
    with pytest.raises(ApiException) as refused:
        owner.patch("vm", other)

    assert "spec names host paths /etc/shadow, but" in message_of(refused.value)
    assert owner.get("vm")["spec"]["runStrategy"] == "Halted"


def test_the_finalizer_stays_while_a_claim_is_held(owner: NumaVMs, callers: Callers) -> None:
    owner.create("vm", NO_CELLS)
    operator = NumaVMs(callers.operator(), owner.namespace)
    operator.patch("vm", {"metadata": {"finalizers": [FINALIZER]}})
    operator.apply_status("vm", {"nodeName": "host-a"}, "numavm-operator-claim")
    with pytest.raises(ApiException) as refused:
        owner.patch("vm", {"metadata": {"finalizers": []}})
    assert "stays while status.nodeName is host-a" in message_of(refused.value)
    operator.apply_status("vm", {}, "numavm-operator-claim")
    owner.patch("vm", {"metadata": {"finalizers": []}})

    assert "finalizers" not in owner.get("vm")["metadata"]


def test_who_may_force_deletions_may_leave_an_orphan(owner: NumaVMs, callers: Callers) -> None:
    owner.create("vm", NO_CELLS)
    operator = NumaVMs(callers.operator(), owner.namespace)
    operator.patch("vm", {"metadata": {"finalizers": [FINALIZER]}})
    operator.apply_status("vm", {"nodeName": "host-a"}, "numavm-operator-claim")
    grant(callers, "forceddeletions", owner.namespace)
    owner.patch("vm", {"metadata": {"finalizers": []}})

    assert "finalizers" not in owner.get("vm")["metadata"]
