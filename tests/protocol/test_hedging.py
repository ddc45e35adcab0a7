"""Which frame gets a second copy and on which leg: only where that comes clearly sooner."""

import pytest

from tests.protocol.test_send_window import ack, put, window
from viamillipede.config import COPIES_MAX, LATE_US_MIN, MIB, MS_US, S_US
from viamillipede.protocol import hedging
from viamillipede.protocol.hedging import CANDIDATES_MAX, MARGIN_US, VERY_LATE_US
from viamillipede.protocol.send_window import Frame
from viamillipede.protocol.tx_leg import UNKNOWN_US, TxLeg

SIZE = 1000
RATE = 1_000_000  # a frame takes a millisecond
OVERDUE_US = 10 * S_US  # later than anything is expected


class Legs:
    """A window and legs with a rate of RATE and a latency of 10 ms each, all given at time 0."""

    def __init__(self, count: int, window_bytes: int = 4 * SIZE) -> None:
        self.window = window(window_bytes, SIZE)
        self.legs = {number: self._leg(number) for number in range(count)}

    @staticmethod
    def _leg(number: int) -> TxLeg:
        leg = TxLeg(number, 0, 0)
        leg.rate, leg.latency_us = RATE, 10 * MS_US
        return leg

    def send(self, leg: int, now_us: int = 0) -> Frame:
        """A new frame on the leg."""
        put(self.window, bytes(SIZE))
        frame = self.window.cut(SIZE, now_us)
        assert frame is not None and frame.length == SIZE
        self.copy(frame, leg, now_us)
        return frame

    def copy(self, frame: Frame, leg: int, now_us: int = 0) -> None:
        """A copy of the frame on the leg."""
        self.window.assign(frame, leg, now_us)
        self.legs[leg].give(frame, now_us)

    def pick(self, idle: list[int], now_us: int, since_us: int = 0) -> tuple[int, int] | None:
        """(leg, number of the frame) when nothing else can be sent."""
        picked = hedging.pick(self.window, self.legs, idle, since_us, now_us)
        return None if picked is None else (picked[0], picked[1].seq)

    def very_late(self, idle: list[int], now_us: int, since_us: int = 0) -> tuple[int, int] | None:
        """(leg, number of the frame) before anything new is sent."""
        picked = hedging.pick_very_late(self.window, self.legs, idle, since_us, now_us)
        return None if picked is None else (picked[0], picked[1].seq)


def full(count: int = 3) -> Legs:
    """Leg 0 carries all of a full window."""
    made = Legs(count)
    while made.window.room_bytes():
        made.send(0)
    return made


# When nothing else can be sent --------------------------------------------------------------------------


def test_nothing_is_hedged_without_another_idle_leg() -> None:
    made = full()
    assert made.pick([], OVERDUE_US) is None
    assert made.pick([0], OVERDUE_US) is None
    assert made.pick([0, 1], OVERDUE_US) == (1, 0)


def test_nothing_is_late_before_its_time() -> None:
    made = full()
    assert made.pick([1], LATE_US_MIN - 1) is None
    assert made.pick([1], LATE_US_MIN) == (1, 0)
    assert made.pick([1], LATE_US_MIN, since_us=1) is None  # rx did not read before
    assert made.pick([1], LATE_US_MIN + 1, since_us=1) == (1, 0)


def behind_another() -> Legs:
    """As above; of the oldest frame there are enough copies, so the next one is what counts."""
    made = full(COPIES_MAX + 1)
    oldest = made.window.oldest()
    assert oldest is not None
    for leg in range(1, COPIES_MAX):
        made.copy(oldest, leg, 0)
    return made


def test_a_copy_must_come_clearly_sooner() -> None:
    made = behind_another()
    made.legs[COPIES_MAX].latency_us = 200 * MS_US
    offer_us = made.legs[COPIES_MAX].offer_us(SIZE, 0)
    assert offer_us == 201 * MS_US
    worth_us = 10 * MS_US + offer_us + offer_us // 2 + MARGIN_US  # the frame was expected after 10 ms
    assert [made.pick([COPIES_MAX], us) for us in (worth_us, worth_us + 1)] == [None, (COPIES_MAX, 1)]


def test_the_oldest_frame_is_hedged_when_it_has_taken_twice_as_long_as_it_should_on_whatever_leg() -> None:
    made = full(3)
    made.legs[0].latency_us = 200 * MS_US
    made.legs[1].latency_us = made.legs[2].latency_us = 3600 * S_US
    assert [made.pick([1], us * MS_US) for us in (400, 401)] == [None, (1, 0)]
    oldest = made.window.oldest()
    assert oldest is not None
    made.copy(oldest, 1, 0)
    assert made.pick([2], 500 * MS_US) is None  # the other copy is in time


def test_the_idle_leg_that_brings_it_first_is_taken() -> None:
    made = full(4)
    made.legs[1].latency_us = 50 * MS_US
    made.legs[3].rate = RATE // 100
    assert made.pick([1, 2, 3], OVERDUE_US) == (2, 0)
    assert made.pick([1, 3], OVERDUE_US) == (1, 0)
    assert made.pick([3], OVERDUE_US) == (3, 0)
    made.legs[2].rate = 0  # nothing is known of it
    assert made.pick([1, 2, 3], OVERDUE_US) == (1, 0)


