"""From what the API server stores to a spec that makes sense, or to all that is wrong with it.

The API server cannot check everything (cpuset algebra), and it may hold objects from before a rule existed: no reader may
fall over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from numavm_api.numahost import NumaHostSpec
from numavm_api.numavm import NumaVMSpec
from numavm_api.validation import Violation, validate

MAX_VALUE_LENGTH: Final = 120


def read_spec(stored: Mapping[str, Any]) -> NumaVMSpec | list[Violation]:
    """Return the spec, or everything that is wrong with it: never an empty list.

    Args:
        stored: The field `spec` of a NumaVM, as JSON.
    """
    try:
        spec = NumaVMSpec.model_validate(stored)
    except ValidationError as error:
        return [_violation(dict(detail)) for detail in error.errors(include_url=False)]
    return validate(spec) or spec


def read_host_spec(stored: Mapping[str, Any] | None) -> NumaHostSpec | list[Violation]:
    """Return the spec of a NumaHost, or what is wrong with its fields: never an empty list.

    Args:
        stored: The field `spec` of a NumaHost, as JSON; None where it has none yet.
    """
    try:
        return NumaHostSpec.model_validate(stored or {})
    except ValidationError as error:
        return [_violation(dict(detail)) for detail in error.errors(include_url=False)]


def _violation(detail: Mapping[str, Any]) -> Violation:
    missing = detail["type"] == "missing"
    value = "nothing" if missing else _shortened(repr(detail["input"]))
    return Violation(
        _path(detail["loc"]),
        value,
        detail["msg"].removeprefix("Value error, "),
        "set it" if missing else "correct it",
    )


def _path(steps: Sequence[str | int]) -> str:
    parts = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return "spec" + "".join(parts)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}..."
