"""A leg as a pipe: what is in it, how fast it drains, when it hoards, and what is expected of it."""

import random

import pytest

from viamillipede.config import KIB, MIB, MS_US, S_US
from viamillipede.protocol.send_window import Frame
from viamillipede.protocol.tx_leg import FRAME_BYTES_LEAST, HOARD_FRAMES, UNKNOWN_US, TxLeg
from viamillipede.protocol.wire import HEADER_BYTES, Kind

SIZE = 100 * 1000 - HEADER_BYTES  # such a frame takes 100 ms at 1 MB/s
BEGUN_US = 7 * S_US


def frame(seq: int, length: int = SIZE) -> Frame:
    """Frame `seq` of a stream of such frames."""
    return Frame(Kind.DATA, seq, seq * length, length, 0)


def loaded(count: int, length: int = SIZE, now_us: int = BEGUN_US) -> TxLeg:
    """A leg that was given frames 0, 1, ... at the same time."""
    leg = TxLeg(3, 1, BEGUN_US)
    for seq in range(count):
        leg.give(frame(seq, length), now_us)
    return leg


def known(rate: int, latency_us: int) -> TxLeg:
    """An empty leg of which rate and latency were measured."""
    leg = TxLeg(3, 1, BEGUN_US)
    leg.rate, leg.latency_us = rate, latency_us
    return leg


# What it carries ----------------------------------------------------------------------------------------


def test_a_fresh_leg_is_busy_and_empty() -> None:
    leg = TxLeg(3, 1, BEGUN_US)
    assert (leg.leg, leg.rank, leg.since_us, leg.heard_us, leg.progress_us) == (3, 1, BEGUN_US, BEGUN_US, BEGUN_US)
    assert leg.busy and not (leg.useful or leg.doubted or leg.retiring)
    assert leg.backlog_bytes() == 0 and not leg.hoards()
    leg.on_arrived(0, True, BEGUN_US)  # by another leg, which it does not carry
    assert (leg.rate, leg.latency_us) == (0, 0)


def test_what_arrives_drains_all_that_was_given_before_it() -> None:
    leg = loaded(4)
    assert leg.backlog_bytes() == 400_000
    leg.on_arrived(2, True, BEGUN_US + 5)
    assert leg.backlog_bytes() == 100_000
    for seq in (0, 1, 2):  # overtaken
        leg.on_arrived(seq, True, BEGUN_US + 6)
        assert leg.backlog_bytes() == 100_000
    leg.on_arrived(3, True, BEGUN_US + 7)
    assert leg.backlog_bytes() == 0


def test_what_is_given_behind_others_does_not_change_when_they_are_expected() -> None:
    leg = known(1_000_000, 1)
    leg.give(frame(0), BEGUN_US)
    leg.give(frame(1), BEGUN_US + 90 * MS_US)
    assert leg.remaining_us(0, 0, BEGUN_US + 90 * MS_US) == 10 * MS_US


def test_a_frame_that_is_given_again_counts_behind_the_others() -> None:
    leg = loaded(3)
    leg.give(frame(0), BEGUN_US + 1)
    assert leg.backlog_bytes() == 400_000
    leg.on_arrived(2, True, BEGUN_US + 5)
    assert leg.backlog_bytes() == 100_000
    leg.on_arrived(0, True, BEGUN_US + 6)
    assert leg.backlog_bytes() == 0


# How fast it is -----------------------------------------------------------------------------------------


def test_the_first_frame_tells_rate_and_latency() -> None:
    leg = loaded(1)
    leg.on_arrived(0, True, BEGUN_US + 250 * MS_US)
    assert (leg.rate, leg.latency_us) == (400_000, 250 * MS_US)


def test_a_frame_that_arrives_at_once_is_no_division_by_zero() -> None:
    leg = loaded(1)
    leg.on_arrived(0, True, BEGUN_US)
    assert (leg.rate, leg.latency_us) == (100_000 * S_US, 1)


def test_what_cannot_be_measured_drains_all_the_same() -> None:
    leg = loaded(2)
    leg.on_arrived(0, False, BEGUN_US + S_US)
    assert (leg.rate, leg.latency_us, leg.backlog_bytes()) == (0, 0, 100_000)
    leg.on_arrived(1, True, BEGUN_US + 2 * S_US)
    assert leg.rate == 200_000 // 2  # over the whole time that it was on its way


def test_the_rate_is_what_drained_over_the_time_that_took() -> None:
    """A full pipe: one frame each 100 ms, each on its way for 300 ms; the pipe is three frames long."""
    leg = loaded(3)
    for seq in range(50):
        now_us = BEGUN_US + 300 * MS_US + seq * 100 * MS_US
        leg.on_arrived(seq, True, now_us)
        leg.give(frame(seq + 3), now_us)
    assert abs(leg.rate - 1_000_000) < 10_000
    assert leg.latency_us == 300 * MS_US


