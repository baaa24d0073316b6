"""What the API server takes and what it refuses, rule by rule."""

from pathlib import Path

import pytest
from kubernetes.client.exceptions import ApiException

from numavm_api.numavm import NumaVMSpec
from numavm_api.reading import read_spec
from support.cluster import Callers
from support.custom_objects import NumaHosts, NumaVMs, message_of
from support.examples import EXAMPLES, example
from support.manifests import BAD, GOOD, TWO_CELLS, BadManifest, Refuser

SEED_EXAMPLES = sorted((EXAMPLES / "seed").glob("*.yaml"))


@pytest.fixture
def vms(callers: Callers, namespace: str) -> NumaVMs:
    return NumaVMs(callers.admin(), namespace)


@pytest.fixture(scope="module")
def all_vms(callers: Callers) -> NumaVMs:
    """For dry runs, which leave nothing behind."""
    return NumaVMs(callers.admin(), "default")


@pytest.mark.parametrize("name", GOOD)
def test_a_good_manifest_comes_back_as_the_model_reads_it(name: str, vms: NumaVMs) -> None:
    sent = NumaVMSpec.model_validate(GOOD[name])
    vms.create(name, sent.to_api())

    stored = vms.get(name)["spec"]
    assert sent == read_spec(stored)


@pytest.mark.parametrize("name", GOOD)
def test_the_server_fills_in_the_defaults_of_the_model(name: str, all_vms: NumaVMs) -> None:
    stored = all_vms.create(name, GOOD[name], dry_run=True)["spec"]

    model = NumaVMSpec.model_validate(GOOD[name])
    in_full = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert in_full == NumaVMSpec.model_validate(stored).to_api()


@pytest.mark.parametrize("path", SEED_EXAMPLES, ids=lambda path: path.stem)
def test_the_articles_examples_are_taken(path: Path, vms: NumaVMs) -> None:
    shipped = example(f"seed/{path.stem}")
    vms.create(shipped["metadata"]["name"], shipped["spec"])

    stored = vms.get(shipped["metadata"]["name"])["spec"]
    assert read_spec(stored) == NumaVMSpec.model_validate(shipped["spec"])


@pytest.mark.parametrize(
    "bad", [bad for bad in BAD if bad.refuser is not Refuser.OPERATOR], ids=str
)
def test_the_server_refuses_with_field_value_and_limit(bad: BadManifest, all_vms: NumaVMs) -> None:
    with pytest.raises(ApiException) as refused:
        all_vms.create(bad.name, bad.spec, dry_run=True)

    message = message_of(refused.value)
    assert not [part for part in bad.says if part not in message], message
    assert ("ValidatingAdmissionPolicy" in message) == (bad.refuser is Refuser.POLICY), message


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.refuser is Refuser.OPERATOR], ids=str)
def test_what_is_left_to_the_operator_is_taken_by_the_server(
    bad: BadManifest, all_vms: NumaVMs
) -> None:
    """Else the table would be wrong: the server could tell it at once."""
    taken = all_vms.create(bad.name, bad.spec, dry_run=True)

    assert isinstance(read_spec(taken["spec"]), list)


def test_nothing_is_left_behind_by_a_refused_manifest(vms: NumaVMs) -> None:
    bad = next(bad for bad in BAD if bad.refuser is Refuser.POLICY)
    with pytest.raises(ApiException):
        vms.create(bad.name, bad.spec)
    with pytest.raises(ApiException) as absent:
        vms.get(bad.name)

    assert absent.value.status == 404


def test_a_name_longer_than_a_label_is_refused(all_vms: NumaVMs) -> None:
    with pytest.raises(ApiException) as refused:
        all_vms.create("n" * 64, TWO_CELLS, dry_run=True)

    assert "64 characters, but a NumaVM has at most 63" in message_of(refused.value)


def test_an_object_from_before_a_rule_can_still_be_changed_elsewhere(
    callers: Callers, vms: NumaVMs
) -> None:
    """Here a spec that only the operator refuses stands for it: labels and finalizers stay free."""
    bad = next(bad for bad in BAD if bad.refuser is Refuser.OPERATOR)
    vms.create("old", bad.spec)
    NumaVMs(callers.operator(), vms.namespace).patch(
        "old", {"metadata": {"finalizers": ["numavm.io/teardown"]}}
    )
    vms.patch("old", {"metadata": {"labels": {"a": "b"}}})

    assert vms.get("old")["metadata"]["finalizers"] == ["numavm.io/teardown"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"reservedCpus": "3-1"}, ("spec.reservedCpus", "3-1", "backwards")),
        ({"sharedCpus": "0,99999"}, ("spec.sharedCpus", "0,99999", "16383")),
        ({"dedicatedCpus": ""}, ("spec.dedicatedCpus", "[0-9]")),
        ({"cpuAllocationPercent": 99}, ("spec.cpuAllocationPercent", "99", "100")),
        ({"reservedMemory": [{"cell": 0, "memory": "1GB"}]}, ("reservedMemory[0].memory", "1GB")),
        ({"permitted": {"directories": ["/a/../b"]}}, ("permitted.directories", "..")),
        ({"permitted": {"directories": ["images"]}}, ("permitted.directories[0]", "images")),
        (
            {"reservedMemory": [{"cell": 0, "memory": 0}, {"cell": 0, "memory": 1}]},
            ("reservedMemory[1]", "Duplicate"),
        ),
    ],
)
def test_a_bad_host_is_refused(
    callers: Callers, spec: dict[str, object], says: tuple[str, ...]
) -> None:
    with pytest.raises(ApiException) as refused:
        NumaHosts(callers.admin()).create("bad-host", spec=spec)

    message = message_of(refused.value)
    assert not [part for part in says if part not in message], message
