"""How many legs an address gets at first: stories of roads."""

import pytest

from tests.protocol.trip import SETTLED_US, Road, Trip, capped, empty, flat, source
from viamillipede.config import KIB, MIB, MS_US, S_US, THREADS_AUTO_MAX, THREADS_MAX, TICK_US
from viamillipede.protocol.tuner import (
    IDLE_US,
    LONG_US,
    PROBE_US,
    QUEUE_US_MIN,
    ROUND_TRIPS,
    ROUND_US_MAX,
    ROUND_US_MIN,
    SHRINK_US,
    TRY_US,
    State,
    Tuner,
)

FAR_US = 100 * MS_US

# The start ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "legs", "most"),
    [(1, 8, 64), (2, 4, 64), (3, 4, 64), (8, 4, 64), (16, 4, 64), (17, 4, 60), (300, 3, 3), (1024, 1, 1), (5000, 1, 1)],
)
def test_it_starts_with_a_few_legs_of_each_address(addresses: int, legs: int, most: int) -> None:
    tuner = Tuner(addresses, 0)
    assert (tuner.legs, tuner.legs_max, tuner.state) == (legs, most, State.GROWING)
    assert most <= THREADS_AUTO_MAX and (addresses * most <= THREADS_MAX or most == 1)
    assert repr(tuner) == f"<Tuner {legs} legs, growing: at the start>"


def test_the_first_round_begins_with_the_first_leg() -> None:
    late = Trip()
    late.now_us += 1000 * S_US  # nobody answered for long
    assert late.go(capped(MIB, 1 << 40), ROUND_US_MIN) == [8]
    assert late.go(capped(MIB, 1 << 40), TICK_US) == [8, 16]


# Growing --------------------------------------------------------------------------------------------------------


def test_a_clean_near_road_gets_few_legs() -> None:
    trip = Trip()
    assert trip.go(flat, S_US) == [8, 16, 8]
    assert trip.tuner.why == "16 brought 10.0 MiB/s, 8 had brought 10.0 MiB/s"
    assert trip.go(flat, 3 * SHRINK_US + 3 * ROUND_US_MAX + 4 * S_US) == [8, 4, 2, 1]
    assert trip.go(flat, PROBE_US) == [1, 2, 1]


def test_a_long_lossy_road_has_64_legs_in_a_few_rounds() -> None:
    trip = Trip()
    assert trip.go(capped(100 * KIB, 12 * MIB, FAR_US), 3 * S_US) == [8, 16, 32, 64]
    assert trip.tuner.state is State.SETTLED and trip.tuner.why == "the most there may be"


def test_on_a_long_road_one_slower_round_says_little() -> None:
    """The first legs are losing what slow start had won, while the new ones win it."""
    rates = {8: 100 * MIB, 16: 80 * MIB, 32: 80 * MIB, 64: 120 * MIB}
    assert Trip().go(lambda legs: Road(rates[legs], rtt_us=LONG_US), 3 * S_US) == [8, 16, 32, 64]