def test_a_pause_of_the_source_is_no_slowness_of_the_leg() -> None:
    leg = known(1_000_000, 100 * MS_US)
    for seq in range(20):
        now_us = BEGUN_US + seq * 10 * S_US
        leg.give(frame(seq), now_us)
        leg.on_arrived(seq, True, now_us + 100 * MS_US)
    assert abs(leg.rate - 1_000_000) < 1_000


@pytest.mark.parametrize(("length", "slower"), [(FRAME_BYTES_LEAST - HEADER_BYTES, True), (100, False)])
def test_a_source_that_trickles_says_nothing_about_its_leg_unless_that_is_fast(length: int, slower: bool) -> None:
    leg = known(MIB, 1)
    leg.give(frame(0, length), BEGUN_US)
    leg.on_arrived(0, True, BEGUN_US + S_US)
    assert (leg.rate < MIB) is slower
    leg = known(1, 1)
    leg.give(frame(0, length), BEGUN_US)
    leg.on_arrived(0, True, BEGUN_US + S_US)
    assert leg.rate == (3 + length + HEADER_BYTES) // 4


def test_the_rate_follows_a_change_in_a_few_frames() -> None:
    leg = known(10_000_000, 10 * MS_US)
    for seq in range(12):
        now_us = BEGUN_US + seq * 100 * MS_US
        leg.give(frame(seq), now_us)
        leg.on_arrived(seq, True, now_us + 100 * MS_US)
    assert 1_000_000 <= leg.rate < 1_500_000


def test_the_latency_is_the_shortest_and_creeps_up_when_it_is_not_met_again() -> None:
    leg, seen = known(1_000_000, 0), []
    for seq, took_us in enumerate((160, 80, 160, 160, 40)):
        leg.give(frame(seq), BEGUN_US + seq * S_US)
        leg.on_arrived(seq, True, BEGUN_US + seq * S_US + took_us)
        seen.append(leg.latency_us)
    assert seen == [160, 80, 85, 89, 40]


# What the kernel says -----------------------------------------------------------------------------------


def test_bytes_that_the_next_host_took_are_progress() -> None:
    leg = loaded(1)
    leg.bytes_sent = 1000
    for unacked, now_us, progress_us in [(1000, 5, BEGUN_US), (999, 6, 6), (999, 7, 6), (1000, 8, 6), (998, 9, 9)]:
        leg.on_sample(unacked, now_us)
        assert (leg.progress_us, leg.unacked_bytes) == (progress_us, unacked)


def test_what_others_brought_has_left_an_empty_socket() -> None:
    leg, frames = TxLeg(3, 1, BEGUN_US), [frame(seq) for seq in range(4)]
    for each in frames:
        leg.give(each, BEGUN_US)
    for seq in (0, 1, 3):
        frames[seq].arrived = True
    leg.on_sample(1, BEGUN_US + 5)
    assert leg.backlog_bytes() == 400_000  # perhaps it is still here
    leg.on_sample(0, BEGUN_US + 6)
    assert leg.backlog_bytes() == 200_000  # frame 2 may be hoarded on the way, and what is behind it too
    leg.on_sample(0, BEGUN_US + 7)
    assert leg.drained_us == BEGUN_US + 6
    frames[2].arrived = True
    leg.on_sample(0, BEGUN_US + 8)
    assert (leg.backlog_bytes(), leg.drained_us) == (0, BEGUN_US + 8)
    assert leg.rate == 0  # nothing was measured


# Hoarding -----------------------------------------------------------------------------------------------


def test_a_leg_whose_next_host_keeps_what_it_takes_gets_no_more() -> None:
    leg, given = TxLeg(3, 1, BEGUN_US), 0
    while not leg.hoards():
        leg.give(frame(given, FRAME_BYTES_LEAST - HEADER_BYTES), BEGUN_US)
        given += 1
        assert given < 100
    assert given == HOARD_FRAMES + 1
    leg.unacked_bytes = FRAME_BYTES_LEAST  # one of them is still here
    assert not leg.hoards()
    leg.unacked_bytes = 0
    leg.on_arrived(0, True, BEGUN_US + 5)
    assert not leg.hoards()


def test_what_waits_in_our_own_kernel_is_no_hoard() -> None:
    leg = loaded(50)
    leg.unacked_bytes = leg.backlog_bytes()
    assert not leg.hoards()
    leg.unacked_bytes = 0
    assert leg.hoards()


