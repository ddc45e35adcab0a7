"""What is expected of a leg: how long a frame will still take, and how long a new one would."""

from tests.protocol.test_tx_leg import BEGUN_US, SIZE, frame, known, loaded
from viamillipede.config import KIB, MS_US, S_US
from viamillipede.protocol.tx_leg import UNKNOWN_US, TxLeg
from viamillipede.protocol.wire import HEADER_BYTES


def test_an_offer_is_the_latency_and_what_is_in_the_way() -> None:
    leg = known(1_000_000, 30 * MS_US)
    assert leg.offer_us(50_000, BEGUN_US) == 80 * MS_US
    leg.give(frame(0), BEGUN_US)
    leg.give(frame(1), BEGUN_US)
    assert leg.offer_us(50_000, BEGUN_US) == 280 * MS_US


def test_a_leg_that_has_brought_nothing_yet_is_as_fast_as_the_next_host_takes_its_bytes() -> None:
    leg = loaded(1)
    leg.bytes_sent = 100_000
    now_us = BEGUN_US + S_US
    assert leg.offer_us(SIZE, now_us) > 3600 * S_US
    leg.on_sample(90_000, now_us)
    assert leg.offer_us(SIZE, now_us) == UNKNOWN_US + (100_000 + SIZE) * S_US // 10_000
    leg.rtt_us = 70 * MS_US
    leg.on_sample(0, now_us)
    assert leg.offer_us(SIZE, now_us) == 70 * MS_US + (100_000 + SIZE) * S_US // 100_000
    leg.latency_us = 50 * MS_US
    assert leg.offer_us(SIZE, now_us) == 50 * MS_US + (100_000 + SIZE) * S_US // 100_000


def test_what_the_next_host_had_taken_before_says_nothing() -> None:
    leg = TxLeg(3, 1, BEGUN_US)
    leg.bytes_sent = 50_000  # heartbeats
    leg.on_sample(0, BEGUN_US + S_US)
    leg.give(frame(0), BEGUN_US + S_US)
    leg.bytes_sent += 100_000
    leg.on_sample(90_000, BEGUN_US + 2 * S_US)
    assert leg.offer_us(SIZE, BEGUN_US + 2 * S_US) == UNKNOWN_US + (100_000 + SIZE) * S_US // 10_000


def test_the_idle_life_of_a_leg_does_not_make_it_slow() -> None:
    leg = TxLeg(3, 1, BEGUN_US)
    now_us = BEGUN_US + 3600 * S_US
    copy = frame(0, 16 * KIB)
    leg.give(copy, now_us)
    leg.bytes_sent += HEADER_BYTES + copy.length
    leg.on_sample(0, now_us + 100 * MS_US)
    copy.arrived = True  # whoever brought it
    leg.on_sample(0, now_us + 300 * MS_US)
    assert leg.rate == (16 * KIB + HEADER_BYTES) * 10 // 3
    for idle_us in (300 * MS_US, 3600 * S_US):  # before and after
        assert leg.offer_us(16 * KIB, now_us + idle_us) <= UNKNOWN_US + S_US


def test_a_frame_remains_as_long_as_what_is_before_it_takes() -> None:
    leg = known(1_000_000, 30 * MS_US)
    for seq in range(3):
        leg.give(frame(seq), BEGUN_US)
    assert [leg.remaining_us(seq, 0, BEGUN_US) for seq in range(3)] == [100 * MS_US, 200 * MS_US, 300 * MS_US]
    now_us = BEGUN_US + 60 * MS_US
    assert [leg.remaining_us(seq, 0, now_us) for seq in range(3)] == [40 * MS_US, 140 * MS_US, 240 * MS_US]
    leg.on_arrived(0, False, now_us)  # sooner than was expected
    assert leg.remaining_us(2, 0, now_us) == 200 * MS_US


def test_no_frame_is_expected_before_the_latency_of_its_leg() -> None:
    leg = known(1_000_000, 500 * MS_US)
    leg.give(frame(0), BEGUN_US)
    assert leg.remaining_us(0, 0, BEGUN_US) == 500 * MS_US
    assert leg.remaining_us(0, BEGUN_US + 50 * MS_US, BEGUN_US + 50 * MS_US) == 500 * MS_US


def test_a_frame_that_is_overdue_is_expected_to_take_as_long_again() -> None:
    leg = known(1_000_000, 30 * MS_US)
    leg.give(frame(0), BEGUN_US)
    assert [leg.remaining_us(0, 0, BEGUN_US + ms * MS_US) for ms in (100, 101, 200, 1100)] == [
        0, MS_US, 100 * MS_US, S_US,
    ]  # fmt: skip


def test_a_frame_is_overdue_when_it_has_taken_twice_as_long_as_it_should() -> None:
    leg = known(1_000_000, 30 * MS_US)
    for seq in range(2):
        leg.give(frame(seq), BEGUN_US)
    assert [leg.overdue(0, 0, BEGUN_US + us) for us in (200 * MS_US, 200 * MS_US + 1)] == [False, True]
    assert [leg.overdue(1, 0, BEGUN_US + us) for us in (400 * MS_US, 400 * MS_US + 1)] == [False, True]
    assert not leg.overdue(7, 0, BEGUN_US + S_US)  # it does not carry that
    assert not loaded(1).overdue(0, 0, BEGUN_US + 3600 * S_US)  # nothing is known of the leg


def test_what_rx_did_not_read_is_overdue_twice_its_time_after_it_reads_again() -> None:
    leg = known(1_000_000, 30 * MS_US)
    leg.give(frame(0), BEGUN_US)
    since_us = BEGUN_US + 3600 * S_US
    assert [leg.overdue(0, since_us, since_us + us) for us in (200 * MS_US, 200 * MS_US + 1)] == [False, True]


def test_while_rx_did_not_read_nothing_was_late() -> None:
    leg = known(1_000_000, 30 * MS_US)
    leg.give(frame(0), BEGUN_US)
    since_us = BEGUN_US + 60 * S_US
    assert leg.remaining_us(0, since_us, since_us) == 100 * MS_US
    assert leg.remaining_us(0, since_us, since_us + S_US) == 900 * MS_US


# Any history --------------------------------------------------------------------------------------------
