"""Operator and agent as a real Prometheus sees them: every panel and every alert expression, on a running system."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.prometheus import (
    Prometheus,
    alert_rules,
    dashboard_expressions,
    prometheus,
)
from support.vms import Vms, vm_manifest
from support.wait import wait_for
from support.whole import Whole, whole

NODE = "measured"


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Whole, Vms, dict[str, str]]]:
    """A NumaVM with a running VM and one that fits nowhere, and where operator and agent serve."""
    with whole(Path(tmp_path_factory.mktemp("m")), NODE) as made:
        node = made.nodes[NODE]
        node.agent.stop()
        node.agent.start(NUMAVM_AGENT_LISTEN_PORT="0")
        vms = made.vms("measured")
        vms.create(vm_manifest("vm", [(1, "64Mi")]))
        vms.create(vm_manifest("too-large", [(64, "64Mi")]))
        vms.wait_ready("vm")
        host, port = made.operator.logged("serving")[-1]["addresses"][0].strip("()").split(", ")
        served = re.findall(r'"address": \["127\.0\.0\.1", (\d+)\]', node.agent.log(400))
        yield (
            made,
            vms,
            {
                "operator": f"{host.strip(chr(39))}:{port}",
                "agent": f"127.0.0.1:{served[-1]}",
            },
        )
        vms.delete_and_wait()


@pytest.fixture(scope="module")
def scraped(
    running: tuple[Whole, Vms, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus"), running[2]) as made:
        yield made


def answer(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}") as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_both_are_alive_and_ready(running: tuple[Whole, Vms, dict[str, str]]) -> None:
    for address in running[2].values():
        assert answer(address, "/healthz") == (200, "ok\n")
        wait_for(lambda address=address: answer(address, "/readyz")[0] == 200, describe="ready")
        assert answer(address, "/nothing")[0] == 404


def test_every_query_of_the_dashboard_returns_data(scraped: Prometheus) -> None:
    expressions = dashboard_expressions(node=NODE, namespace="measured", vm="vm")

    assert len(expressions) > 30
    for panel, expression in expressions:
        wait_for(
            lambda expression=expression: scraped.query(expression),
            describe=f"panel {panel!r} has data: {expression}",
        )


def test_every_alert_is_evaluated_and_each_of_its_metrics_is_there(scraped: Prometheus) -> None:
    def health() -> set[str]:
        groups = scraped.get("rules")["groups"]
        return {rule["health"] for group in groups for rule in group["rules"]}

    wait_for(health, until=lambda seen: seen == {"ok"}, describe="every rule is evaluated")
    for rule in alert_rules():
        names = set(re.findall(r"numavm_[a-z_]+", rule["expr"]))
        assert names
        for name in names:
            assert scraped.query(f"count({name})"), f"{rule['alert']}: no {name}"


def test_figures_agree_with_status(
    scraped: Prometheus, running: tuple[Whole, Vms, dict[str, str]]
) -> None:
    vm, host = running[1].get("vm"), running[1].host(NODE)
    resident = vm["status"]["numa"]["cells"][0]["resident"]
    selector = '{namespace="measured",name="vm"}'

    sample = scraped.query(f"numavm_agent_memory_resident_bytes{selector}")
    assert [float(one["value"][1]) for one in sample] == [one["bytes"] for one in resident]
    assert scraped.query(f"numavm_agent_memory_misaligned_bytes{selector}")[0]["value"][1] == "0"
    dedicated = scraped.query(f'sum(numavm_host_cell_cpus{{node="{NODE}",pool="dedicated"}})')
    free = scraped.query(f'sum(numavm_host_cell_cpus_free{{node="{NODE}"}})')
    assert int(dedicated[0]["value"][1]) - int(free[0]["value"][1]) == 1
    assert host["status"]["claims"][0]["name"] == "vm"
    false = scraped.query(
        'numavm_status_condition{name="too-large",type="Scheduled",status="False"}'
    )
    assert [one["value"][1] for one in false] == ["1"]


def test_a_dead_libvirt_makes_the_agent_unready_and_alive(
    running: tuple[Whole, Vms, dict[str, str]],
) -> None:
    made, _, addresses = running
    libvirt = made.nodes[NODE].libvirt
    libvirt.kill_libvirtd()
    try:
        code, text = wait_for(
            lambda: answer(addresses["agent"], "/readyz"),
            until=lambda seen: seen[0] == 503,
            deadline_seconds=60,
            describe="the agent is not ready",
        )
        assert (code, "libvirt_unavailable" in text) == (503, True)
        assert answer(addresses["agent"], "/healthz")[0] == 200
    finally:
        libvirt.start_libvirtd()
    wait_for(
        lambda: answer(addresses["agent"], "/readyz")[0] == 200,
        deadline_seconds=60,
        describe="the agent is ready again",
    )
