"""Amounts of memory: bytes inside, Kubernetes quantities (`8Gi`) outside.

Owns the units. The grammar is that of k8s.io/apimachinery's resource.Quantity, narrowed to whole bytes: a fraction
of a byte or a milli-byte has no meaning here and is refused.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Final, NewType

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

Bytes = NewType("Bytes", int)
KiB = NewType("KiB", int)

NO_BYTES: Final = Bytes(0)
KIBIBYTE: Final = 1024
MEBIBYTE: Final = 1024**2
GIBIBYTE: Final = 1024**3
BASE_PAGE: Final = Bytes(4 * KIBIBYTE)
"""The x86-64 base page. A page size of `4Ki` means memory outside the huge page pools."""
LINUX_BLOCK: Final = Bytes(128 * MEBIBYTE)
"""Smallest block in which Linux takes memory into use on x86-64 (arch/x86/mm/init_64.c, MIN_MEMORY_BLOCK_SIZE)."""

_MULTIPLES: Final[dict[str, int]] = {
    "": 1,
    "k": 1000,
    "M": 1000**2,
    "G": 1000**3,
    "T": 1000**4,
    "P": 1000**5,
    "Ki": KIBIBYTE,
    "Mi": MEBIBYTE,
    "Gi": GIBIBYTE,
    "Ti": 1024**4,
    "Pi": 1024**5,
}
_BINARY_SUFFIXES: Final = ("Pi", "Ti", "Gi", "Mi", "Ki")
_MAX_BYTES: Final = 2**63 - 1

QUANTITY_PATTERN: Final = r"^[0-9]{1,19}(\.[0-9]{1,9})?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
_QUANTITY: Final = re.compile(
    r"(?P<number>[0-9]{1,19}(?:\.[0-9]{1,9})?)(?P<suffix>k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?"
)


def pages_of(amount: int, page_size: int) -> int:
    """Return how many whole pages an amount takes."""
    return -(-amount // page_size)


def parse_bytes(value: object) -> Bytes:
    """Return the whole bytes that a quantity such as `8Gi`, `1.5Gi` or `1073741824` names.

    Raises:
        ValueError: no quantity, not a whole number of bytes, or past 2**63-1.
    """
    if type(value) is int and 0 <= value <= _MAX_BYTES:
        return Bytes(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{value!r} is no quantity such as '8Gi'")  # noqa: TRY004 - pydantic reports ValueError only
    found = _QUANTITY.fullmatch(str(value).strip())
    if found is None:
        raise ValueError(f"'{value}' is no quantity of memory such as '512Mi' or '8Gi'")
    exact = Decimal(found["number"]) * _MULTIPLES[found["suffix"] or ""]
    if exact != int(exact):
        raise ValueError(f"'{value}' is not a whole number of bytes")
    if exact > _MAX_BYTES:
        raise ValueError(f"'{value}' is more than {_MAX_BYTES} bytes")
    return Bytes(int(exact))


def format_bytes(amount: Bytes | int) -> str:
    """Return the shortest exact quantity with a binary suffix: 8589934592 is `8Gi`, 1000 is `1000`."""
    for suffix in _BINARY_SUFFIXES:
        multiple = _MULTIPLES[suffix]
        if amount and amount % multiple == 0:
            return f"{amount // multiple}{suffix}"
    return str(amount)


Quantity = Annotated[
    Bytes,
    BeforeValidator(parse_bytes),
    PlainSerializer(format_bytes, return_type=str),
    WithJsonSchema(
        {"x-kubernetes-int-or-string": True, "pattern": QUANTITY_PATTERN, "maxLength": 32}
    ),
]
"""A field in bytes that reads and prints as a Kubernetes quantity."""
