"""The shape of a CEL rule, and the expressions that rules share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

DOTS: Final = r"(^|/)\\.\\.?(/|$)"
"""A path component `.` or `..`, as text of a CEL string."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `x-kubernetes-validations`."""

    rule: str
    message: str
    """A CEL expression that gives the text."""
    field_path: str | None = None
    """The offending field below the rule's own."""

    def to_api(self) -> dict[str, Any]:
        """Return the JSON form."""
        entry = {"rule": self.rule, "messageExpression": self.message}
        return {**entry, "fieldPath": self.field_path} if self.field_path else entry


def bytes_of(field: str) -> str:
    """Return the expression for the bytes that a quantity names.

    asInteger() fails on `1.5Gi`, which is whole; the double is exact below 2^53, beyond any VM's memory.
    """
    return f"int(quantity(string({field})).asApproximateFloat())"
