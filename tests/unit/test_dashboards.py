"""Alerts by promtool, and the dashboard by its own rules."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from support.prometheus import DASHBOARDS, alert_rules

RUNBOOK = DASHBOARDS.parents[1] / "docs" / "runbook.md"


def promtool(*words: str) -> str:
    program = shutil.which("promtool")
    assert program, "promtool is missing: hack/debian.sh installs prometheus"
    done = subprocess.run(
        [program, *words], cwd=DASHBOARDS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    promtool("check", "rules", "alerts.yaml")
    promtool("test", "rules", "alerts-test.yaml")


def test_each_alert_is_tested_to_fire_and_to_be_quiet() -> None:
    text = (DASHBOARDS / "alerts-test.yaml").read_text()
    for rule in alert_rules():
        assert re.search(rf'alertname="?:? ?"?{rule["alert"]}\b', text), rule["alert"]


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: str(rule["alert"]))
def test_each_alert_says_what_it_means(rule: dict[str, object]) -> None:
    assert {"summary", "description"} <= set(rule["annotations"])
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["for"]


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    sections = re.findall(r"(?m)^## (NumaVM\S*)$", RUNBOOK.read_text())
    assert sections == [rule["alert"] for rule in alert_rules()]
    for rule in alert_rules():
        anchor = f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"] == anchor


@pytest.mark.parametrize(
    "section", RUNBOOK.read_text().split("\n## ")[1:], ids=lambda one: one.split("\n")[0]
)
def test_each_section_says_what_it_means_how_to_look_and_what_to_do(section: str) -> None:
    for part in ("**Means.**", "**Look.**", "**Do.**"):
        assert part in section


def test_panels_neither_overlap_nor_share_a_number() -> None:
    panels = json.loads((DASHBOARDS / "numavm.json").read_text())["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        squares = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not squares & taken
        taken |= squares


def test_the_dashboard_is_what_its_script_writes() -> None:
    script = DASHBOARDS.parents[1] / "hack" / "dashboard.py"
    subprocess.run([sys.executable, str(script), "--check"], check=True)
