"""Models that are kept by the ten thousand, made small. Pure.

pydantic gives each model a set of its own with the names of the fields that were given: half of what a small model
takes. Models here are frozen, and many have the same fields: they can share such sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)

_MOST_SETS: Final = 10_000
"""Past so many different sets none is shared any more: there are as many as there are ways to fill a model."""

_sets: dict[frozenset[str], set[str]] = {}


def frugal(model: Model) -> Model:
    """Return the model itself, in which it and all models below it share their sets of field names with others.

    Of frozen models only: nobody may add to such a set.
    """
    _visit(model)
    return model


def _visit(value: object) -> None:
    if isinstance(value, BaseModel):
        names = value.model_fields_set
        key = frozenset(names)
        if key in _sets or len(_sets) < _MOST_SETS:
            object.__setattr__(value, "__pydantic_fields_set__", _sets.setdefault(key, names))
        for below in value.__dict__.values():
            _visit(below)
    elif isinstance(value, list | tuple):
        for below in value:
            _visit(below)
    elif isinstance(value, Mapping):
        for below in value.values():
            _visit(below)
