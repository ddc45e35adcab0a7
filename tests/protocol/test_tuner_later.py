"""How many legs an address gets later, and that it settles on every road."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.trip import SETTLED_US, SHORT_US, Road, Trip, capped, flat
from viamillipede.config import KIB, MIB, MS_US, S_US, TICK_US
from viamillipede.protocol.tuner import LONG_US, PROBE_US, ROUND_TRIPS, ROUND_US_MAX, ROUND_US_MIN, SHRINK_US, State

FAR_US = 100 * MS_US
FEWER_US = SHRINK_US + ROUND_US_MIN  # after it settled, fewer are being tried by then
TRIED_US = FEWER_US + ROUND_US_MAX  # ... and have been tried by then

# Later ----------------------------------------------------------------------------------------------------------


def test_a_road_that_became_slower_gets_more_legs() -> None:
    """Losses came: in vain a moment ago, and now of use."""
    trip = Trip().settled(flat)
    assert trip.go(capped(MIB // 8, 10 * MIB), 4 * S_US) == [8, 16, 32, 64]


def test_one_slow_round_is_no_reason() -> None:
    trip, ticks = Trip().settled(flat), iter(range(100_000))
    slow_now_and_then = lambda legs: Road(10 * MIB if next(ticks) % 12 >= 4 else 5 * MIB)  # noqa: E731
    assert 16 not in trip.go(slow_now_and_then, 30 * S_US)


def test_a_little_slower_is_no_reason() -> None:
    trip = Trip().settled(flat)
    assert trip.go(lambda legs: Road(9 * MIB), SHRINK_US // 2) == [8]


def test_what_was_the_best_once_is_what_slower_means() -> None:
    trip = Trip().settled(flat)
    assert trip.go(lambda legs: Road(20 * MIB), S_US) == [8]
    assert trip.go(lambda legs: Road(12 * MIB), S_US)[:2] == [8, 16]


def test_what_was_the_best_long_ago_is_forgotten() -> None:
    trip, rate = Trip(), [10 * MIB]
    roads = lambda legs: Road(min(legs, 8) * rate[0] // 8)  # noqa: E731
    assert trip.go(roads, S_US + TRIED_US) == [8, 16, 8, 4, 8]
    for rate[0], duration_us in ((112 * MIB // 10, S_US), (10 * MIB, 20 * S_US), (9 * MIB, 3 * S_US)):
        assert trip.go(roads, duration_us) == [8]


def test_a_source_that_pauses_makes_no_road_slow() -> None:
    trip, rounds = Trip().settled(flat), 8  # ticks: one round of what is slow, one of what pauses
    ticks = iter(range(100_000))
    roads = lambda legs: Road(5 * MIB, busy=next(ticks) % rounds < rounds // 2)  # noqa: E731
    assert 16 not in trip.go(roads, 3 * S_US)


def test_a_shrinking_that_costs_is_undone_and_not_tried_again_for_a_minute() -> None:
    trip = Trip()
    roads = capped(MIB, 8 * MIB)
    assert trip.go(roads, S_US) == [8, 16, 8]
    settled_us = trip.changes[-1][0]
    assert trip.go(roads, TRIED_US) == [8, 4, 8]
    assert trip.changes[-2][0] >= settled_us + SHRINK_US
    assert trip.changes[-1][0] == trip.changes[-2][0] + ROUND_US_MAX, "legs that meet losses become slow one by one"
    assert trip.tuner.why == "4 brought only 4.0 MiB/s, 8 had brought 8.0 MiB/s"
    assert trip.tuner.state is State.SETTLED
    undone_us = trip.changes[-1][0]
    trip.go(roads, 3 * PROBE_US // 2)
    again = [when_us for when_us, legs in trip.changes if legs == 4 and when_us > undone_us]
    assert len(again) == 1 and again[0] >= undone_us + PROBE_US


@pytest.mark.parametrize(("percent", "legs"), [(97, 4), (96, 8)])
def test_fewer_legs_must_be_as_fast(percent: int, legs: int) -> None:
    trip = Trip()
    trip.go(lambda legs: Road(100 * MIB if legs >= 8 else percent * MIB + KIB), S_US + TRIED_US)
    assert trip.tuner.legs == legs
    assert trip.tuner.why.startswith("as fast as 8" if legs == 4 else "4 brought only")


def test_fewer_legs_that_are_as_fast_are_kept_on_a_long_road_too() -> None:
    """Where one round says so little that growing always goes up to the end, it must not do so again at once."""
    trip = Trip()
    roads = capped(10 * MIB, 10 * MIB, FAR_US)
    assert trip.go(roads, SETTLED_US) == [8, 16, 32, 64, 32]
    assert trip.go(roads, 36 * S_US) == [32, 16, 8, 4, 2, 1]


@pytest.mark.parametrize("rate", [MIB, 10 * MIB])
def test_a_source_that_ends_while_fewer_are_tried_says_nothing(rate: int) -> None:
    trip = Trip()
    trip.go(flat, S_US + FEWER_US)
    assert (trip.tuner.state, trip.tuner.legs) == (State.SHRINKING, 4)
    assert trip.go(lambda legs: Road(rate, busy=False), ROUND_US_MAX + S_US) == [4, 8]
    assert trip.tuner.why == "they are not all busy"
    assert trip.go(flat, FEWER_US + S_US) == [8, 4], "nothing was in vain"


# Rounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rtt_us", "round_us"), [(0, ROUND_US_MIN), (300 * MS_US, ROUND_TRIPS * 300 * MS_US), (30 * S_US, ROUND_US_MAX)]
)
def test_a_round_lasts_some_round_trips(rtt_us: int, round_us: int) -> None:
    trip = Trip()
    trip.go(lambda legs: Road(legs * MIB, rtt_us=rtt_us), 10 * S_US)
    whens = [when_us for when_us, _ in trip.changes[:3]]  # 16, 32, 64
    assert whens[0] == trip.began_us + round_us
    assert [after - before for before, after in itertools.pairwise(whens)] == [round_us] * 2


def test_what_the_second_half_of_a_round_brings_counts() -> None:
    """New legs must be set up first. Until then they bring nothing, and the old ones nothing either."""
    trip = Trip()

    def slow_to_start(legs: int) -> Road:
        fresh = bool(trip.changes) and trip.now_us - trip.changes[-1][0] <= ROUND_US_MIN // 2
        return Road(0 if fresh else legs * MIB, rtt_us=SHORT_US)

    assert trip.go(slow_to_start, 3 * S_US) == [8, 16, 32, 64]
    assert "32 brought 32.0 MiB/s" in repr(trip.tuner) or trip.tuner.why == "the most there may be"


@pytest.mark.parametrize("tick_us", [TICK_US // 7, 3 * TICK_US, 10 * TICK_US, 50 * TICK_US])
def test_ticks_may_come_when_they_like(tick_us: int) -> None:
    """A busy machine, or one that slept. A rate is measured from one tick to another one."""
    trip = Trip()
    trip.go(capped(MIB, 20 * MIB, FAR_US), 40 * max(tick_us, TICK_US), tick_us)
    assert max(legs for _, legs in trip.changes) == 64
    trip = Trip()
    assert trip.go(flat, 8 * max(tick_us, TICK_US), tick_us)[1] == 16
    assert trip.tuner.why.startswith(("8 brought 10.0", "16 brought 10.0"))


# All of them ----------------------------------------------------------------------------------------------------


@given(
    each=st.integers(10 * KIB, 100 * MIB),
    full=st.integers(100 * KIB, 4096 * MIB),
    rtt_us=st.sampled_from([100, SHORT_US, LONG_US, 40 * MS_US, 300 * MS_US]),
    queues=st.booleans(),
    addresses=st.sampled_from([1, 2, 40]),
)
def test_it_settles_within_ten_seconds_on_every_road(
    each: int, full: int, rtt_us: int, queues: bool, addresses: int
) -> None:
    """Afterwards fewer are tried now and then, and nothing else; that costs little, and is as fast as what is best."""

    def roads(legs: int) -> Road:
        queue_us = rtt_us if queues and legs * each > full else 0
        return Road(min(legs * each, full), rtt_us=rtt_us + queue_us, queue_us=queue_us)

    trip = Trip(addresses)
    trip.go(roads, SETTLED_US)
    settled = trip.tuner.legs_max
    for _ in range((PROBE_US - SETTLED_US) // TICK_US):
        trip.go(roads, TICK_US)
        assert trip.tuner.state is not State.GROWING
        if trip.tuner.state is State.SETTLED:
            assert trip.tuner.legs <= settled
            settled = trip.tuner.legs
    best = max(roads(legs).rate for legs in range(1, trip.tuner.legs_max + 1))
    assert roads(settled).rate >= 0.95 * best
    carried = trip.delivered
    trip.go(roads, PROBE_US)
    assert trip.delivered - carried >= 0.95 * best * PROBE_US // S_US
