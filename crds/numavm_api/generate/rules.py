"""CEL rules of the schema: what two or three fields of one object have to do with each other.

The API server checks them also while the operator is down, and even where the admission policies are missing. It budgets a
schema's rules and messages at worst case: a message can repeat a string field, but neither format a number nor join a list,
and looking at every pair of entries or every part of a cpuset is refused. Rules that need that are in
`numavm_api.generate.spec_policy`. The whole list is `numavm_api.validation`. A message names value and limit; the field is the
path that the server puts before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from numavm_api.quantity import BASE_PAGE, MEBIBYTE
from numavm_api.rules_memory import HUGE_PAGE_SIZES


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


def huge_pages_in(domain: str) -> str:
    """Return the expression that tells whether any memory of a domain is in huge pages."""
    whole, cells = f"{domain}.memory.hugepages", f"{domain}.cpu.numa.cells"
    return (
        f"(has({whole}) && {bytes_of(f'{whole}.pageSize')} > {BASE_PAGE} || has({domain}.cpu.numa)"
        f" && {cells}.exists(c, has(c.hugepages) && {bytes_of('c.hugepages.pageSize')} > {BASE_PAGE}))"
    )


DOTS: Final = r"(^|/)\\.\\.?(/|$)"
"""A path component `.` or `..`, as text of a CEL string."""

QUANTITY_RULES: Final = (
    Rule(
        "type(self) == int || isQuantity(self) && quantity(self).asApproximateFloat() < 9.2e18"
        " && double(int(quantity(self).asApproximateFloat())) == quantity(self).asApproximateFloat()",
        "string(self) + ' is not a whole number of bytes below 2^63: write it such as 512Mi or 8Gi'",
    ),
)

_GUEST: Final = bytes_of("self.memory.guest")
_GUEST_PAGE: Final = bytes_of("self.memory.hugepages.pageSize")
_CELL: Final = bytes_of("self.memory")
_CELL_PAGE: Final = bytes_of("self.hugepages.pageSize")
_PAGES: Final = ", ".join(map(str, HUGE_PAGE_SIZES))


def _path_rule(name: str, *, optional: bool = False) -> Rule:
    absent = f"!has(self.{name}) || " if optional else ""
    return Rule(
        f"{absent}!self.{name}.matches('{DOTS}')",
        f"self.{name} + ' has a component . or ..: write the path without it'",
        f".{name}",
    )


_DOMAIN_RULES: Final = (
    Rule(
        "has(self.memory.guest) || has(self.cpu.numa)",
        "'nothing, but a VM needs memory: set spec.domain.memory.guest, or spec.domain.cpu.numa.cells with their memory'",
        ".memory.guest",
    ),
    Rule(
        f"!has(self.memory.guest) || has(self.cpu.numa) || {_GUEST} > 0 && {_GUEST} % {MEBIBYTE} == 0",
        "string(self.memory.guest) + ' is no positive multiple of 1Mi'",
        ".memory.guest",
    ),
    Rule(
        "!has(self.memory.guest) || has(self.cpu.numa) || !has(self.memory.hugepages)"
        f" || {_GUEST_PAGE} > 0 && {_GUEST} % {_GUEST_PAGE} == 0",
        "string(self.memory.guest) + ' is no multiple of the page size ' + string(self.memory.hugepages.pageSize)",
        ".memory.guest",
    ),
    Rule(
        "!has(self.memory.backing.source) || self.memory.backing.source != 'Anonymous' || !"
        + huge_pages_in("self"),
        "'Anonymous, but huge pages come from a memfd: leave source out, or set it to Memfd, or drop hugepages'",
        ".memory.backing.source",
    ),
    Rule(
        "self.memory.backing.allocation != 'OnDemand' || !" + huge_pages_in("self"),
        "'OnDemand, but a huge page that is missing later kills the VM: leave allocation out or drop hugepages'",
        ".memory.backing.allocation",
    ),
)
_CPU_RULES: Final = (
    Rule(
        "self.dedicatedCpuPlacement || self.threadPolicy == 'Prefer'",
        "self.threadPolicy + ' needs dedicated CPUs: set dedicatedCpuPlacement to true or leave threadPolicy out'",
        ".threadPolicy",
    ),
    Rule(
        "self.dedicatedCpuPlacement || !self.isolateEmulatorThread",
        "'true needs dedicated CPUs: set dedicatedCpuPlacement to true or leave isolateEmulatorThread out'",
        ".isolateEmulatorThread",
    ),
)
_CELL_RULES: Final = (
    Rule(
        f"{_CELL} > 0 && {_CELL} % {MEBIBYTE} == 0",
        "string(self.memory) + ' is no positive multiple of 1Mi'",
        ".memory",
    ),
    Rule(
        f"!has(self.hugepages) || {_CELL_PAGE} > 0 && {_CELL} % {_CELL_PAGE} == 0",
        "string(self.memory) + ' is no multiple of the page size ' + string(self.hugepages.pageSize)",
        ".memory",
    ),
)

MODEL_RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    "Domain": _DOMAIN_RULES,
    "Cpu": _CPU_RULES,
    "GuestCell": _CELL_RULES,
    "HugePages": (
        Rule(
            f"{bytes_of('self.pageSize')} in [{BASE_PAGE}, {_PAGES}]",
            "string(self.pageSize) + ' is no page size: a page is 4Ki, or a power of two from 2Mi to 16Gi'",
            ".pageSize",
        ),
    ),
    "Backing": (
        Rule(
            "self.access != 'Shared' || !has(self.source) || self.source != 'Anonymous'",
            "'Anonymous, but access Shared needs memory that another process can map: leave source out or set it to Memfd'",
            ".source",
        ),
    ),
    "Firmware": (
        Rule(
            "!has(self.kernelBoot) || !has(self.bootloader)",
            "'kernelBoot and bootloader are both set, and a VM boots in one way: leave one out'",
            ".kernelBoot",
        ),
    ),
    "NodeSelectorRequirement": (
        Rule(
            "self.operator in ['In', 'NotIn'] ? size(self.values) > 0 : self.operator in ['Gt', 'Lt']"
            " ? size(self.values) == 1 && self.values[0].matches('^-?[0-9]{1,18}$') : size(self.values) == 0",
            "'In and NotIn need values, Gt and Lt one whole number, Exists and DoesNotExist none; the operator is '"
            " + self.operator",
            ".values",
        ),
    ),
    "Toleration": (
        Rule(
            "has(self.key) || self.operator == 'Exists'",
            "self.operator + ', but every key is named by Exists: set a key'",
            ".operator",
        ),
        Rule(
            "!has(self.value) || self.operator == 'Equal'",
            "self.value + ', but operator Exists takes none: leave value out'",
            ".value",
        ),
    ),
    "NumaVMSpec": (
        Rule(
            "self.placement.lastLevelCache == 'Prefer' || self.domain.cpu.dedicatedCpuPlacement",
            "'Whole needs dedicated CPUs: set spec.domain.cpu.dedicatedCpuPlacement to true or leave lastLevelCache out'",
            ".placement.lastLevelCache",
        ),
    ),
    "KernelBoot": (_path_rule("kernel"), _path_rule("initrd", optional=True)),
    "HostDisk": (_path_rule("path"),),
    "Permitted": (
        Rule(
            f"self.directories.all(d, !d.matches('{DOTS}'))",
            "'one has a component . or ..: write the directories without it'",
            ".directories",
        ),
    ),
}
"""By the name of the model whose objects they look at."""
