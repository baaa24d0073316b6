"""Writes deploy/dashboards/numavm.json, Grafana's dashboard; `--check` fails where it is not what would be written.

A panel is a title, a unit, and expressions with their legends. The layout (three to a row) is made here.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "deploy" / "dashboards" / "numavm.json"
WIDTH, HEIGHT = 8, 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One panel."""

    title: str
    queries: tuple[tuple[str, str], ...]
    """Expression and legend."""
    unit: str = "short"
    stacked: bool = False


FLEET = (
    Panel("NumaVMs by status", (("sum by (status) (numavm_vms)", "{{status}}"),), stacked=True),
    Panel(
        "Conditions that are False",
        (
            (
                'sum by (type) (numavm_status_condition{status="False"}) '
                'or sum by (type) (0 * numavm_status_condition{status="True"})',
                "{{type}}",
            ),
        ),
    ),
    Panel(
        "Hosts",
        (
            ("count(numavm_host_ready)", "known"),
            ("sum(numavm_host_ready)", "ready"),
            ("sum(numavm_host_reachable)", "reachable"),
        ),
    ),
    Panel(
        "Dedicated CPUs",
        (
            ('sum(numavm_host_cell_cpus{pool="dedicated"})', "in pools"),
            ("sum(numavm_host_cell_cpus_free)", "free"),
        ),
    ),
    Panel(
        "Memory in base pages",
        (
            ('sum(numavm_host_cell_memory_allocatable_bytes{page_size="4096"})', "to hand out"),
            ('sum(numavm_host_cell_memory_held_bytes{page_size="4096"})', "held"),
        ),
        "bytes",
    ),
    Panel(
        "Fragmentation",
        (("avg by (resource) (numavm_host_fragmentation_ratio)", "{{resource}}"),),
        "percentunit",
    ),
    Panel(
        "Placements",
        (
            (
                "sum by (result) (rate(numavm_operator_placements_total[$__rate_interval]))",
                "{{result}}",
            ),
        ),
        "ops",
    ),
    Panel(
        "Time to place, and to run a timer",
        (
            (
                "histogram_quantile(0.99, sum by (le) "
                "(rate(numavm_operator_placement_seconds_bucket[$__rate_interval])))",
                "place, p99",
            ),
            (
                "histogram_quantile(0.99, sum by (le) "
                "(rate(numavm_operator_loop_lag_seconds_bucket[$__rate_interval])))",
                "event loop lag, p99",
            ),
        ),
        "s",
    ),
    Panel(
        "Why nothing fits, and what agents refuse",
        (
            (
                "sum by (cause) (rate(numavm_operator_unschedulable_hosts_total[$__rate_interval]))",
                "{{cause}}",
            ),
            (
                "sum by (reason) (rate(numavm_operator_refusals_total[$__rate_interval]))",
                "refused: {{reason}}",
            ),
        ),
    ),
    Panel(
        "Waiting",
        (
            ("sum(numavm_operator_pending)", "for a place"),
            ("sum(numavm_operator_queue_depth)", "for a worker"),
            ("max(numavm_operator_queue_oldest_seconds)", "longest for a worker, s"),
        ),
    ),
    Panel(
        "Operator: errors and writes",
        (
            (
                "sum by (error) (rate(numavm_operator_reconcile_errors_total[$__rate_interval]))",
                "{{error}}",
            ),
            (
                "sum by (resource) (rate(numavm_operator_api_writes_total[$__rate_interval]))",
                "write {{resource}}",
            ),
        ),
        "ops",
    ),
    Panel(
        "Operator: age of watches and lists",
        (
            ("max by (resource) (numavm_operator_watch_age_seconds)", "watch {{resource}}"),
            ("time() - max(numavm_operator_last_list_timestamp_seconds)", "list"),
        ),
        "s",
    ),
)
HOST = (
    Panel(
        "CPUs by cell and pool",
        (('numavm_host_cell_cpus{node="$node"}', "cell {{cell}} {{pool}}"),),
    ),
    Panel("Free dedicated CPUs", (('numavm_host_cell_cpus_free{node="$node"}', "cell {{cell}}"),)),
    Panel(
        "Fragmentation",
        (('numavm_host_fragmentation_ratio{node="$node"}', "{{resource}}"),),
        "percentunit",
    ),
    Panel(
        "Memory held",
        (
            ('numavm_host_cell_memory_held_bytes{node="$node"}', "cell {{cell}} {{page_size}}"),
            (
                'numavm_host_cell_memory_allocatable_bytes{node="$node"}',
                "cell {{cell}} {{page_size}} to hand out",
            ),
        ),
        "bytes",
    ),
    Panel(
        "Memory there is",
        (('numavm_host_cell_memory_bytes{node="$node"}', "cell {{cell}} {{page_size}}"),),
        "bytes",
    ),
    Panel(
        "VMs and orphans",
        (
            ('numavm_host_vms{node="$node"}', "VMs"),
            ('numavm_host_orphans{node="$node"}', "orphans"),
            ('numavm_host_pools_overlap{node="$node"}', "overlap with the kubelet"),
        ),
    ),
    Panel(
        "Agents: time of a turn, p99",
        (
            (
                "histogram_quantile(0.99, sum by (le, instance) "
                "(rate(numavm_agent_turn_seconds_bucket[$__rate_interval])))",
                "{{instance}}",
            ),
        ),
        "s",
    ),
    Panel(
        "Agents: turns",
        (
            (
                "sum by (instance, result) (rate(numavm_agent_turns_total[$__rate_interval]))",
                "{{instance}} {{result}}",
            ),
        ),
        "ops",
    ),
    Panel(
        "Agents: age of the watch, and guests",
        (
            ("numavm_agent_watch_age_seconds", "{{instance}} age, s"),
            ("numavm_agent_guests", "{{instance}} guests"),
        ),
    ),
)
_VM = 'namespace="$namespace", name="$vm"'
VM = (
    Panel(
        "Conditions",
        ((f"numavm_status_condition{{{_VM}}} == 1", "{{type}}={{status}}"),),
        stacked=True,
    ),
    Panel(
        "Resident memory by cell",
        (
            (
                f"numavm_agent_memory_resident_bytes{{{_VM}}}",
                "guest cell {{guest_cell}} on {{host_cell}}",
            ),
            (
                f"numavm_agent_memory_promised_bytes{{{_VM}}}",
                "promised: {{guest_cell}} on {{host_cell}}",
            ),
        ),
        "bytes",
    ),
    Panel(
        "Misaligned memory",
        ((f"numavm_agent_memory_misaligned_bytes{{{_VM}}}", "elsewhere"),),
        "bytes",
    ),
    Panel(
        "vCPUs wait for a CPU",
        (
            (
                f"rate(numavm_agent_vcpu_wait_seconds_total{{{_VM}}}[$__rate_interval])",
                "vCPU {{vcpu}}",
            ),
        ),
        "percentunit",
    ),
    Panel(
        "vCPUs run",
        (
            (
                f"rate(numavm_agent_vcpu_run_seconds_total{{{_VM}}}[$__rate_interval])",
                "vCPU {{vcpu}}",
            ),
        ),
        "percentunit",
    ),
    Panel(
        "Balloon figures",
        ((f"numavm_agent_balloon_bytes{{{_VM}}}", "{{figure}}"),),
        "bytes",
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, rows in (("Fleet", FLEET), ("Host $node", HOST), ("NumaVM $namespace/$vm", VM)):
        panels.append(
            {
                "type": "row",
                "title": title,
                "id": len(panels) + 1,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
            }
        )
        top += 1
        for index, panel in enumerate(rows):
            where = {
                "x": index % 3 * WIDTH,
                "y": top + index // 3 * HEIGHT,
                "w": WIDTH,
                "h": HEIGHT,
            }
            panels.append(_panel(panel, len(panels) + 1, where))
        top += -(-len(rows) // 3) * HEIGHT
    return {
        "title": "NumaVM",
        "uid": "numavm",
        "tags": ["numavm"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "type": "datasource",
                    "query": "prometheus",
                    "label": "Source",
                },
                _variable("node", "label_values(numavm_host_ready, node)"),
                _variable("namespace", "label_values(numavm_vm_info, namespace)"),
                _variable("vm", 'label_values(numavm_vm_info{namespace="$namespace"}, name)'),
            ]
        },
        "panels": panels,
    }


def _panel(panel: Panel, number: int, where: dict[str, int]) -> dict[str, Any]:
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 20} if panel.stacked else {}
    return {
        "type": "timeseries",
        "title": panel.title,
        "id": number,
        "gridPos": where,
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": custom},
            "overrides": [],
        },
        "targets": [
            {
                "refId": chr(65 + index),
                "expr": expression,
                "legendFormat": legend,
                "datasource": SOURCE,
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
    }


def main() -> int:
    """Write the file, or with `--check` compare it."""
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text() != text:
            sys.stderr.write(f"{TARGET} is out of date: run python hack/dashboard.py\n")
            return 1
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
