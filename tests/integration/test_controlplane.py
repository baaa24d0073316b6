"""The control plane itself, and what its accounts may do."""

from pathlib import Path

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from numavm_lab.controlplane.accounts import AGENT
from numavm_lab.controlplane.credentials import (
    kubeconfig_for_service_account,
    write_renewable_kubeconfig,
)
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.controlplane.settings import Component, Reach
from numavm_lab.errors import LabError
from support.cluster import Callers, client_from

NODE_NAME_CLAIM = "authentication.kubernetes.io/node-name"


def whoami(api: client.ApiClient) -> client.V1UserInfo:
    review = client.AuthenticationV1Api(api).create_self_subject_review(
        client.V1SelfSubjectReview()
    )
    return review.status.user_info


def may(api: client.ApiClient, verb: str, resource: str, namespace: str | None = None) -> bool:
    """Ask the API server; ``resource`` is ``[group/]plural[:subresource]``."""
    group, _, plural = resource.rpartition("/")
    plural, _, subresource = plural.partition(":")
    attributes = client.V1ResourceAttributes(
        verb=verb,
        group=group,
        resource=plural,
        subresource=subresource or None,
        namespace=namespace,
    )
    body = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
    )
    answer = client.AuthorizationV1Api(api).create_self_subject_access_review(body)
    return bool(answer.status.allowed)


def config_maps(plane: ControlPlane) -> set[str]:
    with client_from(plane.admin_kubeconfig.read_text()) as api:
        found = client.CoreV1Api(api).list_namespaced_config_map("default")
    return {item.metadata.name for item in found.items}


def add_config_map(plane: ControlPlane, name: str) -> None:
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name))
    with client_from(plane.admin_kubeconfig.read_text()) as api:
        client.CoreV1Api(api).create_namespaced_config_map("default", body)


def test_starting_twice_keeps_the_processes(control_plane: ControlPlane) -> None:
    before = control_plane.status()
    ControlPlane(control_plane.directory).start()

    assert before == control_plane.status()
    assert before.is_ready


def test_only_its_owner_can_read_what_the_control_plane_writes(control_plane: ControlPlane) -> None:
    secrets = [control_plane.admin_kubeconfig, *control_plane.pki.directory.iterdir()]

    assert {0o600} == {path.stat().st_mode & 0o777 for path in secrets}
    assert control_plane.directory.stat().st_mode & 0o777 == 0o700


def test_killed_and_restarted_components_keep_data_and_url(own_control_plane: ControlPlane) -> None:
    plane = own_control_plane
    plane.start()
    url = plane.server_url()
    add_config_map(plane, "kept")
    for component in Component:
        plane.kill(component)
        problems = {part.name: part.problem for part in plane.status().components}
        assert problems[component] == "not running"
        plane.restart(component)
        assert plane.status().is_ready

    assert url == plane.server_url()
    assert "kept" in config_maps(plane)


def test_restore_goes_back_in_time(own_control_plane: ControlPlane, tmp_path: Path) -> None:
    plane = own_control_plane
    plane.start()
    add_config_map(plane, "before")
    plane.snapshot(tmp_path / "etcd.snapshot")
    add_config_map(plane, "after")
    plane.restore(tmp_path / "etcd.snapshot")

    assert {"before"} == config_maps(plane) & {"before", "after"}


def test_a_broken_snapshot_is_refused_and_the_data_stays(
    own_control_plane: ControlPlane, tmp_path: Path
) -> None:
    plane = own_control_plane
    plane.start()
    add_config_map(plane, "kept")
    broken = tmp_path / "etcd.snapshot"
    broken.write_bytes(b"no snapshot")
    with pytest.raises(LabError, match=r"etcd.*failed"):
        plane.restore(broken)
    plane.start()

    assert "kept" in config_maps(plane)


def test_remove_ends_every_process_and_deletes_every_file(own_control_plane: ControlPlane) -> None:
    plane = own_control_plane
    plane.start()
    assert len(plane.processes.strays()) == len(Component)
    plane.remove()
    plane.remove()

    assert plane.processes.strays() == []
    assert list(plane.directory.parent.iterdir()) == []
    assert plane.status().components == ()


def test_a_process_whose_record_was_lost_is_still_ended(own_control_plane: ControlPlane) -> None:
    plane = own_control_plane
    plane.start()
    (plane.directory / "processes" / f"{Component.ETCD}.json").unlink()
    plane.remove()

    assert plane.processes.strays() == []


