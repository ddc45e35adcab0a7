"""When the transmitter sends a second copy of a frame, and when it must not."""

from tests.protocol.drive import Sender
from tests.protocol.test_tx_session import busy_sender
from viamillipede.config import COPIES_MAX, KIB, MS_US, S_US
from viamillipede.protocol.wire import Kind, Waiting

WORTH_US = 1521 * MS_US  # when a copy on a leg of which nothing is known is worth while


def two_legs() -> Sender:
    """Two legs; the first is preferred."""
    sender = Sender()
    sender.up(0)
    sender.up(1, rank=1)
    return sender


def test_the_late_frames_of_a_full_window_are_hedged_on_other_legs() -> None:
    sender = busy_sender(3)
    assert sender.tx.next_assignment(100 * MS_US) is None
    hedged = sender.sent(WORTH_US)
    frames = sender.tx.window.frames_in_flight()
    assert sender.tx.hedges == len(hedged) == sender.tx.window.retransmitted_frames > 1
    assert (hedged[0][0], hedged[0][1].seq) in [(1, 0), (2, 0)]
    assert sender.tx.window.frames_in_flight() == frames
    more = sender.sent(10 * WORTH_US) + sender.sent(100 * WORTH_US)
    assert all(len(frame.legs) <= COPIES_MAX for frame in sender.tx.window.unarrived())
    assert {frame.seq for _, frame in hedged + more} >= {0}
    assert sum(leg.retransmitted for leg in sender.tx.legs.values()) == sender.tx.hedges


def test_nothing_is_hedged_at_once_while_the_window_has_room() -> None:
    sender = two_legs()
    sender.input(bytes(KIB))
    assert [leg for leg, _ in sender.sent()] == [0]
    assert sender.sent(S_US - 1) == []


def test_what_is_very_late_is_hedged_before_anything_new_is_sent() -> None:
    sender = two_legs()
    sender.input(bytes(KIB))
    sender.sent()
    sender.input(bytes(KIB), WORTH_US)
    assert [(leg, frame.seq) for leg, frame in sender.sent(WORTH_US)] == [(1, 0), (0, 1)]
    assert sender.tx.hedges == 1


def test_the_tail_is_hedged_when_the_input_has_ended() -> None:
    sender = two_legs()
    sender.input(bytes(KIB))
    sender.tx.window.on_input_end()
    assert [frame.kind for _, frame in sender.sent()] == [Kind.DATA, Kind.END]
    sender.tx.legs[1].rate, sender.tx.legs[1].latency_us = 1 << 30, 10 * MS_US
    assert sender.sent(32 * MS_US) == []
    assert [(leg, frame.seq) for leg, frame in sender.sent(33 * MS_US)] == [(1, 0), (1, 1)]


def test_nothing_is_hedged_while_rx_waits_for_its_output_and_the_clock_starts_after_that() -> None:
    sender = busy_sender(2)
    sender.ack(0, 1, 0, 5, Waiting.OUTPUT)
    assert sender.sent(100 * WORTH_US) == []
    sender.ack(0, 1, 0, 100 * WORTH_US, Waiting.FRAME)
    assert sender.sent(101 * WORTH_US - 2 * MS_US) == []
    assert sender.sent(101 * WORTH_US)[0][1].seq == 1


def test_what_was_lost_goes_before_a_hedge() -> None:
    sender = busy_sender(3)
    sender.tx.window.on_resend(9, 0)
    (_, first), *_ = sender.sent(WORTH_US)
    assert first.seq == 9


def test_no_hedge_without_another_idle_leg() -> None:
    assert busy_sender(1).sent(10 * S_US) == []


def test_a_leg_that_hoards_gets_neither_new_frames_nor_copies() -> None:
    sender = two_legs()
    sender.hoarding = {1}
    sender.tx.on_leg_lost(0, False, 0)
    while sender.input(bytes(KIB)) and sender.sent():
        pass
    assert not len(sender.tx.scheduler) and sender.tx.window.room_bytes()
    held = sender.tx.window.carries(1)
    sender.up(0)
    assert {leg for leg, _ in sender.sent()} == {0}
    sender.ack(1, held, held * KIB, 5)  # what the host on the way held has come through
    assert 1 in sender.tx.scheduler.legs(5)


def test_a_leg_whose_hoard_others_have_brought_is_used_again_when_it_has_passed_on_everything() -> None:
    sender = two_legs()
    sender.hoarding = {0}
    while 0 in sender.tx.scheduler.legs(0):
        sender.input(bytes(KIB))
        sender.sent()
    hedged = sender.sent(WORTH_US)
    assert hedged and all(leg == 1 for leg, _ in hedged)
    count = sender.tx.window.next_seq
    sender.ack(1, count, count * KIB, WORTH_US + 1)
    assert 0 in sender.tx.scheduler.legs(WORTH_US + 1)
