"""CpuSet: the kernel's list format, parsed and printed."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from numavm_api.cpuset import MAX_MEMBER, CpuSet

members = st.frozensets(st.integers(0, 600), max_size=80)


@given(members)
def test_what_is_printed_parses_to_the_same(numbers: frozenset[int]) -> None:
    one = CpuSet(numbers)

    assert one == CpuSet.parse(str(one))


@given(members)
def test_printing_is_shortest(numbers: frozenset[int]) -> None:
    """No two neighbouring ranges could be one; ranges ascend."""
    ranges = [item.split("-") for item in str(CpuSet(numbers)).split(",") if item]
    ends = [(int(item[0]), int(item[-1])) for item in ranges]

    assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(ends))


@given(members, members)
def test_algebra_is_that_of_sets(left: frozenset[int], right: frozenset[int]) -> None:
    one, other = CpuSet(left), CpuSet(right)

    assert left | right == (one | other).members
    assert left & right == (one & other).members
    assert left - right == (one - other).members
    assert (left <= right) == (one <= other)
    assert left.isdisjoint(right) == one.isdisjoint(other)
    assert sorted(left) == list(one)


@given(st.integers(0, 400), st.integers(1, 100), st.data())
def test_an_exclusion_takes_away_what_was_listed(
    first: int, length: int, data: st.DataObject
) -> None:
    last = first + length
    out = data.draw(st.integers(first, last))

    expected = frozenset(range(first, last + 1)) - {out}

    assert expected == CpuSet.parse(f"{first}-{last},^{out}").members


@given(st.integers(0, 400), st.integers(0, 400))
def test_an_exclusion_of_what_was_not_listed_is_refused(listed: int, out: int) -> None:
    expected = "excludes everything" if listed == out else "excludes what was not listed"
    with pytest.raises(ValueError, match=expected):
        CpuSet.parse(f"{listed},^{out}")


@given(st.text(alphabet="0123456789-,^ x", max_size=20))
def test_any_text_is_parsed_or_refused_with_itself_in_the_message(text: str) -> None:
    try:
        parsed = CpuSet.parse(text)
    except ValueError as error:
        assert text.strip()[:20] in str(error) or "'" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert parsed == CpuSet.parse(str(parsed))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", set()),
        ("0", {0}),
        ("0-3,8", {0, 1, 2, 3, 8}),
        ("1-4,^3,6", {1, 2, 4, 6}),
        ("3,1,2", {1, 2, 3}),
        ("1-4,^3,3", {1, 2, 3, 4}),
        (" 0-1 \n", {0, 1}),
    ],
)
def test_examples_of_libvirt_and_sysfs(text: str, expected: set[int]) -> None:
    assert expected == CpuSet.parse(text).members


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3-1", "'3-1' in '3-1' runs backwards"),
        (f"0,{MAX_MEMBER + 1}", f"past {MAX_MEMBER}"),
        ("0-99999", f"past {MAX_MEMBER}"),
        ("0,,1", "'' in '0,,1' is no number"),
        ("0-3-5", "is no number and no range"),
        ("-1", "is no number"),
        ("0,1\n2", "is no number"),
        ("0x1", "is no number"),
        ("٣", "is no number"),
        ("0," * 3000, "at most 4096"),
    ],
)
def test_what_is_no_list_is_refused_with_its_fault(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as refused:
        CpuSet.parse(text)

    assert says in str(refused.value)


def test_a_member_is_tested_and_the_first_is_found() -> None:
    one = CpuSet.of(5, 2, 9)

    assert 5 in one
    assert 3 not in one
    assert one.first() == 2
    assert len(one) == 3
    assert CpuSet.union_of([]) == CpuSet()


def test_in_a_model_it_is_text() -> None:
    adapter = TypeAdapter(CpuSet)

    assert adapter.dump_json(adapter.validate_python("0-2,^1")) == b'"0,2"'
