"""Fixtures shared by all suites: the control plane, its clients, and a look at what is left."""

import itertools
import os
from collections.abc import Callable, Iterator

import hypothesis
import pytest
from kubernetes import client

from numavm_api.base import GROUP, VERSION
from numavm_api.numahost import PLURAL as HOSTS
from numavm_api.numavm import PLURAL as VMS
from numavm_lab.controlplane.manifests import install_manifests
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.state import processes_owned_by
from support.cluster import Callers, callers_of

# No test is timed: a machine may be as busy as it likes.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

_namespace_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the run where a process started below its temporary directory outlives it."""
    yield
    left = list(processes_owned_by(tmp_path_factory.getbasetemp()))
    assert [f"{process.pid} {' '.join(process.cmdline())[:120]}" for process in left] == []


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A ready control plane with roles, CRDs and policies installed, one per worker.

    Tests that stop, kill or rewind it use ``own_control_plane``.
    """
    plane = ControlPlane(
        tmp_path_factory.mktemp("cluster") / "cluster", unsafe_no_fsync=True, progress=print
    )
    try:
        plane.start()
        install_manifests(plane)
        yield plane
    finally:
        plane.remove()


@pytest.fixture
def own_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane for one test, not yet started."""
    plane = ControlPlane(
        tmp_path_factory.mktemp("own") / "cluster", unsafe_no_fsync=True, progress=print
    )
    try:
        yield plane
    finally:
        plane.remove()


@pytest.fixture(scope="session")
def callers(control_plane: ControlPlane) -> Iterator[Callers]:
    """API clients of administrator, operator, agents and namespace owners."""
    with callers_of(control_plane) as made:
        yield made


@pytest.fixture(scope="session")
def new_namespace(callers: Callers) -> Callable[[], str]:
    """Return a function that creates a namespace with a name of its own.

    They stay until the control plane goes: without a controller-manager no namespace is ever
    emptied.
    """

    def create() -> str:
        name = f"test-{os.getpid()}-{next(_namespace_numbers)}"
        body = client.V1Namespace(metadata=client.V1ObjectMeta(name=name))
        client.CoreV1Api(callers.admin()).create_namespace(body)
        return name

    return create


@pytest.fixture
def namespace(new_namespace: Callable[[], str]) -> str:
    """A namespace for one test."""
    return new_namespace()


@pytest.fixture(scope="module")
def fleet_of_its_own(callers: Callers) -> None:
    """Remove what other modules left: an operator would wait for the hosts, and place the VMs."""
    api = client.CustomObjectsApi(callers.admin())
    api.delete_collection_cluster_custom_object(GROUP, VERSION, HOSTS)
    left = api.list_cluster_custom_object(GROUP, VERSION, VMS)["items"]
    for vm in left:
        place = (GROUP, VERSION, vm["metadata"]["namespace"], VMS, vm["metadata"]["name"])
        api.delete_namespaced_custom_object(*place)
        if vm["metadata"].get("finalizers"):
            nobodys = {"metadata": {"finalizers": None}}
            api.patch_namespaced_custom_object(
                *place, nobodys, _content_type="application/merge-patch+json"
            )
