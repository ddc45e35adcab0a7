"""Who waits, for how long, and when rx reads ahead at once: on the class itself, without a session."""

from viamillipede.config import ASIDE_US, CALM_FRAMES
from viamillipede.protocol.reassembly import Copy
from viamillipede.protocol.waiting_legs import RxLeg, WaitingLegs
from viamillipede.protocol.wire import Header, Kind


def leg_with(key: int, seq: int) -> RxLeg:
    """A leg in a copy of frame `seq`."""
    leg = RxLeg(key, key, 0)
    leg.copy = Copy(Header(Kind.DATA, 100, seq, 100 * seq, 0))
    return leg


def wait(legs: WaitingLegs, leg: RxLeg, now_us: int) -> bool:
    """Ask for the leg's copy."""
    assert leg.copy is not None
    return legs.must_wait(leg, leg.copy, now_us)


def starved(now_us: int) -> WaitingLegs:
    """Legs that read ahead since `now_us`."""
    legs = WaitingLegs(0)
    wait(legs, leg_with(99, 1), now_us - ASIDE_US)
    legs.expire(now_us)
    assert legs.read_ahead
    return legs


def test_a_leg_waits_until_its_frame_is_due() -> None:
    legs, first, second = WaitingLegs(0), leg_with(1, 5), leg_with(2, 6)
    assert wait(legs, first, 10) and wait(legs, second, 20)
    assert first in legs and second in legs
    legs.check({1: first, 2: second})
    legs.wake(5)
    assert legs.take_runnable() is first and legs.take_runnable() is None
    assert first not in legs and second in legs


def test_asked_again_a_leg_goes_on_waiting_since_the_first_time() -> None:
    legs, leg = WaitingLegs(0), leg_with(1, 5)
    assert wait(legs, leg, 10) and wait(legs, leg, 500)
    assert legs.deadline_us() == 10 + ASIDE_US


def test_one_long_wait_makes_everything_that_follows_go_aside_at_once() -> None:
    legs, leg = WaitingLegs(0), leg_with(1, 5)
    assert wait(legs, leg, 10)
    legs.expire(10 + ASIDE_US - 1)
    assert not legs.read_ahead and leg in legs
    legs.expire(10 + ASIDE_US)
    assert legs.read_ahead and legs.take_runnable() is leg
    for seq in range(6, 50):
        follower = leg_with(1, seq)
        assert not wait(legs, follower, 10 + ASIDE_US)
        assert follower.copy is not None and follower.copy.aside
    assert legs.asides == 45


def test_a_blocked_output_ends_reading_ahead_and_the_clock_starts_when_it_opens() -> None:
    legs = starved(ASIDE_US)
    legs.on_output(None)
    leg = leg_with(1, 7)
    assert wait(legs, leg, ASIDE_US) and legs.deadline_us() is None
    legs.expire(1000 * ASIDE_US)
    assert leg in legs
    legs.on_output(2000 * ASIDE_US)
    assert legs.deadline_us() == 2001 * ASIDE_US


def test_frames_that_would_soon_have_been_due_end_reading_ahead() -> None:
    legs = starved(ASIDE_US)
    now_us = 10 * ASIDE_US
    for seq in range(10, 10 + CALM_FRAMES):
        assert legs.read_ahead and not wait(legs, leg_with(1, seq), now_us)
        legs.on_due(seq - 1, seq, now_us + ASIDE_US - 1)
    assert not legs.read_ahead


def test_a_frame_that_was_worth_it_keeps_reading_ahead() -> None:
    legs = starved(ASIDE_US)
    now_us = 10 * ASIDE_US
    for seq in range(10, 10 + 3 * CALM_FRAMES):
        assert not wait(legs, leg_with(1, seq), now_us)
        legs.on_due(seq - 1, seq, now_us + (ASIDE_US if seq % CALM_FRAMES == 0 else 0))
    assert legs.read_ahead


def test_a_lost_leg_waits_no_more() -> None:
    legs, leg = WaitingLegs(0), leg_with(1, 5)
    assert wait(legs, leg, 10)
    legs.stop(leg)
    legs.stop(leg)
    assert leg not in legs and legs.deadline_us() is None
    legs.check({})
