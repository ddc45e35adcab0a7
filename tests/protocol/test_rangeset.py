"""A RangeSet is a set of integers, whatever is done to it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from viamillipede.protocol.rangeset import RangeSet

TOP = 40
Operation = tuple[str, int, int]
operations = st.lists(
    st.tuples(st.sampled_from(["add", "add", "add", "discard_below"]), st.integers(0, TOP), st.integers(1, 9))
)


def runs(members: set[int]) -> list[tuple[int, int]]:
    """The set as ascending, disjoint, non-adjacent ranges."""
    found: list[tuple[int, int]] = []
    for number in sorted(members):
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


def build(done: list[Operation]) -> tuple[RangeSet, set[int]]:
    """The ranges and their model after these operations; compared after each."""
    ranges, model = RangeSet(), set[int]()
    for name, number, length in done:
        if name == "add":
            ranges.add(number, number + length)
            model |= set(range(number, number + length))
        else:
            ranges.discard_below(number)
            model = {each for each in model if each >= number}
        assert list(ranges) == runs(model)
    return ranges, model


@given(operations)
@example([("add", 5, 1), ("add", 7, 1), ("add", 6, 1)])
@example([("add", 5, 5), ("add", 2, 9), ("discard_below", 4, 1), ("discard_below", 11, 1)])
def test_ranges_hold_what_a_set_holds(done: list[Operation]) -> None:
    ranges, model = build(done)
    assert len(ranges) == len(runs(model))
    for number in range(-1, TOP + 11):
        assert (number in ranges) == (number in model)


@given(operations, st.integers(0, TOP + 10), st.integers(0, TOP + 10))
@example([("add", 5, 5)], 5, 10)
@example([("add", 5, 5)], 10, 5)
def test_missing_is_the_complement(done: list[Operation], start: int, end: int) -> None:
    ranges, model = build(done)
    assert list(ranges.missing(start, end)) == runs(set(range(start, end)) - model)


@given(operations, st.integers(0, 6))
def test_first_gives_the_lowest_ranges(done: list[Operation], count: int) -> None:
    ranges, model = build(done)
    assert ranges.first(count) == tuple(runs(model)[:count])


def test_an_empty_range_cannot_be_added() -> None:
    with pytest.raises(AssertionError):
        RangeSet().add(3, 3)


def test_repr_shows_inclusive_ranges() -> None:
    ranges = RangeSet()
    ranges.add(1, 3)
    ranges.add(7, 8)
    assert repr(ranges) == "<RangeSet 1-2, 7-7>"
