"""A real Prometheus for tests: scrapes what it is told to, evaluates the shipped alert rules, answers queries."""

from __future__ import annotations

import json
import shutil
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from numavm_lab.state import ProcessTable
from support.wait import wait_for

DASHBOARDS = Path(__file__).resolve().parents[2] / "deploy" / "dashboards"
RULES = DASHBOARDS / "alerts.yaml"


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query."""
        return self.get("query", query=expression)["result"]

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an API call."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}") as answer:  # noqa: S310 - our own http
            return json.load(answer)["data"]


@contextmanager
def prometheus(directory: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Run one that scrapes `targets` (job -> host:port) each second."""
    program = shutil.which("prometheus")
    assert program, "prometheus is missing: hack/debian.sh installs it"
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [target]}]}
            for job, target in targets.items()
        ],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    table = ProcessTable(directory)
    table.spawn(
        "prometheus",
        [
            program,
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}",
        ],
    )
    try:
        made = Prometheus(f"http://{address}")
        wait_for(lambda: _all_up(made, len(targets)), describe="every target is scraped")
        yield made
    finally:
        table.stop_all()


def _all_up(made: Prometheus, count: int) -> bool:
    try:
        return len(made.query("up == 1")) == count
    except OSError:
        return False


def dashboard_expressions(**variables: str) -> list[tuple[str, str]]:
    """Return (panel, expression) of every query of the shipped dashboard, its variables filled in."""
    document = json.loads((DASHBOARDS / "numavm.json").read_text())
    values = {"__rate_interval": "15s", **variables}
    found = []
    for panel in document["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in values.items():
                expression = expression.replace(f"${name}", value)
            found.append((panel["title"], expression))
    return found


def alert_rules() -> list[dict[str, Any]]:
    """Return the shipped alert rules."""
    document = yaml.safe_load(RULES.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]