@pytest.mark.parametrize(("segments", "legs"), [(8, 32), (7, 16)])
def test_legs_with_hardly_a_segment_in_flight_are_too_many(segments: int, legs: int) -> None:
    """32 legs on a long road are no faster than 16, and have so many kibibytes in flight each."""
    rate = 32 * segments * KIB * S_US // FAR_US + KIB
    rates = {8: rate // 2, 16: rate, 32: rate}
    trip = Trip()
    trip.go(lambda legs: Road(rates.get(legs, rate), rtt_us=FAR_US), ROUND_US_MIN * 3 + TICK_US)
    assert trip.tuner.legs == (64 if legs == 32 else legs)


def test_a_cap_per_connection_takes_all_the_legs_there_may_be() -> None:
    trip = Trip()
    assert trip.go(capped(30_000, 4_000_000), SETTLED_US // 2) == [8, 16, 32, 64]
    assert trip.go(capped(30_000, 4_000_000), 40 * S_US) == [64, 32, 64]  # half of them bring half


def test_what_is_in_vain_is_undone_and_not_tried_again_for_a_minute() -> None:
    """20 legs fill the line."""
    trip = Trip()
    roads = capped(MIB, 20 * MIB)
    assert trip.go(roads, 3 * S_US) == [8, 16, 32, 64, 32]
    assert trip.tuner.why == "64 brought 20.0 MiB/s, 32 had brought 20.0 MiB/s"
    undone_us = trip.changes[-1][0]
    assert 64 not in trip.go(roads, PROBE_US - 3 * S_US)[1:]
    trip.go(roads, 10 * S_US)
    assert [legs for when_us, legs in trip.changes if when_us > undone_us and legs == 64] == [64]
    assert min(when_us for when_us, legs in trip.changes if when_us > undone_us and legs == 64) >= undone_us + PROBE_US


def test_where_more_legs_are_much_slower_there_are_few() -> None:
    """A core is the limit."""
    trip = Trip()
    assert trip.go(lambda legs: Road(3000 * MIB * 10 // (10 + legs)), SHRINK_US) == [8, 16, 8]
    assert set(trip.go(lambda legs: Road(3000 * MIB * 10 // (10 + legs)), 40 * S_US)) == {8, 4, 2, 1}


def test_a_little_more_is_not_faster() -> None:
    for percent, numbers in [(104, [8, 16, 32, 16]), (103, [8, 16, 8])]:
        rates = {8: 100 * MIB, 16: percent * MIB + KIB, 32: percent * MIB + KIB}
        assert Trip().go(lambda legs, rates=rates: Road(rates[legs]), 3 * S_US) == numbers  # type: ignore[misc]


# Queues ---------------------------------------------------------------------------------------------------------


def test_a_queue_says_that_the_road_is_full() -> None:
    trip = Trip()
    full = Road(10 * MIB, rtt_us=50 * MS_US, queue_us=20 * MS_US)
    assert trip.go(lambda legs: full, TRY_US) == [8]
    assert trip.tuner.state is State.SETTLED and trip.tuner.why == "10.0 MiB/s fill the road"
    assert trip.go(lambda legs: full, PROBE_US)[:3] == [8, 16, 8], "tried once"


def test_connections_that_are_throttled_one_by_one_have_queues_and_yet_the_road_is_not_full() -> None:
    trip = Trip()
    numbers = trip.go(lambda legs: Road(legs * 30_000, rtt_us=40 * MS_US, queue_us=20 * MS_US), SETTLED_US)
    assert numbers[:4] == [8, 16, 32, 64] and trip.tuner.state is not State.GROWING


@pytest.mark.parametrize(
    ("rtt_us", "queue_us", "full"),
    [
        (2 * QUEUE_US_MIN, QUEUE_US_MIN, False),
        (2 * QUEUE_US_MIN, QUEUE_US_MIN + 1, True),
        (FAR_US, FAR_US // 5, False),
        (FAR_US, FAR_US // 5 + 1, True),
        (0, 0, False),
    ],
)
def test_a_queue_is_one_that_is_long_and_much_of_the_round_trip(rtt_us: int, queue_us: int, full: bool) -> None:
    trip = Trip()
    trip.go(lambda legs: Road(legs * MIB, rtt_us=rtt_us, queue_us=queue_us), ROUND_US_MIN + TICK_US)
    assert trip.tuner.legs == (8 if full else 16)


def test_more_legs_that_only_queue_are_kept_until_fewer_have_brought_as_much() -> None:
    trip = Trip()
    roads = lambda legs: Road(10 * MIB, rtt_us=FAR_US, queue_us=FAR_US // 2 if legs > 8 else 0)  # noqa: E731
    assert trip.go(roads, SHRINK_US) == [8, 16]
    assert trip.go(roads, 40 * S_US) == [16, 8, 4, 2, 1]


def test_more_legs_that_are_faster_and_fill_the_road_stay() -> None:
    trip = Trip()
    roads = lambda legs: Road(min(legs, 16) * MIB, rtt_us=FAR_US, queue_us=FAR_US // 2 if legs >= 16 else 0)  # noqa: E731
    assert trip.go(roads, 4 * S_US) == [8, 16]
    assert trip.tuner.why == "16.0 MiB/s fill the road"
    assert trip.go(roads, 20 * S_US) == [16, 8, 16]


def test_a_queue_that_was_of_use_and_is_gone_bars_nothing() -> None:
    trip = Trip()
    trip.go(lambda legs: Road(min(legs, 10) * MIB, True, FAR_US, FAR_US // 2 * (legs > 8)), S_US)
    assert (trip.tuner.state, trip.tuner.legs) == (State.SETTLED, 16)
    assert trip.go(capped(MIB, 1 << 40, FAR_US), 2 * S_US) == [16, 32, 64]


def test_a_queue_now_and_then_is_none() -> None:
    trip, ticks = Trip(), iter(range(1000))
    assert trip.go(lambda legs: Road(legs * MIB, True, FAR_US, FAR_US // 2 * (next(ticks) % 3 == 0)), 2 * S_US)[:2] == [
        8,
        16,
    ]


# The source -----------------------------------------------------------------------------------------------------


def test_a_slow_source_is_no_reason_for_more() -> None:
    trip = Trip()
    assert trip.go(source, 100 * S_US) == [8]
    assert trip.tuner.why == "they are not all busy"


def test_a_source_that_is_as_fast_now_gets_more_legs_at_once() -> None:
    trip = Trip()
    trip.go(source, 20 * S_US)
    assert trip.go(capped(MIB, 1 << 40), ROUND_US_MIN * 2)[:2] == [8, 16]


@pytest.mark.parametrize(("of_ten", "legs"), [(4, 8), (5, 16)])
def test_legs_are_busy_when_they_are_most_of_the_time(of_ten: int, legs: int) -> None:
    """Rounds of ten ticks."""
    trip, ticks = Trip(), iter(range(1000))
    roads = lambda legs: Road(legs * MIB, busy=next(ticks) % 10 < of_ten, rtt_us=S_US // ROUND_TRIPS)  # noqa: E731
    trip.go(lambda legs: Road(MIB, busy=False, rtt_us=S_US // ROUND_TRIPS), S_US + TICK_US)
    trip.go(roads, S_US)
    assert trip.tuner.legs == legs


def test_nothing_to_carry_takes_one_leg() -> None:
    trip = Trip().settled(flat)
    assert trip.go(empty, IDLE_US - TICK_US) == [8]
    assert trip.go(empty, S_US) == [8, 1]
    assert (trip.tuner.state, trip.tuner.why) == (State.SETTLED, "nothing to carry")
    assert trip.go(empty, 10 * PROBE_US) == [1]


def test_a_trickle_is_something_to_carry() -> None:
    trip = Trip().settled(flat)
    ticks = iter(range(10_000))
    assert trip.go(lambda legs: Road(KIB * (next(ticks) % 40 == 0), busy=False), 10 * IDLE_US) == [8]


def test_after_a_pause_there_are_as_many_as_before() -> None:
    trip = Trip()
    trip.go(capped(MIB, 32 * MIB), 3 * S_US)
    assert trip.tuner.legs == 32
    assert trip.go(empty, 2 * IDLE_US) == [32, 1]
    assert trip.go(capped(MIB, 32 * MIB), SHRINK_US) == [1, 32]
    assert trip.tuner.why == "as many as before the pause"
    assert trip.go(empty, 2 * IDLE_US) == [32, 1]


def test_no_leg_that_all_wait_for_is_idle() -> None:
    """What is busy and brings nothing does carry something."""
    trip = Trip().settled(flat)
    trip.go(lambda legs: Road(0), 2 * IDLE_US)
    assert 1 not in trip.go(empty, IDLE_US - S_US)


# What comes up --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rtt_us", [100, FAR_US])
def test_no_more_are_wanted_than_come_up(rtt_us: int) -> None:
    """A firewall lets only ten through."""
    trip = Trip()
    roads = lambda legs: Road(min(legs, 10) * MIB, rtt_us=rtt_us, up=10)  # noqa: E731
    assert trip.go(roads, SHRINK_US) == [8, 16, 10]
    assert trip.tuner.why == "of 16 only 10 came up"
    assert 20 not in trip.go(roads, PROBE_US - SHRINK_US) and trip.tuner.legs == 10


def test_a_few_that_are_missing_do_not_matter() -> None:
    assert Trip().go(lambda legs: Road(legs * MIB, up=legs * 3 // 4), 3 * S_US) == [8, 16, 32, 64]


def test_legs_that_are_lost_later_are_still_wanted() -> None:
    trip = Trip()
    trip.go(capped(MIB, 32 * MIB), 3 * S_US)
    assert trip.go(lambda legs: Road(32 * MIB, up=10), SHRINK_US // 2) == [32]


def test_the_first_ones_may_take_their_time() -> None:
    """The first leg is up, and the others are only being set up when the first round ends."""
    trip = Trip()
    trip.go(lambda legs: Road(MIB, rtt_us=300 * MS_US, up=1), ROUND_US_MIN + TICK_US)
    assert trip.go(capped(MIB, 1 << 40, 300 * MS_US), SHRINK_US)[-1] == 64
