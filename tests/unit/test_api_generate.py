"""The generator: what it writes, and what it will not write."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field

from numavm_api.base import SpecModel, StatusModel, list_map
from numavm_api.conditions import AGENT_CONDITIONS, OPERATOR_CONDITIONS
from numavm_api.cpuset import CpuSet
from numavm_api.generate.__main__ import CRDS, main
from numavm_api.generate.files import generated_files
from numavm_api.generate.rules import MODEL_RULES
from numavm_api.generate.structural import NotStructuralError, structural_schema
from numavm_api.generate.writer_policies import OPERATOR_FIELDS
from numavm_api.numahost import NumaHostSpec
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import Quantity
from numavm_api.vm_status import NumaVMStatus

Short = Annotated[str, Field(max_length=8)]


class Colour(StrEnum):
    """Colours."""

    RED = "Red"
    BLUE = "Blue"


class Part(SpecModel):
    """A part."""

    name: Short
    """Its name."""


class Whole(SpecModel):
    """A whole."""

    colour: Colour = Colour.RED
    """Its colour."""
    count: Annotated[int, Field(ge=1, lt=8)] | None = None
    """How many."""
    size: Quantity
    """How large."""
    parts: list[Part] = Field(default=[], max_length=4, json_schema_extra=list_map("name"))
    """What it is made of."""
    first: Part | None = None
    """The best part."""


def schema_of(kind: str) -> dict[str, Any]:
    text = generated_files()[f"numavm.io_{kind}.yaml"]
    version = yaml.safe_load(text)["spec"]["versions"][0]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def test_references_nulls_and_titles_are_gone() -> None:
    schema = structural_schema(Whole, of_spec=True)
    properties = schema["properties"]

    assert properties["colour"] == {
        "type": "string",
        "enum": ["Red", "Blue"],
        "description": "Its colour.",
        "default": "Red",
    }
    assert properties["count"] == {
        "type": "integer",
        "format": "int64",
        "minimum": 1,
        "maximum": 7,
        "description": "How many.",
    }
    assert properties["size"]["x-kubernetes-int-or-string"] is True
    assert properties["parts"]["x-kubernetes-list-map-keys"] == ["name"]
    assert properties["parts"]["items"]["properties"]["name"]["maxLength"] == 8
    assert properties["first"]["description"] == "The best part."
    assert schema["required"] == ["size"]


def test_a_status_has_no_defaults_and_no_rules() -> None:
    """The server would fill defaults in, as if whoever writes first had written them."""
    status = schema_of("numavms")["properties"]["status"]

    assert [
        path for path, part in walk(status) if {"default", "x-kubernetes-validations"} & part.keys()
    ] == []


def walk(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for name, part in schema.get("properties", {}).items():
        found += walk(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += walk(schema[key], f"{path}[]")
    return found


@pytest.mark.parametrize("kind", ["numavms", "numahosts"])
def test_integers_are_64_bits_and_everything_has_a_bound(kind: str) -> None:
    parts = walk(schema_of(kind)["properties"]["spec"]) + walk(
        schema_of(kind)["properties"]["status"]
    )

    assert [
        path for path, part in parts if part.get("type") == "integer" and part["format"] != "int64"
    ] == []
    assert [
        path for path, part in parts if part.get("type") == "array" and "maxItems" not in part
    ] == []


def model_with(kind: object) -> type[SpecModel]:
    """Return a model with one field `a` of a kind."""
    return type("M", (SpecModel,), {"__annotations__": {"a": kind}})


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (model_with(str), "M.a has no maxLength"),
        (model_with(list[int]), "M.a has no maxItems"),
        (model_with(dict[str, int]), "M.a has no maxProperties"),
        (model_with(int | Short), "M.a: 2 alternatives"),
        (model_with(tuple[int, int]), "M.a: ['prefixItems'] has no structural form"),
        (model_with(Any), "M.a has no type"),
    ],
)
def test_what_has_no_structural_form_or_no_bound_is_refused(
    model: type[SpecModel], says: str
) -> None:
    with pytest.raises(NotStructuralError) as refused:
        structural_schema(model, of_spec=True)

    assert says in str(refused.value)


def test_an_empty_cpuset_is_a_fact_in_a_status_only() -> None:
    class Report(StatusModel):
        """A report."""

        cpus: CpuSet

    pattern = structural_schema(Report, of_spec=False)["properties"]["cpus"]["pattern"]

    assert pattern.startswith("^$|")


def test_rules_belong_to_models_that_exist() -> None:
    names = set(NumaVMSpec.model_json_schema()["$defs"]) | set(
        NumaHostSpec.model_json_schema()["$defs"]
    )

    assert set() == MODEL_RULES.keys() - names - {"NumaVMSpec"}


def test_the_policy_on_status_knows_the_model() -> None:
    fields = {field.alias for field in NumaVMStatus.model_fields.values()}

    assert set(OPERATOR_FIELDS) <= fields
    assert OPERATOR_CONDITIONS.isdisjoint(AGENT_CONDITIONS)


def test_the_manifests_are_up_to_date() -> None:
    assert main(["--check"]) == 0


def test_a_difference_fails_the_check_and_is_repaired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--directory", str(tmp_path)]
    assert main([*arguments, "--check"]) == 1
    assert "policies.yaml is out of date" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    (tmp_path / "policies.yaml").write_text("")

    assert main([*arguments, "--check"]) == 1
    assert {path.name for path in CRDS.glob("*.yaml")} == {path.name for path in tmp_path.iterdir()}


def test_no_word_is_written_that_yaml_readers_take_for_something_else() -> None:
    """PyYAML writes a bare y, which kubectl reads as true; reading back as text is the proof."""
    for text in generated_files().values():
        for document in yaml.safe_load_all(text):
            assert document["kind"]
        assert not [
            line
            for line in text.splitlines()
            if line.rstrip().endswith((": y", ": n", "- y", "- n"))
        ]