def test_a_leg_of_which_nothing_is_known_gets_a_copy_of_what_is_later_than_it_may_be() -> None:
    made = behind_another()
    made.legs[COPIES_MAX] = TxLeg(COPIES_MAX, 0, 0)
    worth_us = 10 * MS_US + UNKNOWN_US + UNKNOWN_US // 2 + MARGIN_US
    assert [made.pick([COPIES_MAX], us) for us in (worth_us, worth_us + 1)] == [None, (COPIES_MAX, 1)]


def test_a_frame_that_comes_soon_is_passed_over_for_one_that_does_not() -> None:
    made = Legs(3)
    for leg in (0, 1, 0, 1):
        made.send(leg)
    now_us = LATE_US_MIN
    made.legs[0].latency_us = now_us  # what it carries is just now expected
    assert made.pick([2], now_us) == (2, 1)
    made.legs[1].latency_us = now_us
    assert made.pick([2], now_us) is None


def test_a_frame_has_a_limited_number_of_copies() -> None:
    made, now_us = full(COPIES_MAX + 2), OVERDUE_US
    picked = []
    for _ in range(2 * (COPIES_MAX - 1)):
        found = hedging.pick(made.window, made.legs, range(1, COPIES_MAX + 2), 0, now_us)
        assert found is not None
        made.copy(found[1], found[0], now_us)
        picked.append((found[1].seq, found[0]))
        now_us += OVERDUE_US
    assert [seq for seq, _ in picked] == [0] * (COPIES_MAX - 1) + [1] * (COPIES_MAX - 1)
    assert all(len(frame.legs) <= COPIES_MAX for frame in made.window.unarrived())


def test_the_best_of_its_copies_counts() -> None:
    made = full()
    frame = next(made.window.unarrived())
    made.legs[1].latency_us = OVERDUE_US  # the copy is expected just now
    made.copy(frame, 1, 0)
    assert made.pick([2], OVERDUE_US) == (2, 1)


def test_a_frame_that_waits_to_be_sent_again_is_not_hedged() -> None:
    made = full()
    made.window.on_leg_lost(0)
    assert made.pick([1, 2], OVERDUE_US) is None


def test_a_copy_that_was_just_sent_is_given_its_time() -> None:
    made = full()
    frames = list(made.window.unarrived())
    for frame in frames:
        made.copy(frame, 1, OVERDUE_US)
    assert made.pick([2], OVERDUE_US + LATE_US_MIN - 1) is None
    assert made.pick([2], OVERDUE_US + LATE_US_MIN) == (2, 0)


@pytest.mark.parametrize("ended", [False, True])
def test_only_the_oldest_frames_of_a_window_are_looked_at_and_all_at_the_end(ended: bool) -> None:
    made = Legs(2, MIB)
    for _ in range(CANDIDATES_MAX + 1):
        made.send(0)
    for frame in list(made.window.unarrived())[:CANDIDATES_MAX]:
        frame.sent_us = OVERDUE_US  # young
    if ended:
        made.window.on_input_end()
        end = made.window.cut(1, 0)
        assert end is not None
        made.copy(end, 0, 0)
    assert made.pick([1], OVERDUE_US) == ((1, CANDIDATES_MAX) if ended else None)
    made.window.on_ack(ack(1))
    assert made.pick([1], OVERDUE_US) == (1, CANDIDATES_MAX)


def test_what_arrived_is_not_hedged() -> None:
    made = full()
    made.window.on_ack(ack(1, 0, ((2, 3),)))
    assert made.pick([1], OVERDUE_US) == (1, 1)
    made.window.on_ack(ack(4))
    assert made.pick([1], OVERDUE_US) is None


# Before anything new is sent ----------------------------------------------------------------------------


def test_what_is_very_late_is_hedged_although_there_is_more_to_send() -> None:
    made = Legs(2, MIB)
    made.send(0)
    assert made.very_late([1], VERY_LATE_US - 1) is None
    assert made.very_late([1], VERY_LATE_US) == (1, 0)
    assert made.very_late([], VERY_LATE_US) is None
    assert made.very_late([1], VERY_LATE_US, since_us=1) is None
    assert made.very_late([1], VERY_LATE_US + 1, since_us=1) == (1, 0)


def test_a_very_late_frame_whose_copy_is_young_is_given_time() -> None:
    made = Legs(3, MIB)
    frame = made.send(0)
    made.legs[1].latency_us = 3600 * S_US
    made.copy(frame, 1, OVERDUE_US)
    assert made.very_late([2], OVERDUE_US + VERY_LATE_US - 1) is None
    assert made.very_late([2], OVERDUE_US + VERY_LATE_US) == (2, 0)


def test_only_the_oldest_frames_can_be_very_late() -> None:
    made = Legs(3, MIB)
    for _ in range(CANDIDATES_MAX):
        made.send(0)
    made.send(1)
    made.legs[0].latency_us = OVERDUE_US  # what it carries is just now expected
    assert made.very_late([2], OVERDUE_US) is None
    made.window.on_ack(ack(1))
    assert made.very_late([2], OVERDUE_US) == (2, CANDIDATES_MAX)


def test_nothing_is_very_late_when_nothing_is_on_its_way() -> None:
    assert Legs(2).very_late([0, 1], OVERDUE_US) is None
    assert Legs(2).pick([0, 1], OVERDUE_US) is None


def test_many_very_late_frames_are_hedged_one_after_the_other() -> None:
    made = Legs(2, MIB)
    for _ in range(5):
        made.send(0)
    order = []
    while (found := hedging.pick_very_late(made.window, made.legs, [1], 0, OVERDUE_US)) is not None:
        made.copy(found[1], found[0], OVERDUE_US)
        order.append(found[1].seq)
    assert order == [0, 1, 2, 3, 4]