def test_an_agents_token_carries_the_name_of_its_node(callers: Callers) -> None:
    claims = whoami(callers.agent("host-a")).extra

    assert claims[NODE_NAME_CLAIM] == ["host-a"]


def test_a_token_without_a_node_carries_no_node_name(callers: Callers) -> None:
    assert NODE_NAME_CLAIM not in whoami(callers.agent(None)).extra


def test_a_nodes_tokens_die_with_the_node(control_plane: ControlPlane, callers: Callers) -> None:
    document = kubeconfig_for_service_account(control_plane, AGENT, node="short-lived")
    client.CoreV1Api(callers.admin()).delete_node("short-lived")
    with client_from(document) as api, pytest.raises(ApiException) as refused:
        whoami(api)

    assert refused.value.status == 401


def test_renewing_replaces_the_token_beside_the_kubeconfig(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    path = write_renewable_kubeconfig(control_plane, AGENT, tmp_path, node="host-a")
    first = (tmp_path / "token").read_text()
    write_renewable_kubeconfig(control_plane, AGENT, tmp_path, node="host-a")

    assert first != (tmp_path / "token").read_text()
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert "tokenFile: token" in path.read_text()


def test_a_lab_hosts_kubeconfig_points_to_the_address_it_can_reach(
    control_plane: ControlPlane,
) -> None:
    document = kubeconfig_for_service_account(control_plane, AGENT, reach=Reach.LAB_HOST)

    assert f"https://10.0.2.2:{control_plane.settings.api_port}" in document


@pytest.mark.parametrize(
    ("verb", "resource", "namespace"),
    [
        ("create", "serviceaccounts:token", "numavm-system"),
        ("patch", "numavm.io/numavms", None),
        ("create", "numavm.io/numavms", None),
        ("delete", "numavm.io/numavms", None),
        ("patch", "numavm.io/numahosts", None),
        ("delete", "numavm.io/numahosts", None),
        ("update", "numavm.io/numavms:status", None),
        ("list", "nodes", None),
        ("patch", "nodes", None),
        ("get", "secrets", None),
        ("update", "coordination.k8s.io/leases", "default"),
        ("delete", "coordination.k8s.io/leases", "numavm-system"),
        ("*", "*/*", None),
    ],
)
def test_agents_are_denied(
    callers: Callers, verb: str, resource: str, namespace: str | None
) -> None:
    assert not may(callers.agent("host-a"), verb, resource, namespace)


@pytest.mark.parametrize(
    ("verb", "resource", "namespace"),
    [
        ("create", "serviceaccounts:token", "numavm-system"),
        ("create", "numavm.io/numavms", None),
        ("delete", "numavm.io/numavms", None),
        ("patch", "numavm.io/numahosts", None),
        ("patch", "numavm.io/numahosts:status", None),
        ("patch", "nodes", None),
        ("get", "secrets", None),
        ("update", "coordination.k8s.io/leases", "numavm-system"),
        ("delete", "coordination.k8s.io/leases", "numavm-system"),
        ("*", "*/*", None),
    ],
)
def test_the_operator_is_denied(
    callers: Callers, verb: str, resource: str, namespace: str | None
) -> None:
    assert not may(callers.operator(), verb, resource, namespace)


@pytest.mark.parametrize(
    ("verb", "resource", "namespace"),
    [
        ("watch", "numavm.io/numavms", None),
        ("patch", "numavm.io/numavms:status", None),
        ("create", "events.k8s.io/events", "default"),
        ("create", "coordination.k8s.io/leases", "numavm-system"),
    ],
)
def test_operator_and_agents_may_do_their_work(
    callers: Callers, verb: str, resource: str, namespace: str | None
) -> None:
    assert may(callers.operator(), verb, resource, namespace)
    assert may(callers.agent("host-a"), verb, resource, namespace)


def test_an_owner_of_one_namespace_has_no_rights_in_another(
    callers: Callers, namespace: str
) -> None:
    owner = callers.namespace_owner(namespace)

    assert may(owner, "create", "numavm.io/numavms", namespace)
    assert not may(owner, "create", "numavm.io/numavms", "default")


def test_nobody_is_anonymous(control_plane: ControlPlane) -> None:
    configuration = client.Configuration(host=control_plane.server_url())
    configuration.ssl_ca_cert = str(control_plane.pki.authority.certificate)
    with client.ApiClient(configuration) as api, pytest.raises(ApiException) as refused:
        client.VersionApi(api).get_code()

    assert refused.value.status == 401
