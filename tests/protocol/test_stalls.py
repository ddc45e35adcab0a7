"""When the part of the window that is in use is called too small."""

from viamillipede.config import S_US, WINDOW_STALL_PERIOD_US, WINDOW_STALL_US
from viamillipede.protocol.stalls import Stalls


def test_a_window_that_is_full_for_long_is_too_small() -> None:
    stalls = Stalls(0)
    stalls.on_full(S_US)
    assert not stalls.too_small(False, S_US + WINDOW_STALL_US - 1)
    assert stalls.too_small(False, S_US + WINDOW_STALL_US)
    assert not stalls.too_small(False, S_US + WINDOW_STALL_US), "what has been counted is forgotten"


def test_short_stalls_add_up_within_a_period_and_not_beyond_it() -> None:
    stalls, half_us = Stalls(0), WINDOW_STALL_US // 2 + 1
    stalls.on_full(0)
    assert not stalls.too_small(False, half_us)
    stalls.on_room()
    stalls.on_full(WINDOW_STALL_PERIOD_US - half_us)
    assert stalls.too_small(False, WINDOW_STALL_PERIOD_US)
    late = Stalls(0)
    late.on_full(0)
    assert not late.too_small(False, half_us)
    late.on_room()
    late.on_full(2 * WINDOW_STALL_PERIOD_US)
    assert not late.too_small(False, 2 * WINDOW_STALL_PERIOD_US + half_us)


def test_the_time_with_room_does_not_count_and_the_first_moment_of_being_full_does() -> None:
    stalls = Stalls(0)
    assert not stalls.too_small(False, S_US), "it was never full"
    stalls.on_full(0)
    stalls.on_full(S_US)
    stalls.on_room()
    assert not stalls.too_small(False, 2 * S_US)
    stalls.on_full(2 * S_US)
    stalls.on_full(2 * S_US + WINDOW_STALL_US)
    assert stalls.too_small(False, 2 * S_US + WINDOW_STALL_US)


def test_a_window_that_waits_for_rx_s_output_is_not_too_small() -> None:
    stalls = Stalls(0)
    stalls.on_full(0)
    assert not stalls.too_small(True, S_US)
