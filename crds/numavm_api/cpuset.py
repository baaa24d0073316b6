"""The kernel's list format, for cpusets and nodesets alike: `0-3,8`, and libvirt's `1-4,^3`.

Owns the one type that parses and prints both. Rules from outside: the format is
Documentation/admin-guide/cputopology.rst and bitmap_parselist() of the kernel; the `^` exclusion is libvirt's
(formatdomain, "CPU Allocation"), where it may follow a range that holds the number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import AfterValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

MAX_MEMBER: Final = 16383
"""Largest number accepted: beyond any kernel's NR_CPUS, small enough that no input can exhaust memory."""

MAX_TEXT_LENGTH: Final = 4096

MAX_SPEC_LENGTH: Final = 1024
"""Characters of a list in a spec: every second one of 512 vCPUs, one by one, has 960."""

_ITEM: Final = re.compile(r"(?P<exclude>\^?)(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?")

CPUSET_PATTERN: Final = r"^[0-9]{1,5}(-[0-9]{1,5})?(,\^?[0-9]{1,5}(-[0-9]{1,5})?)*$"
"""What the API server can check by itself; the algebra of exclusions is checked by `CpuSet.parse`."""

REPORTED_CPUSET_PATTERN: Final = f"^$|{CPUSET_PATTERN}"
"""In a status the empty set is a fact; in a spec it would be a wish that nobody can fulfil."""


@dataclass(frozen=True, slots=True)
class CpuSet:
    """An immutable set of CPU or NUMA node numbers that prints in the kernel's list format."""

    members: frozenset[int] = frozenset()

    @classmethod
    def of(cls, *members: int) -> CpuSet:
        """Return the set of the given numbers."""
        return cls(frozenset(members))

    @classmethod
    @lru_cache(maxsize=MAX_MEMBER + 1)
    def single(cls, member: int) -> CpuSet:
        """Return the set of one number, always the same object: a claim has one for each vCPU."""
        return cls(frozenset((member,)))

    @classmethod
    def union_of(cls, sets: Iterable[CpuSet]) -> CpuSet:
        """Return the union of any number of sets; of none, the empty set."""
        return cls(frozenset().union(*(one.members for one in sets)))

    @classmethod
    def parse(cls, text: str) -> CpuSet:
        """Return the set that `text` names, exclusions applied from left to right.

        The empty text is the empty set, as in sysfs.

        Raises:
            ValueError: the text is no list, a range runs backwards, a number is past `MAX_MEMBER`, or an
                exclusion removes nothing (which is always a slip of the pen).
        """
        members: set[int] = set()
        stripped = text.strip()
        if len(stripped) > MAX_TEXT_LENGTH:
            raise ValueError(f"{len(stripped)} characters: a list has at most {MAX_TEXT_LENGTH}")
        if not stripped:
            return cls()
        for item in stripped.split(","):
            numbers, exclude = _parse_item(item, whole=stripped)
            if not exclude:
                members |= numbers
            elif numbers <= members:
                members -= numbers
            else:
                raise ValueError(f"'{item}' in '{stripped}' excludes what was not listed before it")
        if not members:
            raise ValueError(f"'{stripped}' excludes everything it lists")
        return cls(frozenset(members))

    def __str__(self) -> str:
        if len(self.members) == 1:
            return str(*self.members)
        return ",".join(
            str(first) if first == last else f"{first}-{last}" for first, last in self._runs()
        )

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.members))

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, member: object) -> bool:
        return member in self.members

    def __or__(self, other: CpuSet) -> CpuSet:
        return CpuSet(self.members | other.members)

    def __and__(self, other: CpuSet) -> CpuSet:
        return CpuSet(self.members & other.members)

    def __sub__(self, other: CpuSet) -> CpuSet:
        return CpuSet(self.members - other.members)

    def __le__(self, other: CpuSet) -> bool:
        return self.members <= other.members

    def first(self) -> int:
        """Return the smallest member.

        Raises:
            ValueError: the set is empty.
        """
        return min(self.members)

    def isdisjoint(self, other: CpuSet) -> bool:
        """Tell whether no number is in both sets."""
        return self.members.isdisjoint(other.members)

    def _runs(self) -> Iterator[tuple[int, int]]:
        first: int | None = None
        last = -1
        for member in self:
            if first is None:
                first = member
            elif member != last + 1:
                yield first, last
                first = member
            last = member
        if first is not None:
            yield first, last

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's signature
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "pattern": REPORTED_CPUSET_PATTERN, "maxLength": MAX_TEXT_LENGTH}

    @classmethod
    def _validate(cls, value: object) -> CpuSet:
        if isinstance(value, CpuSet):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        raise ValueError(f"{value!r} is no list of numbers such as '0-3,8'")


def _parse_item(item: str, *, whole: str) -> tuple[frozenset[int], bool]:
    found = _ITEM.fullmatch(item)
    if found is None:
        raise ValueError(f"'{item}' in '{whole}' is no number and no range such as '0-3'")
    first = int(found["first"])
    last = int(found["last"] or first)
    if last < first:
        raise ValueError(f"'{item}' in '{whole}' runs backwards")
    if last > MAX_MEMBER:
        raise ValueError(f"'{item}' in '{whole}' is past {MAX_MEMBER}")
    return frozenset(range(first, last + 1)), bool(found["exclude"])


def _not_empty(value: CpuSet) -> CpuSet:
    if not value:
        raise ValueError("an empty list: leave the field out")
    return value


SpecCpuSet = Annotated[
    CpuSet,
    AfterValidator(_not_empty),
    WithJsonSchema({"type": "string", "pattern": CPUSET_PATTERN, "maxLength": MAX_SPEC_LENGTH}),
]
"""A list that people write: never empty."""