def test_what_others_brought_is_no_hoard() -> None:
    leg, frames = TxLeg(3, 1, BEGUN_US), [frame(seq) for seq in range(9)]
    for each in frames:
        leg.give(each, BEGUN_US)
    assert leg.hoards()
    for each in frames[HOARD_FRAMES:]:
        each.arrived = True
    assert not leg.hoards()
    frames[5].arrived = False
    assert leg.hoards()
    for each in frames:
        each.length = 10  # many frames, but little
    assert not leg.hoards()


def test_a_few_frames_are_no_hoard_however_large() -> None:
    leg = loaded(HOARD_FRAMES, MIB)
    assert not leg.hoards()
    leg.give(frame(HOARD_FRAMES, 1), BEGUN_US)
    assert leg.hoards()


def test_what_waits_in_our_own_kernel_beside_what_others_brought_is_no_hoard() -> None:
    leg, frames = TxLeg(3, 1, BEGUN_US), [frame(seq) for seq in range(9)]
    for each in frames:
        leg.give(each, BEGUN_US)
    for each in frames[:6]:
        each.arrived = True
    leg.unacked_bytes = 3 * 100_000
    assert not leg.hoards()
    leg.unacked_bytes = 100_000
    assert leg.hoards()


@pytest.mark.parametrize("rate", [3_000_000, 20 * MIB - 1, 1 << 30])
def test_a_tenth_of_a_second_of_the_leg_is_no_hoard(rate: int) -> None:
    leg, seq = known(rate, 1), 0
    allowed = HOARD_FRAMES * leg.frame_bytes()
    assert allowed >= rate / 10
    while not leg.hoards():
        leg.give(frame(seq), BEGUN_US)
        seq += 1
    assert allowed < leg.backlog_bytes() <= allowed + 2 * 100_000 + seq * HEADER_BYTES


# How long a frame should be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "length"),
    [
        (0, FRAME_BYTES_LEAST),
        (30_000, FRAME_BYTES_LEAST),
        (20 * 16 * KIB - 1, FRAME_BYTES_LEAST),
        (20 * 16 * KIB, 32 * KIB),
        (20 * MIB - 1, MIB),
        (20 * MIB, 2 * MIB),
    ],
)
def test_a_frame_takes_a_twentieth_of_a_second_or_a_little_more(rate: int, length: int) -> None:
    leg = known(rate, 1)
    assert leg.frame_bytes() == length
    assert length == FRAME_BYTES_LEAST or rate // 20 < length <= rate // 10 + 1


# What is expected of it ---------------------------------------------------------------------------------


def test_a_leg_of_which_nothing_is_known_may_take_a_while() -> None:
    assert TxLeg(3, 1, BEGUN_US).offer_us(SIZE, BEGUN_US) == UNKNOWN_US
    leg = loaded(1)
    now_us = BEGUN_US + 300 * MS_US
    assert leg.remaining_us(0, 0, now_us) == 300 * MS_US  # as long as it has been on its way
    assert leg.remaining_us(0, now_us - 5, now_us) == 5  # before that rx did not read
    assert leg.remaining_us(9, 0, now_us) == 300 * MS_US  # it was dropped, or never given; since the pipe moved


def test_what_the_next_host_keeps_is_not_about_to_arrive() -> None:
    leg = loaded(1)
    leg.bytes_sent = 100_000
    leg.on_sample(0, BEGUN_US + MS_US)
    for elapsed_us in (S_US, 5 * S_US, 60 * S_US):
        assert leg.remaining_us(0, 0, BEGUN_US + elapsed_us) >= elapsed_us // 2


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_the_books_balance(seed: int) -> None:
    chance, leg, way, now_us = random.Random(seed), TxLeg(0, 0, 0), dict[int, Frame](), 0
    for seq in range(400):
        now_us += chance.randrange(1000)
        given = frame(chance.randrange(seq + 1) if chance.random() < 0.1 else seq, chance.randrange(1, 50_000))
        leg.give(given, now_us)
        leg.bytes_sent += HEADER_BYTES + given.length
        way[given.seq] = given
        if chance.random() < 0.5:
            chosen = chance.choice(list(way.values()))
            chosen.arrived = True
            leg.on_arrived(chosen.seq, chance.random() < 0.7, now_us)
        if chance.random() < 0.3:
            leg.on_sample(chance.choice((0, chance.randrange(leg.bytes_sent))), now_us)
        assert 0 <= leg.drained_bytes <= leg.given_bytes == leg.bytes_sent
        assert 0 <= leg.backlog_bytes() and leg.rate >= 0 and leg.latency_us >= 0
        assert leg.offer_us(1, now_us) >= 0 and leg.remaining_us(seq, 0, now_us) >= 0
    for each in way.values():
        each.arrived = True
    leg.on_sample(0, now_us)
    assert leg.backlog_bytes() == 0
