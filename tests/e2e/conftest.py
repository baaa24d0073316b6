"""One running NumaVM for the whole suite: control plane, operator, two hosts with an agent each."""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from kubernetes import client

from numavm_lab.hosts import LabHost, demo_hosts
from numavm_lab.hosts.model import load_hosts
from numavm_lab.stack import Stack
from support.lab_stacks import lab_stack
from support.lab_words import lab_words
from support.vms import Vms
from support.wait import wait_for

DEVICES = Path(__file__).resolve().parents[2] / "deploy" / "lab" / "devices.yaml"
RUNNING = pytest.StashKey[Stack]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have a failed test show what the lab says of itself: afterwards its guests are gone."""
    report = yield
    stack = item.config.stash.get(RUNNING, None)
    if report.failed and stack is not None:
        report.sections.append(("what the lab says", lab_words(stack)))
    return report


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> Iterator[Stack]:
    """The running whole: the demo's hosts, host-a with an IOMMU and a network card on the bus of its cell 1."""
    (devices,) = load_hosts(DEVICES)
    extra = ("extra_kernel_options", "extra_qemu_options")
    update = {name: getattr(devices, name) for name in extra}
    host_a, host_b = demo_hosts()
    with lab_stack([host_a.model_copy(update=update), host_b]) as made:
        pytestconfig.stash[RUNNING] = made
        yield made
        del pytestconfig.stash[RUNNING]


@pytest.fixture(scope="session")
def admin(stack: Stack) -> Iterator[client.ApiClient]:
    """An API client with the administrator's rights."""
    with stack.admin() as api:
        yield api


@pytest.fixture
def vms(stack: Stack, admin: client.ApiClient, request: pytest.FixtureRequest) -> Iterator[Vms]:
    """The NumaVMs of a namespace of the test's own; emptied after it."""
    yield from _vms_of_namespace(stack, admin, request.node.name)


@pytest.fixture(scope="module")
def module_vms(
    stack: Stack, admin: client.ApiClient, request: pytest.FixtureRequest
) -> Iterator[Vms]:
    """The NumaVMs of a namespace of the module's own; emptied after it."""
    yield from _vms_of_namespace(stack, admin, request.module.__name__)


def _vms_of_namespace(stack: Stack, admin: client.ApiClient, title: str) -> Iterator[Vms]:
    wait_for_hosts(stack, admin)
    words = re.sub(r"[^a-z0-9]+", "-", title.lower())[-50:].strip("-")
    body = client.V1Namespace(metadata=client.V1ObjectMeta(name=f"{words}-{secrets.token_hex(2)}"))
    name = client.CoreV1Api(admin).create_namespace(body).metadata.name
    made = Vms(admin, name)
    yield made
    made.delete_and_wait()


@pytest.fixture
def host_a(stack: Stack) -> LabHost:
    """Two cells of four CPUs, with KVM."""
    return stack.lab.host("host-a")


@pytest.fixture
def host_b(stack: Stack) -> LabHost:
    """Four cells of four CPUs, with SMT and unequal distances, without KVM."""
    return stack.lab.host("host-b")


def wait_for_hosts(stack: Stack, admin: client.ApiClient) -> None:
    """Wait until every lab host reports itself ready."""
    names = {host.name for host in stack.lab.hosts()}
    vms = Vms(admin, "default")

    def ready() -> dict[str, str]:
        return {
            host["metadata"]["name"]: str(
                [
                    f"{one['type']}={one['status']}"
                    for one in host.get("status", {}).get("conditions", [])
                ]
            )
            for host in vms.hosts()
        }

    wait_for(
        ready,
        until=lambda seen: all("Ready=True" in seen.get(name, "") for name in names),
        deadline_seconds=180,
        describe="every NumaHost Ready",
    )
