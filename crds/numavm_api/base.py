"""What all API models share: frozen, camelCase outside, unknown fields refused in specs.

Status models let unknown fields pass, because operator and agents of neighbouring versions read each other's.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

GROUP: Final = "numavm.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

ATOMIC: Final[JsonDict] = {"x-kubernetes-map-type": "atomic"}
"""For a field that is written whole or not at all: server-side apply never merges two writers' parts of it."""


def list_map(*keys: str) -> JsonDict:
    """Return the marks of a list whose entries are told apart by `keys`, so that two managers may each own entries."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


class SpecModel(BaseModel):
    """A part of a spec: what people write."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    def to_api(self) -> dict[str, Any]:
        """Return the JSON form with API names, without the fields nobody set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)


class StatusModel(BaseModel):
    """A part of a status: what the operator and the agents write."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    def to_api(self) -> dict[str, Any]:
        """Return the JSON form with API names, without empty fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
