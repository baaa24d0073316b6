"""What is wrong with one field of a spec, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """A field whose value breaks a rule; prints as one sentence."""

    field: str
    """Path of the field, `spec.domain.cpu.numa.cells[1].cpus`."""
    value: str
    """The value given, as people wrote it; `nothing` where the field is left out."""
    limit: str
    """The rule it breaks, with its numbers, as a clause."""
    remedy: str
    """The edit that fixes it, as an imperative."""

    def __str__(self) -> str:
        return f"{self.field} is {self.value}, but {self.limit}: {self.remedy}."
