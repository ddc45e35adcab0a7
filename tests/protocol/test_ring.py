"""The ring holds what a plain slice of the stream would hold, through every wrap and growth."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from viamillipede.protocol.ring import Ring

STREAM = bytes((i * 7 + (i >> 8) * 13) & 255 for i in range(4096))


def put(ring: Ring, offset: int, data: bytes) -> None:
    """Write through as many views as it takes."""
    end = offset + len(data)
    while offset < end:
        view = ring.view(offset, end)
        assert 1 <= len(view) <= end - offset
        view[:] = STREAM[offset : offset + len(view)]
        offset += len(view)


def get(ring: Ring, offset: int, end: int) -> bytes:
    """Read through as many views as it takes."""
    found = b""
    while offset < end:
        view = ring.view(offset, end)
        assert 1 <= len(view) <= end - offset
        found += view
        offset += len(view)
    return found


@given(
    st.integers(1, 20),
    st.integers(1, 70),
    st.integers(0, 100),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 70)), max_size=25),
)
@example(8, 12, 0, [(0, 8), (3, 7)])  # grows from 8 to 12, where the data wraps in both
@example(5, 5, 3, [(0, 5), (5, 5)])
@example(20, 7, 0, [(0, 7), (7, 7)])
def test_a_ring_holds_what_a_slice_holds(start: int, limit: int, base: int, moves: list[tuple[int, int]]) -> None:
    ring = Ring(start, limit)
    head = base
    for dropped, added in moves:
        base = min(base + dropped, head)
        end = min(head + added, base + limit)
        ring.reserve(base, end)
        put(ring, head, STREAM[head:end])
        head = end
        assert get(ring, base, head) == STREAM[base:head]
        assert head - base <= ring.size_bytes <= limit


@given(st.integers(1, 40), st.integers(0, 200), st.integers(0, 40))
def test_what_is_called_contiguous_is_in_one_view(size: int, offset: int, length: int) -> None:
    ring = Ring(size, size)
    length = min(length, size)
    assert len(ring.view(offset, offset + length)) == min(length, ring.contiguous_bytes(offset))


def test_growth_doubles_up_to_the_limit() -> None:
    ring, sizes = Ring(8, 50), []
    for span in (8, 9, 16, 17, 33, 50):
        ring.reserve(3, 3 + span)
        sizes.append(ring.size_bytes)
    assert sizes == [8, 16, 16, 32, 50, 50]
    assert Ring(80, 50).size_bytes == 50
    assert repr(ring) == "<Ring 50 of 50 bytes>"


def test_a_view_from_before_a_growth_keeps_its_bytes() -> None:
    ring = Ring(8, 16)
    put(ring, 0, STREAM[:8])
    old = ring.view(2, 6)
    ring.reserve(0, 16)
    ring.view(2, 6)[:] = b"new!"
    assert bytes(old) == STREAM[2:6]


def test_more_than_the_ring_holds_cannot_be_asked_for() -> None:
    ring = Ring(8, 16)
    with pytest.raises(AssertionError):
        ring.reserve(0, 17)
    with pytest.raises(AssertionError):
        ring.view(0, 9)
    with pytest.raises(AssertionError):
        ring.view(3, 2)
