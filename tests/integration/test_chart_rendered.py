"""The chart as helm renders it: lint, schema, and what it says of privileges."""

import subprocess
import sys
from typing import Any

import pytest
import yaml

from support.helm import CHART, COMBINATIONS, NAMESPACE, helm, rendered

ROOT = CHART.parents[2]
MONITORING = {"PodMonitor", "PrometheusRule", "ServiceMonitor"}


def of_kind(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    return next(
        one
        for one in objects
        if one["kind"] == kind and (not name or one["metadata"]["name"] == name)
    )


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS.keys())
def test_lint_is_strict_about_every_combination(values: list[str]) -> None:
    options = [word for value in values for word in ("--set", value)]
    helm("lint", "--strict", str(CHART), "--namespace", NAMESPACE, *options)


@pytest.mark.parametrize(
    "value",
    [
        "nothing=1",
        "operator.nothing=1",
        "operator.replicas=ten",
        "operator.image.pullPolicy=Sometimes",
        "agent.imageDirectories={relative}",
        "agent.port=70000",
        "agent.periodSeconds=11",
        "agent.maxUnavailable=0",
        "podMonitor.interval=soon",
        "serviceMonitor.interval=soon",
        "serviceMonitor.nothing=1",
        "crds.keep=maybe",
    ],
)
def test_the_schema_refuses(value: str) -> None:
    words = ("template", "numavm", str(CHART), "--namespace", NAMESPACE, "--set", value)

    assert "values don't meet the specifications" in helm(*words, code=1)


def test_another_namespace_is_refused_with_the_words_what_to_do() -> None:
    told = helm("template", "numavm", str(CHART), "--namespace", "elsewhere", code=1)

    assert "--namespace numavm-system --create-namespace" in told


def test_generated_parts_are_up_to_date() -> None:
    subprocess.run([sys.executable, str(ROOT / "hack" / "chart.py"), "--check"], check=True)


def test_the_crds_and_policies_are_those_of_crds() -> None:
    objects = {(one["kind"], one["metadata"]["name"]): one for one in rendered()}
    for file in sorted((ROOT / "crds").glob("*.yaml")):
        for wanted in yaml.safe_load_all(file.read_text()):
            found = objects[wanted["kind"], wanted["metadata"]["name"]]
            assert found["spec"] == wanted["spec"]
            annotations = found["metadata"]["annotations"]
            assert annotations["helm.sh/resource-policy"] == "keep"


def test_kept_is_what_should_be_kept() -> None:
    for one in rendered("crds.keep=false"):
        assert "helm.sh/resource-policy" not in one["metadata"].get("annotations", {})
    kinds = {one["kind"] for one in rendered("crds.enabled=false", "policies.enabled=false")}
    assert not kinds & {"CustomResourceDefinition", "ValidatingAdmissionPolicy"}


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS.keys())
def test_no_role_has_a_wildcard_a_secret_a_pod_or_a_token(values: list[str]) -> None:
    for one in rendered(*values):
        if one["kind"] not in {"Role", "ClusterRole"}:
            continue
        for rule in one["rules"]:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert "*" not in words
            assert not {"secrets", "pods", "serviceaccounts/token", "nodes/proxy"} & words


def test_every_power_is_in_the_role_for_powers() -> None:
    text = (ROOT / "crds" / "policies.yaml").read_text()
    powers = {part.partition("'")[0] for part in text.split(".resource('")[1:]}
    rule = of_kind(rendered(), "ClusterRole", "numavm-host-powers")["rules"][0]

    assert powers
    assert powers <= set(rule["resources"]), "add the new power to deploy/rbac/users.yaml"


def test_the_operator_has_no_privilege() -> None:
    pod = of_kind(rendered(), "Deployment")["spec"]["template"]["spec"]
    for context in [one["securityContext"] for one in pod["containers"]]:
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    assert not {"hostPID", "hostNetwork", "hostIPC"} & set(pod)
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


