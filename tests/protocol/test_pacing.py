"""A limit is never exceeded for long, whatever the frames; what was not used is soon forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viamillipede.config import KIB, LIMIT_BYTES_MAX, LIMIT_BYTES_MIN, MIB, MS_US, S_US
from viamillipede.protocol.pacing import BURST_US, FRAME_BYTES_LEAST, FRAME_FRACTION, Pacer

NOW_US = 100 * S_US


def test_without_a_limit_everything_may_go_at_once() -> None:
    pacer = Pacer(0)
    for _ in range(10):
        pacer.spend(1 << 60, NOW_US)
        assert pacer.ready_us() <= NOW_US
    assert pacer.frame_bytes(7 * MIB) == 7 * MIB


def test_a_frame_may_go_when_those_before_it_are_paid_for() -> None:
    """A megabyte per second: a quarter of it takes a quarter of a second, less the tenth that had been saved up."""
    pacer = Pacer(MIB)
    assert pacer.ready_us() <= NOW_US
    pacer.spend(MIB // 4, NOW_US)
    assert pacer.ready_us() == NOW_US + 250 * MS_US - BURST_US
    pacer.spend(MIB, NOW_US)  # somebody could not wait: it is owed
    assert pacer.ready_us() == NOW_US + 1250 * MS_US - BURST_US
    pacer.spend(MIB, NOW_US + 10 * S_US)  # a pause is not made up for
    assert pacer.ready_us() == NOW_US + 11 * S_US - BURST_US


def test_who_is_late_by_less_than_the_burst_loses_nothing() -> None:
    """Timers are coarse: with 10 ms of delay each time, the rate on average is still what it may be."""
    pacer, now_us = Pacer(MIB), NOW_US
    for _ in range(1000):
        pacer.spend(16 * KIB, now_us)
        now_us = max(now_us, pacer.ready_us()) + 10 * MS_US
    assert 1000 * 16 * KIB * S_US // (now_us - NOW_US) >= MIB * 99 // 100


@given(
    limit_bytes=st.integers(LIMIT_BYTES_MIN, LIMIT_BYTES_MAX),
    steps=st.lists(st.tuples(st.integers(1, 16 * MIB), st.integers(0, 2 * S_US)), min_size=1, max_size=50),
)
def test_a_limit_is_a_bound_for_frames_and_pauses_of_any_length(limit_bytes: int, steps: list[tuple[int, int]]) -> None:
    """From any moment on: no more than the limit, the burst, and the frame that may go when all is paid for."""
    pacer, now_us, sent = Pacer(limit_bytes), NOW_US, list[tuple[int, int]]()
    for count, pause_us in steps:
        now_us = max(now_us + pause_us, pacer.ready_us())
        pacer.spend(count, now_us)
        sent.append((now_us, count))
    for first, (since_us, _) in enumerate(sent):
        total = 0
        for at_us, count in sent[first:]:
            assert total * S_US <= limit_bytes * (at_us - since_us + BURST_US)
            total += count


@given(limit_bytes=st.integers(LIMIT_BYTES_MIN, 1 << 27), count=st.integers(1, MIB))
def test_a_limit_is_used_up(limit_bytes: int, count: int) -> None:
    pacer, now_us = Pacer(limit_bytes), NOW_US
    for _ in range(100):
        now_us = max(now_us, pacer.ready_us())
        pacer.spend(count, now_us)
    took_us = pacer.ready_us() - NOW_US
    assert 100 * count * S_US >= limit_bytes * (took_us - 100)  # rounded by a microsecond each


@pytest.mark.parametrize(
    ("limit_bytes", "wanted", "length"),
    [
        (MIB, MIB, MIB // FRAME_FRACTION),
        (MIB, 10 * KIB, 10 * KIB),
        (1 << 40, 16 * MIB, 16 * MIB),
        (LIMIT_BYTES_MIN, MIB, FRAME_BYTES_LEAST),
        (LIMIT_BYTES_MIN, 100, 100),
    ],
)
def test_a_frame_takes_a_fraction_of_a_second_of_the_limit(limit_bytes: int, wanted: int, length: int) -> None:
    assert Pacer(limit_bytes).frame_bytes(wanted) == length
