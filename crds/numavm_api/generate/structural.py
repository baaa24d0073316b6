"""From the JSON schema that pydantic makes to the structural schema that the API server takes.

Owns the translation and its limits: references are inlined, null branches and titles dropped, integers are int64. Whatever
has no structural form, or no bound, raises: a CRD's CEL rules are budgeted by the bounds of what they look at.
Rules from outside: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from numavm_api.generate.rules import MODEL_RULES, QUANTITY_RULES

Schema = dict[str, Any]

_KEPT: Final = frozenset(
    {
        "type",
        "description",
        "default",
        "enum",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
    }
)
_TRANSLATED: Final = frozenset({"properties", "required", "items", "additionalProperties"})
_DROPPED: Final = frozenset({"title", "propertyNames"})
"""Names of map keys cannot be constrained in a structural schema; a CEL rule does where it matters."""
_EXCLUSIVE: Final = {"exclusiveMaximum": ("maximum", -1), "exclusiveMinimum": ("minimum", 1)}


class NotStructuralError(Exception):
    """A model has a shape that a structural schema cannot have, or that has no bound."""


@dataclass(frozen=True, slots=True)
class _Context:
    """Where in which model we are."""

    definitions: Mapping[str, Schema]
    of_spec: bool
    """Defaults and rules are for what people write; a status is taken as its writers send it."""
    path: str = field(default="")

    def at(self, step: str) -> _Context:
        return _Context(self.definitions, self.of_spec, f"{self.path}.{step}")


def structural_schema(model: type[BaseModel], *, of_spec: bool) -> Schema:
    """Return the structural schema of a model.

    Args:
        model: The pydantic model.
        of_spec: True: with defaults and CEL rules.

    Raises:
        NotStructuralError: The model cannot be expressed.
    """
    schema = model.model_json_schema(mode="validation")
    context = _Context(schema.pop("$defs", {}), of_spec, model.__name__)
    return _translate(_with_rules(schema, model.__name__, context), context)


def _translate(given: Schema, context: _Context) -> Schema:
    schema = _integer_bounds(_resolve(given, context))
    unknown = schema.keys() - _KEPT - _TRANSLATED - _DROPPED - {"x-kubernetes-validations"}
    if unknown:
        raise NotStructuralError(f"{context.path}: {sorted(unknown)} has no structural form")
    result = {key: value for key, value in schema.items() if key in _KEPT}
    _default(result, context)
    if "properties" in schema:
        result["properties"] = {
            name: _translate(part, context.at(name)) for name, part in schema["properties"].items()
        }
    if schema.get("required"):
        result["required"] = schema["required"]
    if "items" in schema:
        result["items"] = _translate(schema["items"], context.at("[]"))
    if isinstance(schema.get("additionalProperties"), dict):
        values = _translate(schema["additionalProperties"], context.at("{}"))
        result["additionalProperties"] = values
    _require_bounds(result, context)
    rules = [*_type_rules(result, context), *schema.get("x-kubernetes-validations", ())]
    return {**result, "x-kubernetes-validations": rules} if rules else result


def _resolve(given: Schema, context: _Context) -> Schema:
    """Inline a reference and drop the null branch of what is optional; what stands beside them wins."""
    beside = {key: value for key, value in given.items() if key not in {"$ref", "anyOf"}}
    if "anyOf" in given:
        branches = [branch for branch in given["anyOf"] if branch != {"type": "null"}]
        if len(branches) != 1:
            raise NotStructuralError(f"{context.path}: {len(branches)} alternatives, not one")
        if beside.get("default", ...) is None:
            del beside["default"]
        return {**_resolve(branches[0], context), **beside}
    if "$ref" in given:
        name = given["$ref"].removeprefix("#/$defs/")
        return {**_with_rules(context.definitions[name], name, context), **beside}
    return beside


def _with_rules(schema: Schema, name: str, context: _Context) -> Schema:
    rules = MODEL_RULES.get(name, ()) if context.of_spec else ()
    if not rules:
        return schema
    return {**schema, "x-kubernetes-validations": [rule.to_api() for rule in rules]}


def _integer_bounds(schema: Schema) -> Schema:
    """Write exclusive bounds, which a structural schema has only as booleans, as inclusive ones."""
    if schema.get("type") != "integer":
        return schema
    result: Schema = {"format": "int64"}
    for key, value in schema.items():
        bound, step = _EXCLUSIVE.get(key, (key, 0))
        result[bound] = value + step if step else value
    return result


def _default(result: Schema, context: _Context) -> None:
    """Write the default out in full: the server judges it by the rules before it fills nested defaults in."""
    if not context.of_spec:
        result.pop("default", None)
    elif "default" in result:
        result["default"] = _without_nulls(result["default"])


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return value


def _require_bounds(schema: Schema, context: _Context) -> None:
    match schema.get("type"):
        case "string" if not schema.keys() & {"enum", "maxLength"}:
            missing = "maxLength"
        case "array" if "maxItems" not in schema:
            missing = "maxItems"
        case "object" if "additionalProperties" in schema and "maxProperties" not in schema:
            missing = "maxProperties"
        case None if "x-kubernetes-int-or-string" not in schema:
            missing = "type"
        case _:
            return
    raise NotStructuralError(f"{context.path} has no {missing}")


def _type_rules(schema: Schema, context: _Context) -> list[Schema]:
    """Return the rules that belong to a kind of value wherever it stands."""
    if context.of_spec and "x-kubernetes-int-or-string" in schema:
        return [rule.to_api() for rule in QUANTITY_RULES]
    return []