def test_the_agent_has_what_it_says_and_no_more() -> None:
    pod = of_kind(rendered(), "DaemonSet")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    context = container["securityContext"]

    assert (context["privileged"], context["readOnlyRootFilesystem"]) == (False, True)
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["SYS_PTRACE", "SYS_NICE"]}
    writable = {one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")}
    assert writable == {"/run/libvirt", "/host/sys/fs/cgroup", "/run/numavm", "/tmp"}  # noqa: S108 - a mount
    readme = (CHART / "README.md").read_text()
    for privilege in ("SYS_PTRACE", "SYS_NICE", "/run/libvirt", "/run/numavm"):
        assert f"`{privilege}`" in readme


def test_without_rehoming_the_agent_has_less() -> None:
    pod = of_kind(rendered("agent.liveRehoming=false"), "DaemonSet")["spec"]["template"]["spec"]
    [container] = pod["containers"]

    assert container["securityContext"]["capabilities"]["add"] == ["SYS_PTRACE"]
    mounts = {one["mountPath"]: one.get("readOnly", False) for one in container["volumeMounts"]}
    assert mounts["/host/sys/fs/cgroup"] is True


def test_every_object_says_whose_it_is() -> None:
    for one in rendered(*COMBINATIONS["everything"]):
        assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "numavm"


def test_alerts_and_dashboard_are_those_that_are_tested() -> None:
    objects = rendered(*COMBINATIONS["everything"])
    groups = of_kind(objects, "PrometheusRule")["spec"]["groups"]
    shipped = yaml.safe_load((ROOT / "deploy" / "dashboards" / "alerts.yaml").read_text())["groups"]
    for group in groups:
        for rule in group["rules"]:
            section = f"#{rule['alert'].lower()}"
            assert rule["annotations"]["runbook_url"] == f"https://example.org/runbook.md{section}"
            rule["annotations"]["runbook_url"] = f"docs/runbook.md{section}"
    assert groups == shipped
    board = of_kind(objects, "ConfigMap")["data"]["numavm.json"]
    assert board.strip() == (ROOT / "deploy" / "dashboards" / "numavm.json").read_text().strip()


def test_a_service_monitor_finds_the_ports_of_both_and_nothing_is_scraped_twice() -> None:
    objects = rendered(*COMBINATIONS["service-monitor"])
    monitor = of_kind(objects, "ServiceMonitor")
    services = [one for one in objects if one["kind"] == "Service"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert [one["metadata"]["name"] for one in services] == [
        "numavm-operator-metrics",
        "numavm-agent-metrics",
    ]
    for service in services:
        assert wanted <= service["metadata"]["labels"].items()
        kind = "DaemonSet" if "agent" in service["metadata"]["name"] else "Deployment"
        template = of_kind(objects, kind)["spec"]["template"]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        [port] = service["spec"]["ports"]
        [container] = template["spec"]["containers"]
        assert port["targetPort"] in [one["name"] for one in container["ports"]]
    assert [one["port"] for one in monitor["spec"]["endpoints"]] == ["http"]

    both = ("--set", "serviceMonitor.enabled=true,podMonitor.enabled=true")
    told = helm("template", "numavm", str(CHART), "--namespace", NAMESPACE, *both, code=1)
    assert "scraped twice: set one of them to false" in told


def test_a_disruption_budget_only_where_it_can_be_kept() -> None:
    assert of_kind(rendered(), "PodDisruptionBudget")["spec"]["minAvailable"] == 1
    kinds = {one["kind"] for one in rendered("operator.replicas=1")}
    assert "PodDisruptionBudget" not in kinds


def test_notes_end_with_the_next_commands(tmp_path: Any) -> None:
    told = helm(
        *("install", "numavm", str(CHART), "--namespace", NAMESPACE, "--dry-run=client"),
        *("--kubeconfig", str(tmp_path / "none")),
    )
    notes = told.partition("NOTES:")[2]

    assert [line.split()[1] for line in notes.splitlines() if line.startswith("  kubectl")] == [
        "get",
        "edit",
        "apply",
    ]
