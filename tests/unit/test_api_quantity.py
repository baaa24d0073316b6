"""Quantities: the grammar of Kubernetes, narrowed to whole bytes."""

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity

from numavm_api.quantity import format_bytes, parse_bytes

SUFFIXES = ["", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi"]

amounts = st.integers(0, 2**63 - 1)


@given(amounts)
def test_what_is_printed_parses_to_the_same(amount: int) -> None:
    assert amount == parse_bytes(format_bytes(amount))


@given(amounts)
def test_others_read_what_is_printed_alike(amount: int) -> None:
    assert amount == parse_quantity(format_bytes(amount))


@given(st.decimals(0, 10**6, places=3), st.sampled_from(SUFFIXES))
def test_whole_bytes_are_read_as_by_the_kubernetes_library(number: Decimal, suffix: str) -> None:
    text = f"{number}{suffix}"
    theirs = parse_quantity(text)
    assume(theirs == int(theirs))
    assume(theirs < 2**63)

    assert int(theirs) == parse_bytes(text)


@given(st.decimals(0, 10**6, places=3), st.sampled_from(SUFFIXES))
def test_a_part_of_a_byte_is_refused(number: Decimal, suffix: str) -> None:
    text = f"{number}{suffix}"
    theirs = parse_quantity(text)
    assume(theirs != int(theirs))
    with pytest.raises(ValueError, match="whole number of bytes"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0"), (1000, "1000"), (1024, "1Ki"), (3 * 1024**3 // 2, "1536Mi"), (8 * 1024**3, "8Gi")],
)
def test_the_shortest_exact_binary_form_is_printed(amount: int, text: str) -> None:
    assert text == format_bytes(amount)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Gi",
        "1GB",
        "1gi",
        "-1Gi",
        "+1Gi",
        "1e3",
        "1Ei",
        "8 Gi",
        "1Gi;",
        "٣Gi",
        "0x10",
        "1.Gi",
        ".5Gi",
    ],
)
def test_what_is_no_quantity_is_refused_with_itself_in_the_message(value: str) -> None:
    with pytest.raises(ValueError, match="no quantity") as refused:
        parse_bytes(value)

    assert f"'{value}'" in str(refused.value)


@pytest.mark.parametrize("value", [True, None, 1.5, [], {}])
def test_what_is_neither_number_nor_text_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        parse_bytes(value)


@pytest.mark.parametrize("value", ["8192Pi", 2**63, "9223372036854775808"])
def test_more_than_64_bits_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="more than 9223372036854775807"):
        parse_bytes(value)
