"""The chart, as tests render it."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from numavm_lab.controlplane.helm import ensure_helm

CHART = Path(__file__).resolve().parents[2] / "deploy" / "charts" / "numavm"
NAMESPACE = "numavm-system"

COMBINATIONS: dict[str, list[str]] = {
    "defaults": [],
    "everything": [
        "networkPolicy.enabled=true",
        "podMonitor.enabled=true",
        "podMonitor.labels.release=main",
        "prometheusRule.enabled=true",
        "prometheusRule.runbookUrl=https://example.org/runbook.md",
        "dashboard.enabled=true",
    ],
    "service-monitor": ["serviceMonitor.enabled=true", "serviceMonitor.labels.release=main"],
    "service-monitor-without-agents": ["serviceMonitor.enabled=true", "agent.enabled=false"],
    "without-agents": ["agent.enabled=false", "networkPolicy.enabled=true"],
    "one-on-the-node": [
        "operator.replicas=1",
        "operator.hostNetwork=true",
        "agent.hostNetwork=true",
        "apiServer.host=127.0.0.1",
    ],
    "without-rehoming": ["agent.liveRehoming=false", "agent.imageDirectories={/srv/a,/srv/b}"],
    "crds-elsewhere": ["crds.enabled=false", "policies.enabled=false"],
    "nothing-kept": ["crds.keep=false", "uninstallGuard.enabled=false"],
}
"""Sets of values that matter, by name."""


def helm(*words: str, code: int = 0) -> str:
    """Run helm; return what it says on both streams."""
    done = subprocess.run(
        [ensure_helm(print), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (code == 0), done.stdout
    return done.stdout


def rendered(*values: str) -> list[dict[str, Any]]:
    """Return every object that the chart makes with these values, hooks included."""
    return [one for one in yaml.safe_load_all(rendered_text(*values)) if one]


@cache
def rendered_text(*values: str) -> str:
    """Return the manifests that the chart makes with these values."""
    options = [word for value in values for word in ("--set", value)]
    return helm("template", "numavm", str(CHART), "--namespace", NAMESPACE, *options)
